"""The production engine on NVIDIA GPUs: a compiled plan, two lanes, no pair padded further than it must be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.cuda import Device
from worker.engines.layout import checked_logits, filler_batch
from worker.engines.plans import StoredPlan
from worker.engines.profiles import Profile, cut
from worker.engines.trt_api import Api, checked, made_on_gpu, make_logger
from worker.engines.trt_lane import Lane, LanePlan
from worker.errors import EngineError
from worker.types import Batch, EngineInfo, Float32Array, ModelStamp, PairScores

LANES: Final = 2
"""While one computes, the other prepares and copies; more adds nothing to a GPU that is busy."""


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """How to run a plan."""

    lanes: int = LANES
    recorded_shapes: int = 16
    details: Mapping[str, str] = field(default_factory=dict)


class TensorRtEngine:
    """A plan, loaded; its kernels were chosen for this GPU when it was built."""

    def __init__(
        self, api: Api, device: Device, folder: ModelFolder, stored: StoredPlan, options: TensorRtOptions
    ) -> None:
        """Load a plan and give it its memory; takes seconds.

        Raises:
            EngineError: the library refuses the plan, or it is no longer the one that was found.
            EngineOutOfMemoryError: there is not enough memory.
        """
        self._device = device
        self._head = folder.head
        self._pad_id = folder.pad_token_id
        facts = stored.facts
        self.layout = str(facts["layout"])
        self.profiles = read_profiles(facts)
        # What the library makes points to it: it has to outlive all of it.
        self._logger = make_logger(api)
        with device.use():
            self._runtime: Any = made_on_gpu(api, "Runtime", self._logger)
            engine = self._runtime.deserialize_cuda_engine(stored.read())
            self._engine: Any = checked(engine, f"the plan in {stored.folder}")
        names = _checked_tensors(api, self._engine, len(self.profiles))
        plan = LanePlan(
            api=api,
            engine=self._engine,
            logger=self._logger,
            layout=self.layout,
            profiles=self.profiles,
            input_names=names,
            classes=folder.head.classes,
            pad_id=folder.pad_token_id,
            recorded_shapes=options.recorded_shapes,
        )
        self._next_lane = 0
        self._lanes = [Lane(plan, device, f"lane-{number}") for number in range(options.lanes)]
        precision = str(facts["precision"])
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, str(facts["model"]), "tensorrt", precision),
            head=folder.head,
            max_pair_tokens=self._longest(folder),
            token_budget=max(
                profile.tokens * (1 if self.layout == "packed" else profile.pairs) for profile in self.profiles
            )
            * max(1, options.lanes),
            details={"device": device.facts.name, "layout": self.layout, "plan": stored.folder.name, **options.details},
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    @property
    def recordings_failed(self) -> int:
        """How many shapes are launched anew every time because their launch could not be recorded."""
        return sum(lane.recordings_failed for lane in self._lanes)

    def warm_up(self) -> None:
        """Run the smallest and the largest shape of every profile in every lane."""
        for lane in self._open_lanes():
            for index, profile in enumerate(self.profiles):
                for batch in self._extremes(profile):
                    lane.submit(batch, index).result()

    @property
    def can_overlap(self) -> bool:
        """Always: what a lane is given waits for its turn there."""
        return True

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        """Give the lanes their chunks of `batch`; what is returned waits for them, as `score` does.

        Raises:
            EngineError: the engine is closed.
            ValueError: a pair is too long.
        """
        lanes = self._open_lanes()
        pairs = len(batch.lengths)
        if pairs == 0:
            return lambda: PairScores(np.empty((0, self._head.classes), dtype=np.float32))
        waiting = [
            (chunk.rows, lanes[number % len(lanes)].submit(batch.take(chunk.rows), chunk.profile))
            for number, chunk in enumerate(cut(batch, self.layout, self.profiles), start=self._next_lane)
        ]
        # A batch of one chunk goes to the lane that the last one did not use.
        self._next_lane = (self._next_lane + len(waiting)) % len(lanes)

        def scores() -> PairScores:
            logits = np.empty((pairs, self._head.classes), dtype=np.float32)
            failure: Exception | None = None
            for rows, future in waiting:
                try:
                    logits[list(rows)] = future.result()
                except Exception as error:  # noqa: BLE001  # every lane is to be done before anyone hears of it
                    failure = failure or error
            if failure is not None:
                raise failure
            return PairScores(checked_logits(logits, pairs, self._head))

        return scores

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks.

        Raises:
            EngineError: the engine is closed, or the library refuses a shape.
            EngineOutOfMemoryError: there is not enough memory.
            RuntimeError: a chunk did not run.
            ValueError: the model's logits are not finite, or a pair is too long.
        """
        return self.begin(batch)()

    def score_in(self, profile: int, batch: Batch) -> Float32Array:
        """Logits of `batch`, every chunk in the profile of that number: for the gate, which looks at each."""
        lane = self._open_lanes()[0]
        kind = self.profiles[profile]
        parts = [lane.submit(batch.take(chunk.rows), profile).result() for chunk in cut(batch, self.layout, (kind,))]
        rows = [row for chunk in cut(batch, self.layout, (kind,)) for row in chunk.rows]
        logits = np.empty((len(batch.lengths), self._head.classes), dtype=np.float32)
        logits[rows] = np.concatenate(parts)
        return checked_logits(logits, len(batch.lengths), self._head)

    def close(self) -> None:
        """Give back memory and threads. Not to be used after."""
        for lane in self._lanes:
            lane.close()
        self._lanes = []
        self._engine = None
        self._runtime = None

    def _open_lanes(self) -> list[Lane]:
        if not self._lanes:
            raise EngineError("the tensorrt engine is closed")
        return self._lanes

    def _extremes(self, profile: Profile) -> Sequence[Batch]:
        if self.layout == "packed":
            length = min(self._info.max_pair_tokens, max(1, profile.tokens // profile.pairs))
            return (filler_batch(1, 1, self._pad_id), filler_batch(profile.pairs, length, self._pad_id))
        return (filler_batch(1, 1, self._pad_id), filler_batch(profile.pairs, profile.tokens, self._pad_id))

    def _longest(self, folder: ModelFolder) -> int:
        return min(folder.max_pair_tokens, self.profiles[-1].tokens)


def read_profiles(facts: Mapping[str, Any]) -> tuple[Profile, ...]:
    """The profiles a plan was built with, smallest first."""
    return tuple(Profile(int(tokens), int(pairs)) for tokens, pairs in facts["profiles"])


def _checked_tensors(api: Api, engine: Any, profiles: int) -> tuple[str, ...]:  # noqa: ANN401  # not typed for us
    """The names of the plan's inputs.

    Raises:
        EngineError: the plan is not such as this version builds.
    """
    names: list[str] = []
    outputs: list[str] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == api.TensorIOMode.INPUT
        expected = api.DataType.INT32 if is_input else api.DataType.FLOAT
        if engine.get_tensor_dtype(name) != expected:
            raise EngineError(f"the plan's tensor {name} has another type than this version feeds; build it anew")
        (names if is_input else outputs).append(name)
    if outputs != ["logits"] or engine.num_optimization_profiles != profiles:
        raise EngineError("the plan has other outputs or profiles than its manifest says; build it anew")
    return tuple(names)
