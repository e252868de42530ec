"""One lane of the TensorRT engine: a thread with a stream, its memory, and one execution context per profile."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import structlog

from worker.engines.cuda import Device, Memory
from worker.engines.memory import with_memory_errors_told
from worker.engines.profiles import Profile, Shape, exact_shape, inputs, rounded_shape
from worker.engines.trt_api import Api, checked
from worker.errors import EngineError
from worker.types import Batch, Float32Array, Int32Array

_ALIGNED: Final = 64
"""int32 values in 256 bytes, to which every input is aligned."""
_LOGITS: Final = "logits"
_SEEN_BEFORE_RECORDING: Final = 2
"""A shape is worth recording when it comes back."""

_SAME: Final = 1e-2
"""How far logits of one plan may lie apart: a recorded launch may have chosen other kernels, never other inputs."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What every lane of an engine runs."""

    api: Api
    engine: Any
    """The library's engine; shared by the lanes."""
    logger: Any
    """What the library complains to."""
    layout: str
    profiles: Sequence[Profile]
    input_names: tuple[str, ...]
    classes: int
    pad_id: int
    recorded_shapes: int = 16
    """Shapes whose launches are recorded, at most; 0: none."""
    recorded_tokens: int = 16_384
    """Larger shapes hide the time to launch by themselves."""


class Lane:
    """Runs one chunk at a time in a thread of its own; contexts are never used by two threads."""

    def __init__(self, plan: LanePlan, device: Device, name: str) -> None:
        """Give it its memory; blocks until that is done.

        Raises:
            EngineError: the library refuses.
            EngineOutOfMemoryError: there is not enough memory.
        """
        self._plan = plan
        self._device = device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._contexts: dict[int, Any] = {}
        self._recorded: OrderedDict[tuple[int, Shape], _Recorded] = OrderedDict()
        self._seen: dict[tuple[int, Shape], int] = {}
        self.recordings_failed = 0
        """How often a launch could not be recorded and so is made anew every time."""
        self._thread.submit(self._open).result()

    def submit(self, batch: Batch, profile: int) -> "Future[Float32Array]":
        """Logits of `batch`, float32 [pairs, classes], run in the profile of that number.

        The future holds EngineOutOfMemoryError where there was no memory, RuntimeError where it did not run.
        """
        return self._thread.submit(self._run, batch, profile)

    def close(self) -> None:
        """Give back contexts, memory and the thread. Blocks until the last chunk is done."""
        if self._contexts:
            self._thread.submit(self._drop).result()
        self._thread.shutdown()

    def _open(self) -> None:
        plan, device = self._plan, self._device
        with device.use():
            self._stream = device.stream(*_largest(plan))
            needed = max(
                int(plan.engine.get_device_memory_size_for_profile_v2(index)) for index in range(len(plan.profiles))
            )
            # The contexts of a lane never run at once, so they share what they need while running.
            self._scratch: Memory = device.allocate(needed)
            for index in range(len(plan.profiles)):
                self._contexts[index] = self._make_context(index)

    def _drop(self) -> None:
        with self._device.use():
            self._stream.synchronise()
            self._recorded.clear()
            self._contexts.clear()

    def _make_context(self, profile: int) -> Any:  # noqa: ANN401  # the library is not typed for us
        strategy = self._plan.api.ExecutionContextAllocationStrategy.USER_MANAGED
        context = checked(self._plan.engine.create_execution_context(strategy), "an execution context")
        is_set = context.set_optimization_profile_async(profile, self._stream.handle)
        checked(is_set, f"profile {profile}")
        context.set_device_memory(self._scratch.address, self._scratch.size_bytes)
        self._stream.synchronise()
        return context

    def _run(self, batch: Batch, profile: int) -> Float32Array:
        with self._device.use():
            return with_memory_errors_told(lambda: self._score(batch, profile))

    def _score(self, batch: Batch, profile: int) -> Float32Array:
        kind = self._plan.profiles[profile]
        rounded = rounded_shape(batch, self._plan.layout, kind)
        if self._is_recordable(rounded):
            return self._run_recordable(batch, profile, rounded)
        shape = exact_shape(batch, self._plan.layout, kind)
        self._launch(self._contexts[profile], self._upload(batch, shape))
        return self._download(batch)

    def _is_recordable(self, shape: Shape) -> bool:
        tokens = shape.tokens if self._plan.layout == "packed" else shape.pairs * shape.tokens
        return self._plan.recorded_shapes > 0 and tokens <= self._plan.recorded_tokens

    def _run_recordable(self, batch: Batch, profile: int, shape: Shape) -> Float32Array:
        key = (profile, shape)
        placed = self._upload(batch, shape)
        recorded = self._recorded.get(key)
        if recorded is not None:
            self._recorded.move_to_end(key)
            recorded.replay()
            return self._download(batch)
        self._launch(self._contexts[profile], placed)
        logits = self._download(batch)
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] == _SEEN_BEFORE_RECORDING:
            self._record(key, placed, logits)
        return logits

    def _record(self, key: tuple[int, Shape], placed: Mapping[str, "_Placed"], logits: Float32Array) -> None:
        """Record the launch of a shape, and see that it gives `logits` again.

        A failure is counted, and the shape launched anew every time from then on.
        """
        try:
            # A context of its own: one that has been recorded must not be changed any more.
            context = self._make_context(key[0])
            # The first run of a shape allocates, which cannot be recorded.
            self._launch(context, placed)
            self._stream.synchronise()
            replay = self._stream.record(lambda: self._enqueue(context))
            self._stream.forget()
            replay()
            again = self._stream.download(logits.size)
            _check_same(again, logits.ravel())
        except (RuntimeError, EngineError) as error:
            self.recordings_failed += 1
            _log.warning("launch.not_recorded", error=type(error).__name__, pairs=key[1].pairs, tokens=key[1].tokens)
            return
        self._recorded[key] = _Recorded(replay, context)
        if len(self._recorded) > self._plan.recorded_shapes:
            oldest, _ = self._recorded.popitem(last=False)
            self._seen.pop(oldest, None)

    def _upload(self, batch: Batch, shape: Shape) -> dict[str, "_Placed"]:
        """Queue the copy of all inputs, as one; where each will be."""
        fed = inputs(batch, self._plan.layout, shape, self._plan.pad_id)
        values = [fed[name] for name in self._plan.input_names]
        starts = np.cumsum([0, *(_padded_size(each.size) for each in values)])
        whole = np.zeros(int(starts[-1]), dtype=np.int32)
        for start, each in zip(starts, values, strict=False):
            whole[start : start + each.size] = each.ravel()
        base = self._stream.upload(whole)
        return {
            name: _Placed(base + 4 * int(start), each.shape)
            for name, start, each in zip(self._plan.input_names, starts, values, strict=False)
        }

    def _launch(self, context: Any, placed: Mapping[str, "_Placed"]) -> None:  # noqa: ANN401  # not typed for us
        for name, each in placed.items():
            checked(context.set_input_shape(name, each.shape), f"the shape of {name}")
            checked(context.set_tensor_address(name, each.address), f"the address of {name}")
        checked(context.set_tensor_address(_LOGITS, self._stream.output_address), "the address of the logits")
        missing = context.infer_shapes()
        if missing:
            raise EngineError(f"tensorrt lacks the shapes of {', '.join(missing)}")
        self._enqueue(context)

    def _enqueue(self, context: Any) -> None:  # noqa: ANN401  # as above
        # What it complained of before has nothing to do with this.
        self._plan.logger.complaint()
        if not context.execute_async_v3(self._stream.handle):
            # Left unnoticed, the logits of an earlier batch would be taken for those of this one.
            said = self._plan.logger.complaint() or "it does not say why"
            raise RuntimeError(f"tensorrt did not run this batch: {said}")

    def _download(self, batch: Batch) -> Float32Array:
        pairs, classes = len(batch.lengths), self._plan.classes
        return self._stream.download(pairs * classes).reshape(pairs, classes)


