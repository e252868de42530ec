"""Models become TensorRT plans that say what transformers says: built and run by the fake."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import fake_cuda, fake_tensorrt
from tests.support.batches import batch_of, random_pairs
from tests.support.fake_site import python_path
from worker.engines import choice, cuda, trt_builder, trt_child
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.layout import pad
from worker.engines.load import EngineChoice, load_engine
from worker.engines.plan_workshop import Wish, build_checked
from worker.engines.profiles import choose_profiles
from worker.engines.trt import TensorRtEngine, TensorRtOptions
from worker.engines.trt_build import BuildOptions, Recipe, build_plan
from worker.engines.trt_builder import ignore_progress
from worker.engines.trt_order import PlanForm
from worker.types import Batch, Float32Array

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "onnxscript")),
        reason="needs torch, transformers, onnxscript: uv run --group reference pytest -m reference",
    ),
]

BATCHES = [
    batch_of(*random_pairs(1, 3, 250)),
    batch_of(*random_pairs(9, 160, 250, seed=3)),
    batch_of([7] * 160, [8, 9]),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelFolder]:
    from tests.support.tiny_torch import write_tiny_torch_model  # noqa: PLC0415  # torch is optional

    root = tmp_path_factory.mktemp("tiny")

    def find(family: str) -> ModelFolder:
        path = root / family
        return open_folder(path if path.is_dir() else write_tiny_torch_model(path, family))

    return find


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """TensorRT and a GPU, here and in processes that are started."""
    fake_tensorrt.state.reset()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path / "site"))
    monkeypatch.setattr(cuda, "open_device", fake_cuda.HostDevice)
    monkeypatch.setattr(choice, "cuda_absence", lambda: None)
    yield
    fake_tensorrt.state.reset()


def _expected(folder: ModelFolder, batch: Batch) -> Float32Array:
    import torch  # noqa: PLC0415  # torch is optional
    import transformers  # noqa: PLC0415  # torch is optional

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder.path).eval()
    padded = pad(batch, folder.pad_token_id)
    feed = {"input_ids": torch.tensor(padded.input_ids), "attention_mask": torch.tensor(padded.attention_mask)}
    if folder.has_type_ids:
        feed["token_type_ids"] = torch.tensor(padded.type_ids)
    with torch.inference_mode():
        return np.asarray(model(**feed).logits.numpy(), dtype=np.float32)


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float8"])
@pytest.mark.parametrize("layout", ["lengths", "packed"])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
def test_a_network_written_from_weights_says_what_transformers_says(
    family: str, layout: str, precision: str, tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    import transformers  # noqa: PLC0415  # torch is optional

    folder = tiny(family)
    module = transformers.AutoModelForSequenceClassification.from_pretrained(folder.path).eval()
    source = trt_child._weights(module, folder, precision)
    profiles = choose_profiles(layout, folder.max_pair_tokens, 2048, (32, 64))
    recipe = Recipe(BuildOptions(), b"", ignore_progress)
    built = build_plan(fake_tensorrt, source, layout, profiles, recipe)
    assert built.fused_attention == 2
    facts: dict[str, Any] = {
        "layout": layout,
        "precision": precision,
        "model": "sha256:",
        "profiles": [[profile.tokens, profile.pairs] for profile in profiles],
    }
    store = trt_builder.plan_store(tmp_path)
    stored = store.put(facts, built.plan, {})
    engine = TensorRtEngine(fake_tensorrt, fake_cuda.HostDevice(), folder, stored, TensorRtOptions())
    errors = np.concatenate([np.abs(engine.score(batch).logits - _expected(folder, batch)) for batch in BATCHES])
    # These tiny models have weights so rough that few bits show: a wrong network is off by whole units everywhere.
    assert errors.mean() <= {"float16": 1e-2, "bfloat16": 1e-1, "float8": 0.5}[precision]
    assert errors.max() <= {"float16": 5e-2, "bfloat16": 3e-1, "float8": 3.0}[precision]
    engine.close()


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert"])
def test_a_plan_is_built_in_a_process_of_its_own_checked_and_kept(
    family: str, tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    folder = tiny(family)
    said: list[str] = []
    wish = Wish(str(folder.path), "float32", PlanForm("padded", 1024, (32, 64)), 300.0, False, tmp_path)
    checked = build_checked(wish, lambda phase, _done: said.append(phase))
    assert (checked.report.passed, checked.report.reason) == (True, "")
    assert checked.report.largest_logit_error <= 1e-3
    assert {"writing the graph", "Building Engine", "checking against float32"} <= set(said)
    kept = trt_builder.plan_store(tmp_path).plans()
    assert [plan.notes["gate"] for plan in kept] == [checked.as_object()["gate"]]
    before = kept[0].plan_file.stat().st_mtime_ns
    assert build_checked(wish, ignore_progress).stored.plan_file.stat().st_mtime_ns == before


def test_the_ladder_ends_at_the_first_precision_that_agrees_and_the_engine_says_why(
    tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    """Weights so rough that 16 bits do not agree: float32 is what remains, and that is said."""
    folder = tiny("modernbert")
    loaded = load_engine(EngineChoice(model=str(folder.path), cache_dir=tmp_path))
    stamp = loaded.engine.info.stamp
    assert (stamp.engine, loaded.is_verified) == ("tensorrt", True)
    assert loaded.why == f"tensorrt, {stamp.precision}: there is a GPU, and tensorrt is installed"
    assert loaded.gate is not None
    assert loaded.gate.passed
    gates = [plan.notes["gate"] for plan in trt_builder.plan_store(tmp_path).plans()]
    assert sum(isinstance(gate, dict) and gate["passed"] is True for gate in gates) == 1
    batch = BATCHES[1]
    assert np.abs(loaded.engine.score(batch).logits - _expected(folder, batch)).max() <= 5e-2
    loaded.engine.close()


@pytest.mark.parametrize("layout", ["transformers", "padded", "packed"])
def test_the_pytorch_engine_computes_in_the_layout_that_is_set(
    layout: str, tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    model = str(tiny("bert").path)
    loaded = load_engine(EngineChoice(model, "pytorch", "float32", cache_dir=tmp_path, torch_layout=layout))
    assert (layout, "false") == tuple(loaded.engine.info.details[key] for key in ("layout", "compiled"))
    loaded.engine.close()


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_the_pytorch_engine_with_our_encoder_says_what_transformers_says(
    layout: str, tiny: Callable[[str], ModelFolder]
) -> None:
    from worker.engines.pytorch import PyTorchEngine, PyTorchOptions  # noqa: PLC0415  # torch is optional

    for family in ("bert", "deberta-v2", "modernbert"):
        folder = tiny(family)
        engine = PyTorchEngine(folder, PyTorchOptions("float32", device="cpu", layout=layout))
        assert engine.info.details["layout"] == layout
        for batch in BATCHES:
            assert np.abs(engine.score(batch).logits - _expected(folder, batch)).max() <= 1e-4
        engine.close()
