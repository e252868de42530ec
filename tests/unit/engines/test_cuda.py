import pytest

from worker.engines import cuda
from worker.errors import EngineError


def test_a_gpu_that_cannot_be_used_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nfor debugging consider ...")

    monkeypatch.setattr(cuda, "cuda_absence", lambda: None)
    monkeypatch.setattr(cuda, "TorchDevice", fail)
    with pytest.raises(EngineError, match=r"cannot be used \(CUDA error: device-side assert triggered\); nvidia-smi"):
        cuda.open_device()


def test_a_machine_without_a_gpu_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "cuda_absence", lambda: "torch is not installed")
    with pytest.raises(EngineError, match="no GPU: torch is not installed"):
        cuda.open_device()