@dataclass(frozen=True, slots=True)
class _Placed:
    """An input's place on the device."""

    address: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A recorded launch, and the context it was recorded from, which has to live as long."""

    replay: Callable[[], None]
    context: Any


def _check_same(found: Float32Array, expected: Float32Array) -> None:
    """Refuse a recording that gives other logits.

    Raises:
        RuntimeError: it does.
    """
    # Not `> bound`: a recording in which there is nothing leaves what is no number.
    if not np.abs(found - expected).max() <= _SAME:
        raise RuntimeError("a recorded launch gives other logits")


def _padded_size(count: int) -> int:
    return -(-count // _ALIGNED) * _ALIGNED


def _largest(plan: LanePlan) -> tuple[int, int]:
    """How many int32 the largest chunk's inputs are, and float32 its logits."""
    most_in = most_out = 0
    for profile in plan.profiles:
        each = inputs(_smallest_batch(), plan.layout, Shape(profile.pairs, profile.tokens), plan.pad_id)
        most_in = max(most_in, sum(_padded_size(each[name].size) for name in plan.input_names))
        most_out = max(most_out, profile.pairs * plan.classes)
    return most_in, most_out


def _smallest_batch() -> Batch:
    one: Int32Array = np.ones(1, dtype=np.int32)
    return Batch((), one, one, one)
