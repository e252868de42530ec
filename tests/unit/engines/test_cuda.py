import numpy as np
import pytest

from tests.support.fake_torch import FakeStream, FakeTorch
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


@pytest.fixture
def torch() -> FakeTorch:
    return FakeTorch()


def _values(stream: cuda.TorchStream, torch: FakeTorch) -> tuple[list[int], FakeStream]:
    """What lies in the stream's input memory now, and the stream beneath."""
    return stream._input.numpy().tolist(), torch._streams[stream.handle]


def test_a_stream_is_not_the_default_one_and_waits_once_for_the_memory_that_was_made_there(torch: FakeTorch) -> None:
    stream = cuda.TorchStream(torch, 4, 2)
    assert stream.handle != 0
    assert torch.calls == ["pinned 4", "cuda 4", "cuda 2", "pinned 2", "wait for 0"]


def test_what_is_uploaded_may_be_changed_at_once_and_arrives_when_its_turn_comes(torch: FakeTorch) -> None:
    stream, given = cuda.TorchStream(torch, 4, 2), np.array([1, 2, 3], np.int32)
    address = stream.upload(given)
    given[:] = 9
    before, queue = _values(stream, torch)
    assert before == [77] * 4
    stream.synchronise()
    assert _values(stream, torch)[0] == [1, 2, 3, 77]
    assert (address, queue.waiting) == (stream._input.data_ptr(), [])


def test_what_is_fetched_is_what_the_work_before_it_wrote_and_is_not_changed_by_the_next(torch: FakeTorch) -> None:
    stream = cuda.TorchStream(torch, 4, 3)
    stream.upload(np.array([1, 2, 3], np.int32))

    def launch(plus: float) -> None:
        with torch.stream(torch._streams[stream.handle]):
            torch.queue("run", lambda: np.add(stream._input.numpy()[:3], plus, out=stream._output.numpy()))

    launch(0.5)
    first = stream.download(2)
    launch(1.5)
    assert stream.download(3).tolist() == [2.5, 3.5, 4.5]
    assert first.tolist() == [1.5, 2.5]
    assert f"synchronize {stream.handle}" in torch.calls


def test_what_a_run_does_not_write_is_no_number(torch: FakeTorch) -> None:
    stream = cuda.TorchStream(torch, 1, 2)
    stream.forget()
    assert np.isnan(stream.download(2)).all()


def test_a_recorded_launch_is_not_run_and_replayed_it_runs_each_time_on_what_is_there_then(torch: FakeTorch) -> None:
    stream = cuda.TorchStream(torch, 2, 2)
    stream.upload(np.array([1, 2], np.int32))
    stream.synchronise()
    ran: list[list[int]] = []
    replay = stream.record(lambda: torch.queue("run", lambda: ran.append(stream._input.numpy().tolist())))
    stream.synchronise()
    assert ran == []
    replay()
    stream.upload(np.array([3, 4], np.int32))
    replay()
    stream.synchronise()
    assert ran == [[1, 2], [3, 4]]


def test_a_launch_that_cannot_be_recorded_gives_the_stream_back(torch: FakeTorch) -> None:
    stream = cuda.TorchStream(torch, 1, 1)

    def fail() -> None:
        raise RuntimeError("it cannot be recorded")

    with pytest.raises(RuntimeError, match="cannot be recorded"):
        stream.record(fail)
    assert torch.calls[-2:] == ["capture begins", "capture ends"]
    stream.upload(np.array([5], np.int32))
    stream.synchronise()
    assert _values(stream, torch)[0] == [5]
