"""What the TensorRT engine wants of a CUDA device: memory, copies, streams, recorded launches. By way of torch.

torch rather than CUDA's own Python bindings: the exporter and the second GPU engine need it anyway, so there is one
allocator, one current device and one set of libraries in the process.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from worker.engines.memory import with_memory_errors_told
from worker.errors import EngineError
from worker.types import Float32Array, Int32Array


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a compiled engine depends on."""

    name: str
    capability: str
    multiprocessors: int
    driver: str
    runtime: str
    memory_bytes: int


class Stream(Protocol):
    """A queue of work on the device. Nothing here ever waits for the whole device."""

    @property
    def handle(self) -> int:
        """The CUDA stream; never the default one."""
        ...

    def upload(self, values: Int32Array) -> int:
        """Queue a copy of `values` into the stream's input memory; gives the address it goes to.

        Through pinned memory of the stream's own: the values may be changed at once, but only one upload be on its way.
        """
        ...

    def download(self, count: int) -> Float32Array:
        """The first `count` numbers of the stream's output memory, once all that is queued is done. Blocks."""
        ...

    @property
    def output_address(self) -> int:
        """Where results are to be written: constant."""
        ...

    def forget(self) -> None:
        """Queue that the output memory holds no numbers, so that what is not written shows."""
        ...

    def synchronise(self) -> None:
        """Wait until all that is queued is done."""
        ...

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Record what `launch` queues, without running it; calling the result queues it again, at once.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        ...


class Device(Protocol):
    """One GPU."""

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""
        ...

    def use(self) -> contextlib.AbstractContextManager[None]:
        """Make it the current one of this thread."""
        ...

    def allocate(self, size_bytes: int) -> "Memory":
        """Memory on the device, aligned to 256 bytes, until it is garbage.

        Raises:
            EngineOutOfMemoryError: there is not so much.
        """
        ...

    def stream(self, input_count: int, output_count: int) -> Stream:
        """A stream with room for so many int32 going in and float32 coming out.

        Raises:
            EngineOutOfMemoryError: there is not so much.
        """
        ...


@dataclass(frozen=True, slots=True)
class Memory:
    """A piece of device memory, kept as long as this is."""

    address: int
    size_bytes: int
    owner: object


def cuda_absence() -> str | None:
    """Why there is no CUDA device to use, in words; None where there is one. Imports torch."""
    if importlib.util.find_spec("torch") is None:
        return 'torch is not installed: pip install "nli-stream-worker[gpu]"'
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    return None if torch.cuda.is_available() else "torch finds no CUDA device, or its driver is too old"


def open_device() -> Device:
    """The current CUDA device.

    Raises:
        EngineError: there is none, or it cannot be used.
    """
    reason = cuda_absence()
    if reason is not None:
        raise EngineError(f"engine: no GPU: {reason}")
    try:
        return TorchDevice()
    except RuntimeError as error:
        said = str(error).partition("\n")[0][:200]
        raise EngineError(f"engine: the GPU cannot be used ({said}); nvidia-smi shows its state") from error


class TorchDevice:
    """The current CUDA device, by way of torch."""

    def __init__(self) -> None:
        import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

        self._torch: Any = torch
        self._index = int(torch.cuda.current_device())
        properties = torch.cuda.get_device_properties(self._index)
        self._facts = DeviceFacts(
            name=str(properties.name),
            capability=f"{properties.major}.{properties.minor}",
            multiprocessors=int(properties.multi_processor_count),
            driver=_driver_version(),
            runtime=str(torch.version.cuda),
            memory_bytes=int(properties.total_memory),
        )

    @property
    def facts(self) -> DeviceFacts:
        """What it is."""
        return self._facts

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Make it the current one of this thread."""
        with self._torch.cuda.device(self._index):
            yield

    def allocate(self, size_bytes: int) -> Memory:
        """Memory on the device, aligned to 256 bytes (torch's allocator aligns to 512), until it is garbage."""
        with self.use():
            owner = with_memory_errors_told(
                lambda: self._torch.empty(max(size_bytes, 256), dtype=self._torch.uint8, device="cuda")
            )
        return Memory(int(owner.data_ptr()), max(size_bytes, 256), owner)

    def stream(self, input_count: int, output_count: int) -> "TorchStream":
        """A stream with room for so many int32 going in and float32 coming out."""
        with self.use():
            return with_memory_errors_told(lambda: TorchStream(self._torch, input_count, output_count))


class TorchStream:
    """A stream of torch's, with pinned memory on this side and plain memory on the device's."""

    def __init__(self, torch: Any, input_count: int, output_count: int) -> None:  # noqa: ANN401  # torch is optional
        self._torch = torch
        self._stream = torch.cuda.Stream()
        self._done = torch.cuda.Event()
        self._staged = torch.empty(input_count, dtype=torch.int32, pin_memory=True)
        self._staged_view: Int32Array = self._staged.numpy()
        self._input = torch.empty(input_count, dtype=torch.int32, device="cuda")
        self._output = torch.empty(output_count, dtype=torch.float32, device="cuda")
        self._fetched = torch.empty(output_count, dtype=torch.float32, pin_memory=True)
        # The memory was made in the order of the default stream: wait for it once.
        self._stream.wait_stream(torch.cuda.current_stream())

    @property
    def handle(self) -> int:
        """The CUDA stream; never the default one."""
        return int(self._stream.cuda_stream)

    @property
    def output_address(self) -> int:
        """Where results are to be written: constant."""
        return int(self._output.data_ptr())

    def upload(self, values: Int32Array) -> int:
        """Queue a copy of `values` into the stream's input memory; gives the address it goes to."""
        count = values.size
        self._staged_view[:count] = values
        with self._torch.cuda.stream(self._stream):
            self._input[:count].copy_(self._staged[:count], non_blocking=True)
        return int(self._input.data_ptr())

    def download(self, count: int) -> Float32Array:
        """The first `count` numbers of the stream's output memory, once all that is queued is done. Blocks."""
        with self._torch.cuda.stream(self._stream):
            self._fetched[:count].copy_(self._output[:count], non_blocking=True)
            self._done.record(self._stream)
            self._done.synchronize()
        return np.array(self._fetched[:count].numpy(), dtype=np.float32)

    def forget(self) -> None:
        """Queue that the output memory holds no numbers, so that what is not written shows."""
        with self._torch.cuda.stream(self._stream):
            self._output.fill_(float("nan"))

    def synchronise(self) -> None:
        """Wait until all that is queued is done."""
        self._stream.synchronize()

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Record what `launch` queues, without running it; calling the result queues it again, at once.

        Raises:
            RuntimeError: it cannot be recorded.
        """
        # Not `torch.cuda.graph`: that waits for the whole device first.
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.stream(self._stream):
            # Other threads allocate meanwhile: that must not break the recording.
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                launch()
            except BaseException:
                # The stream has to be given back; that the recording is broken is known.
                with contextlib.suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()

        def replay() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return replay


def _driver_version() -> str:
    """The driver's version as the library that comes with it says."""
    import ctypes  # noqa: PLC0415  # only here

    version = ctypes.c_int(0)
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return "unknown"
    except (OSError, AttributeError):
        return "unknown"
    try:
        # What CUDA it speaks does not change with every release of the driver; this does.
        with open("/proc/driver/nvidia/version", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
            return f"{version.value} {stream.readline().strip()}"
    except OSError:
        return str(version.value)
