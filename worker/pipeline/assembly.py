"""Step 8: scores back to their messages, and messages back into the order of their partitions."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from worker.errors import ErrorCode, Stage
from worker.pipeline.planning import PairPlan
from worker.types import (
    Batch,
    Float32Array,
    PairRef,
    PairScores,
    Record,
    Refusal,
    TokenizedPairs,
    TokenSpan,
    TopicPartition,
)


@dataclass(frozen=True, slots=True)
class Scored:
    """A message whose every pair has been scored."""

    record: Record
    plan: PairPlan
    text: TokenSpan
    logits: Float32Array
    """float32 [pairs, classes], rows in the order of the plan's hypotheses."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be predicted."""

    record: Record
    refusal: Refusal


@dataclass(slots=True)
class _Slot:
    record: Record
    number: int
    plan: PairPlan | None = None
    text: TokenSpan = TokenSpan(0, 0)  # noqa: RUF009  a NamedTuple is immutable
    logits: Float32Array | None = None
    missing: set[int] = field(default_factory=set)
    refusal: Refusal | None = None

    @property
    def is_complete(self) -> bool:
        return self.refusal is not None or not self.missing

    def outcome(self) -> Scored | Refused:
        if self.refusal is not None:
            return Refused(self.record, self.refusal)
        if self.plan is None or self.logits is None:
            message = f"This is a bug. Message {self.number} was released without scores."
            raise RuntimeError(message)
        return Scored(self.record, self.plan, self.text, self.logits)


class Assembly:
    """Every message in flight, one lane per input partition in the order of delivery.

    Not thread-safe: the delivery thread owns it.
    """

    def __init__(self, classes: int) -> None:
        """Logits have `classes` columns."""
        self._classes = classes
        self._lanes: dict[TopicPartition, deque[_Slot]] = {}
        self._slots: dict[int, _Slot] = {}

    def __len__(self) -> int:
        """Messages in flight."""
        return sum(len(lane) for lane in self._lanes.values())

    def admit(self, number: int, record: Record, plan: PairPlan, pairs: TokenizedPairs) -> None:
        """Give `record` its place in its partition's lane; its pairs are to come."""
        count = len(plan.hypotheses)
        logits = np.empty((count, self._classes), np.float32)
        slot = _Slot(record, number, plan, pairs.text, logits, set(range(count)))
        self._slots[number] = slot
        self._lanes.setdefault(record.source, deque()).append(slot)

    def refuse(self, number: int, record: Record, refusal: Refusal) -> None:
        """Give `record` its place although it cannot be predicted: its dead letter keeps the order too."""
        slot = _Slot(record, number, refusal=refusal)
        self._lanes.setdefault(record.source, deque()).append(slot)

    def gather(self, batch: Batch, scores: PairScores) -> None:
        """Note the scores of `batch`. A message with a score that is no number is refused.

        Scores of messages that were dropped meanwhile are ignored.
        """
        finite = np.asarray(np.isfinite(scores.logits).all(axis=1))
        for row, ref in enumerate(batch.refs):
            slot = self._slots.get(ref.message)
            if slot is None or slot.logits is None:
                continue
            if not finite[row]:
                slot.refusal = Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, "the engine returned no number")
                continue
            self._note(slot, ref, scores.logits[row])

    def fail(self, batch: Batch, refusal: Refusal) -> None:
        """Refuse every message of `batch`."""
        for ref in batch.refs:
            slot = self._slots.get(ref.message)
            if slot is not None:
                slot.refusal = refusal

    def release(self) -> list[Scored | Refused]:
        """The messages that are complete and have no incomplete one before them in their partition."""
        released: list[Scored | Refused] = []
        for source, lane in list(self._lanes.items()):
            while lane and lane[0].is_complete:
                slot = lane.popleft()
                self._slots.pop(slot.number, None)
                released.append(slot.outcome())
            if not lane:
                del self._lanes[source]
        return released

    def drop(self, sources: set[TopicPartition]) -> dict[int, Record]:
        """Forget all messages of these partitions; returns them by number."""
        dropped = {slot.number: slot.record for source in sources for slot in self._lanes.pop(source, ())}
        for number in dropped:
            self._slots.pop(number, None)
        return dropped

    @staticmethod
    def _note(slot: _Slot, ref: PairRef, row: Float32Array) -> None:
        if ref.pair not in slot.missing or slot.logits is None:
            message = f"This is a bug. Pair {ref.pair} of message {ref.message} was scored twice."
            raise RuntimeError(message)
        slot.logits[ref.pair] = row
        slot.missing.discard(ref.pair)
