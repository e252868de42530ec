"""As much of torch as a stream of the TensorRT engine uses, in numpy: queued work runs when it is waited for.

What a real device does later is done here when somebody waits, so that values taken too early, memory written too soon
and waiting for the whole device all show.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

float32, int32, uint8 = np.float32, np.int32, np.uint8


class OutOfMemoryError(RuntimeError):
    """As torch's own."""


class Tensor:
    """Memory on one side or the other."""

    def __init__(self, torch: "FakeTorch", values: Any, *, is_pinned: bool = False) -> None:  # noqa: ANN401  # an array
        self._torch, self.values, self.is_pinned = torch, values, is_pinned

    def numpy(self) -> Any:  # noqa: ANN401  # an array
        """The memory itself, as an array."""
        return self.values

    def data_ptr(self) -> int:
        """Where it is."""
        return int(self.values.ctypes.data)

    def __getitem__(self, part: slice) -> "Tensor":
        return Tensor(self._torch, self.values[part], is_pinned=self.is_pinned)

    def copy_(self, other: "Tensor", *, non_blocking: bool = False) -> None:
        """Queue a copy on the current stream."""
        assert non_blocking, "a copy that waits for the device"
        assert self.is_pinned or other.is_pinned, "a copy out of memory that is not pinned is none that can be queued"
        self._torch.queue("copy", lambda: np.copyto(self.values, other.values))

    def fill_(self, value: float) -> None:
        """Queue that every number is `value`."""
        self._torch.queue("fill", lambda: self.values.fill(value))


class FakeStream:
    """Work in order, done when it is waited for."""

    def __init__(self, torch: "FakeTorch", handle: int) -> None:
        self.torch, self.cuda_stream = torch, handle
        self.waiting: list[Callable[[], None]] = []

    def wait_stream(self, other: "FakeStream") -> None:
        """Nothing of this stream before what `other` has queued."""
        self.torch.calls.append(f"wait for {other.cuda_stream}")

    def synchronize(self) -> None:
        """Do all that waits."""
        self.torch.calls.append(f"synchronize {self.cuda_stream}")
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


class FakeEvent:
    """The end of what a stream had to do when it was recorded."""

    stream: FakeStream | None = None

    def record(self, stream: FakeStream) -> None:
        """Put it at the end of `stream`."""
        self.stream = stream

    def synchronize(self) -> None:
        """Wait until the stream is so far."""
        assert self.stream is not None
        self.stream.synchronize()


class Graph:
    """Work that was recorded rather than done."""

    def __init__(self, torch: "FakeTorch") -> None:
        self.torch = torch
        self.recorded: list[Callable[[], None]] = []

    def capture_begin(self, capture_error_mode: str) -> None:
        """From now on nothing is queued."""
        assert capture_error_mode == "thread_local", "other threads allocate meanwhile"
        self.torch.calls.append("capture begins")
        self.torch.recording = self

    def capture_end(self) -> None:
        """What was recorded is whole."""
        self.torch.calls.append("capture ends")
        self.torch.recording = None

    def replay(self) -> None:
        """Queue what was recorded."""
        for work in self.recorded:
            self.torch.queue("replayed", work)


class FakeTorch:
    """The module."""

    float32, int32, uint8 = float32, int32, uint8
    OutOfMemoryError = OutOfMemoryError

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.recording: Graph | None = None
        self._streams = [FakeStream(self, 0)]
        self._current = [self._streams[0]]
        self.cuda = self

    def queue(self, what: str, work: Callable[[], None]) -> None:
        """Work for the current stream, or for what is recorded."""
        stream = self._current[-1]
        assert stream.cuda_stream != 0, "never the default stream"
        self.calls.append(f"{what} on {stream.cuda_stream}")
        (self.recording.recorded if self.recording else stream.waiting).append(work)

    def empty(self, count: int, *, dtype: Any, pin_memory: bool = False, device: str = "cpu") -> Tensor:  # noqa: ANN401
        """Memory in which anything may stand."""
        self.calls.append(f"{'pinned' if pin_memory else device} {count}")
        return Tensor(self, np.full(count, 77, dtype=dtype), is_pinned=pin_memory)

    def Stream(self) -> FakeStream:  # noqa: N802  # as torch calls it
        """A stream of its own."""
        self._streams.append(FakeStream(self, len(self._streams)))
        return self._streams[-1]

    def Event(self) -> FakeEvent:  # noqa: N802  # as above
        """An event."""
        return FakeEvent()

    def CUDAGraph(self) -> Graph:  # noqa: N802  # as above
        """A recording."""
        return Graph(self)

    def current_stream(self) -> FakeStream:
        """Where work goes."""
        return self._current[-1]

    @contextlib.contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        """Within it work goes to `stream`."""
        self._current.append(stream)
        try:
            yield
        finally:
            self._current.pop()

    def synchronize(self) -> None:
        """Never to be called: it waits for every stream of the device."""
        raise AssertionError("waited for the whole device")
