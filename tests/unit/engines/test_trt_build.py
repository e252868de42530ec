"""Whatever the library answers to a build, a plan comes of it or an error that names the fix."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import openvino
import pytest
from openvino import opset15 as opset

from tests.support import fake_tensorrt, fake_tensorrt_10
from tests.support.fake_tensorrt import state
from tests.support.plans import LAYERS, bert_source, compile_tiny, plain_recipe
from worker.engines.profiles import choose_profiles
from worker.engines.trt_api import make_logger
from worker.engines.trt_build import Built, build_plan
from worker.errors import EngineError

NO_DEVICE = "pybind11::init(): factory function returned nullptr"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    state.reset()
    yield
    state.reset()


def _build(timings: bytes = b"") -> Built:
    return build_plan(
        fake_tensorrt, bert_source(), "lengths", choose_profiles("lengths", 64, 256, (16, 32)), plain_recipe(timings)
    )


def test_a_build_that_gives_nothing_is_an_error_that_names_the_fix() -> None:
    state.answers["build_serialized_network"] = False
    with pytest.raises(EngineError, match=r"built nothing; the log says why\. Fewer or smaller profiles need less"):
        _build()


@pytest.mark.parametrize(
    ("call", "answer", "error"),
    [
        ("Builder", TypeError(NO_DEVICE), r"cannot use this machine's GPU, .*renew the driver, or name another engine"),
        ("Runtime", TypeError(NO_DEVICE), r"cannot use this machine's GPU, .*renew the driver, or name another engine"),
        ("build_serialized_network", RuntimeError("no kernel"), r"refused: the build \(RuntimeError: no kernel\)"),
        ("build_serialized_network", MemoryError(), r"refused: the build \(MemoryError\)"),
        ("set_shape", RuntimeError("min"), r"refused: the profile of 16 pairs and 16 tokens \(RuntimeError: min\)"),
        ("add_gather", TypeError("incompatible"), r"refused: the network \(TypeError: incompatible\)"),
        ("add_attention", False, "refused: the attention of layers.0; the log says why"),
        ("add_input", False, "refused: the input input_ids; the log says why"),
        ("add_optimization_profile", False, "refused the profile of 16 pairs and 16 tokens"),
        ("deserialize_cuda_engine", False, "refused: the plan it has just built; the log says why"),
    ],
)
def test_a_call_that_the_library_refuses_or_breaks_off_is_an_error_of_the_engine(
    call: str, answer: object, error: str
) -> None:
    state.answers[call] = answer
    with pytest.raises(EngineError, match=error):
        _build()


@pytest.mark.parametrize(
    ("call", "answer", "error"),
    [
        ("parse_from_file", False, "cannot read the graph: no such operator"),
        ("parse_from_file", RuntimeError("broken"), r"refused: the network \(RuntimeError: broken\)"),
        ("OnnxParser", TypeError(NO_DEVICE), r"refused: the network \(TypeError: pybind11"),
    ],
)
def test_a_graph_that_cannot_be_read_says_what_the_parser_says(call: str, answer: object, error: str) -> None:
    state.answers[call] = answer
    with pytest.raises(EngineError, match=error):
        build_plan(fake_tensorrt, Path("model.onnx"), "padded", choose_profiles("padded", 64, 256), plain_recipe())


def test_a_refused_profile_is_never_built_without() -> None:
    state.answers["add_optimization_profile"] = False
    with pytest.raises(EngineError, match="refused the profile"):
        _build()
    assert state.named("build_serialized_network") == []


def test_measured_kernels_are_built_on() -> None:
    assert _build(b"known;").timings == b"known;measured;"
    assert state.named("set_timing_cache") == [("set_timing_cache", b"known;", False)]


def test_kernels_that_were_measured_on_another_gpu_are_measured_anew() -> None:
    state.answers["set_timing_cache"] = False
    assert _build(b"of another GPU;").timings == b"measured;"
    assert state.named("set_timing_cache") == [
        ("set_timing_cache", b"of another GPU;", False),
        ("set_timing_cache", b"", False),
    ]


def test_what_the_inspector_says_comes_with_the_plan_and_is_counted() -> None:
    built = _build()
    assert (built.fused_attention, "_gemm_mha_v2" in built.layers) == (LAYERS, True)
    state.answers["get_engine_information"] = '{"Layers": ["layers.0.attention", "layers.1.attention"]}'
    assert compile_tiny("packed", bert_source()).fused_attention == 0


def _write_graph(file: Path) -> None:
    """A graph that the fake can read: `logits` are the numbers of the tokens."""
    ids = opset.parameter([-1, -1], np.int32, name="input_ids")
    ids.output(0).get_tensor().set_names({"input_ids"})
    logits = opset.convert(ids, "f32")
    logits.output(0).get_tensor().set_names({"logits"})
    openvino.save_model(openvino.Model([logits], [ids], "tiny"), file, compress_to_fp16=False)


@pytest.mark.parametrize(("api", "flags"), [(fake_tensorrt, 0), (fake_tensorrt_10.tensorrt, 2)])
def test_a_graph_is_built_strongly_typed_by_the_same_code_in_both_versions(
    tmp_path: Path, api: ModuleType, flags: int
) -> None:
    graph = tmp_path / "model.xml"
    _write_graph(graph)
    profiles = choose_profiles("padded", 64, 256, (16, 32))
    built = build_plan(api, graph, "padded", profiles, plain_recipe())
    assert state.named("create_network") == [("create_network", flags)]
    assert len(state.named("add_optimization_profile")) == len(profiles)
    assert (built.fused_attention, built.timings) == (0, b"measured;")
    assert api.Runtime(make_logger(api)).deserialize_cuda_engine(built.plan).num_optimization_profiles == len(profiles)


@pytest.mark.parametrize("layout", ["lengths", "packed"])
def test_a_network_that_the_library_is_too_old_for_is_an_error_and_no_traceback(layout: str) -> None:
    """Orders for one are refused long before; whoever calls the build itself is told as well."""
    profiles = choose_profiles(layout, 64, 256, (16, 32))
    with pytest.raises(EngineError, match="refused: the network \\(AttributeError: "):
        build_plan(fake_tensorrt_10.tensorrt, bert_source(), layout, profiles, plain_recipe())
