from pathlib import Path

import pytest

from tests.support.plans import write_folder
from worker.engines import choice, ov_machine, pytorch, trt_api
from worker.engines.artifact import ModelFolder
from worker.engines.choice import EngineChoice, attempts, tensorrt_absence
from worker.engines.trt_order import PlanForm

LADDER = ("float16", "bfloat16", "float32")
CPU = "openvino float32"


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return write_folder(tmp_path / "model")


@pytest.fixture(autouse=True)
def _plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov_machine, "has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(ov_machine, "has_8bit_products", lambda: False)


def _machine(monkeypatch: pytest.MonkeyPatch, *, gpu: bool, tensorrt: bool, torch: bool = True) -> None:
    monkeypatch.setattr(trt_api, "has_tensorrt", lambda: tensorrt)
    monkeypatch.setattr(pytorch, "has_cuda", lambda: gpu)
    monkeypatch.setattr(pytorch, "has_torch", lambda: torch)
    monkeypatch.setattr(choice, "cuda_absence", lambda: None if gpu else "torch finds no CUDA device")


@pytest.mark.parametrize(
    ("gpu", "tensorrt", "expected"),
    [
        (True, True, [*(f"tensorrt {each}" for each in LADDER), *(f"pytorch {each}" for each in LADDER), CPU]),
        (True, False, [*(f"pytorch {each}" for each in LADDER), CPU]),
        (False, True, ["openvino float32"]),
        (False, False, ["openvino float32"]),
    ],
)
def test_the_best_engine_comes_first_and_the_others_after_it(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, gpu: bool, tensorrt: bool, expected: list[str]
) -> None:
    _machine(monkeypatch, gpu=gpu, tensorrt=tensorrt)
    ways = attempts(folder, EngineChoice(model=str(folder.path)))
    assert [f"{way.engine} {way.precision}" for way in ways] == expected
    assert all(way.why for way in ways)


def test_strict_leaves_only_the_first(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=True, tensorrt=True)
    (only,) = attempts(folder, EngineChoice(model=str(folder.path), strict=True))
    assert (only.engine, only.precision) == ("tensorrt", "float16")


def test_an_engine_that_is_asked_for_is_the_only_one(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=True, tensorrt=True)
    for engine in ("tensorrt", "pytorch", "openvino"):
        ways = attempts(folder, EngineChoice(model=str(folder.path), engine=engine))
        assert {way.engine for way in ways} == {engine}


def test_a_precision_that_is_asked_for_is_the_only_one(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=True, tensorrt=True)
    ways = attempts(folder, EngineChoice(model=str(folder.path), precision="bfloat16"))
    assert {way.precision for way in ways} == {"bfloat16"}


def test_what_the_gpu_lacks_is_said_with_what_to_install(folder: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, gpu=True, tensorrt=False)
    (first, *_) = attempts(folder, EngineChoice(model=str(folder.path)))
    assert first.why == 'there is a GPU; tensorrt is not installed: pip install "nli-stream-worker[tensorrt]"'
    assert tensorrt_absence() == 'tensorrt is not installed: pip install "nli-stream-worker[tensorrt]"'
    _machine(monkeypatch, gpu=False, tensorrt=True)
    assert tensorrt_absence() == "torch finds no CUDA device"
    _machine(monkeypatch, gpu=True, tensorrt=True)
    assert tensorrt_absence() is None


@pytest.mark.parametrize(
    ("tensorrt", "torch", "lack"),
    [
        (False, False, 'tensorrt is not installed: pip install "nli-stream-worker[tensorrt]"'),
        (False, True, "torch finds no CUDA device"),
        (True, True, "torch finds no CUDA device"),
    ],
)
def test_where_the_cpu_is_taken_it_is_said_in_one_line_why_no_gpu_is(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, lack: str, *, tensorrt: bool, torch: bool
) -> None:
    _machine(monkeypatch, gpu=False, tensorrt=tensorrt, torch=torch)
    (only,) = attempts(folder, EngineChoice(model=str(folder.path)))
    assert only.why == f"the best engine for a CPU; none of a GPU: {lack}"


def test_the_layout_decides_which_precisions_of_tensorrt_there_are(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention over packed tokens computes in 16 bits: float32 is left to the next engine."""
    _machine(monkeypatch, gpu=True, tensorrt=True)
    ways = attempts(folder, EngineChoice(model=str(folder.path), plan=PlanForm("packed")))
    assert [way.precision for way in ways if way.engine == "tensorrt"] == ["float16", "bfloat16"]
    assert [way.precision for way in ways if way.engine == "pytorch"] == list(LADDER)
