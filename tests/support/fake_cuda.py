"""A device in the host's memory, for the fake TensorRT."""

import contextlib
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from tests.support.fake_tensorrt import state
from worker.engines.cuda import DeviceFacts, Memory
from worker.errors import EngineOutOfMemoryError
from worker.types import Float32Array, Int32Array

FACTS = DeviceFacts("Fake GPU", "9.0", 132, "580.1", "13.0", 1 << 30)
_handles = itertools.count(1)


class HostDevice:
    """One GPU that is none."""

    def __init__(self, facts: DeviceFacts = FACTS, *, memory_bytes: int = 1 << 30) -> None:
        self.facts = facts
        self._left = memory_bytes

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Nothing to make current."""
        yield

    def allocate(self, size_bytes: int) -> Memory:
        """Memory of the host, until there is no more."""
        self._left -= size_bytes
        if self._left < 0:
            raise EngineOutOfMemoryError("the fake device has no memory left")
        values = _aligned(size_bytes)
        return Memory(values.ctypes.data, size_bytes, values)

    def stream(self, input_count: int, output_count: int) -> "HostStream":
        """A stream that does everything at once."""
        self.allocate(4 * (input_count + output_count))
        return HostStream(input_count, output_count)


class HostStream:
    """Does at once what a stream would queue."""

    def __init__(self, input_count: int, output_count: int) -> None:
        self.handle = next(_handles)
        self._input = _aligned(4 * input_count).view(np.int32)
        # What a run did not write must not look like logits.
        self._output = _aligned(4 * output_count).view(np.float32)
        self._output.fill(np.nan)

    @property
    def output_address(self) -> int:
        """Where results are to be written."""
        return self._output.ctypes.data

    def upload(self, values: Int32Array) -> int:
        """Copy."""
        self._input[: values.size] = values
        return self._input.ctypes.data

    def download(self, count: int) -> Float32Array:
        """Copy, and forget."""
        fetched = self._output[:count].copy()
        self._output.fill(np.nan)
        return fetched

    def forget(self) -> None:
        """What is not written from now on shows."""
        self._output.fill(np.nan)

    def synchronise(self) -> None:
        """Nothing is queued."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """What the fake library would have run."""
        error = state.told("record")
        if error is False:
            raise RuntimeError("it cannot be recorded")
        state.recording = []
        try:
            launch()
            recorded = state.recording
        finally:
            state.recording = None

        def replay() -> None:
            if state.told("replay") is False:
                raise RuntimeError("CUDA error: the device is gone")
            for run in recorded:
                run()

        return replay


def _aligned(size_bytes: int) -> "np.typing.NDArray[np.uint8]":
    whole = np.zeros(size_bytes + 512, dtype=np.uint8)
    start = -whole.ctypes.data % 256
    return whole[start : start + max(4, -(-size_bytes // 4) * 4)]
