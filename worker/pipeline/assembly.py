"""Step 8: scores back to their messages, and messages back into the order of their partitions."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from worker.errors import MessageError
from worker.pipeline.evidence import ScoredStage
from worker.pipeline.planning import PairPlan, shortlisted
from worker.pipeline.stages import FollowUp, nothing_follows
from worker.types import (
    Batch,
    Float32Array,
    PairRef,
    PairScores,
    Premise,
    Record,
    Refusal,
    TokenizedPairs,
    TokenSpan,
    TopicPartition,
)


@dataclass(frozen=True, slots=True)
class Scored:
    """A message of which every pair that the decision needs has been scored."""

    record: Record
    stages: tuple[ScoredStage, ...]
    """At least one, in the order in which they were scored."""
    text: TokenSpan

    @property
    def plan(self) -> PairPlan:
        """That of the first stage: request and schema are those of all."""
        return self.stages[0].plan


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be predicted."""

    record: Record
    refusal: Refusal


@dataclass(slots=True)
class _OpenStage:
    """The stage of a message that is being scored."""

    plan: PairPlan
    logits: Float32Array  # [pairs, classes]
    is_scored: npt.NDArray[np.bool_]  # [pairs]
    missing: int
    premise: Premise | None

    @classmethod
    def of(cls, plan: PairPlan, pairs: TokenizedPairs, classes: int) -> "_OpenStage":
        count = len(pairs.lengths)
        return cls(
            shortlisted(plan, pairs.shortlist),
            np.empty((count, classes), np.float32),
            np.zeros(count, np.bool_),
            count,
            pairs.premise,
        )

    def note(self, ref: PairRef, row: Float32Array) -> None:
        if self.is_scored[ref.pair]:
            message = f"This is a bug. Pair {ref.pair} of message {ref.message} was scored twice."
            raise RuntimeError(message)
        self.logits[ref.pair] = row
        self.is_scored[ref.pair] = True
        self.missing -= 1

    def scored(self) -> ScoredStage:
        return ScoredStage(self.plan, self.logits.reshape(-1, len(self.plan.hypotheses), self.logits.shape[1]))


@dataclass(slots=True)
class _Slot:
    record: Record
    number: int
    text: TokenSpan = TokenSpan(0, 0)  # noqa: RUF009  a NamedTuple is immutable
    stages: list[ScoredStage] = field(default_factory=list)
    open_stage: _OpenStage | None = None
    refusal: Refusal | None = None

    @property
    def is_complete(self) -> bool:
        return self.refusal is not None or self.open_stage is None

    def outcome(self) -> Scored | Refused:
        if self.refusal is not None:
            return Refused(self.record, self.refusal)
        return Scored(self.record, tuple(self.stages), self.text)


class Assembly:
    """Every message in flight, one lane per input partition in the order of delivery.

    Not thread-safe: the delivery thread owns it.
    """

    def __init__(self, classes: int, follow_up: FollowUp = nothing_follows) -> None:
        """Logits have `classes` columns; `follow_up` says which pairs a message needs after those of one stage."""
        self._classes = classes
        self._follow_up = follow_up
        self._lanes: dict[TopicPartition, deque[_Slot]] = {}
        self._slots: dict[int, _Slot] = {}

    def __len__(self) -> int:
        """Messages in flight."""
        return sum(len(lane) for lane in self._lanes.values())

    def admit(self, number: int, record: Record, plan: PairPlan, pairs: TokenizedPairs) -> None:
        """Give `record` its place in its partition's lane; its pairs are to come."""
        slot = _Slot(record, number, pairs.text, open_stage=_OpenStage.of(plan, pairs, self._classes))
        self._slots[number] = slot
        self._lanes.setdefault(record.source, deque()).append(slot)

    def refuse(self, number: int, record: Record, refusal: Refusal) -> None:
        """Give `record` its place although it cannot be predicted: its dead letter keeps the order too."""
        slot = _Slot(record, number, refusal=refusal)
        self._lanes.setdefault(record.source, deque()).append(slot)

    def gather(self, batch: Batch, scores: PairScores) -> list[tuple[int, TokenizedPairs]]:
        """Note the scores of `batch`; gives the pairs that have to be scored next, by the number of their message.

        Scores of messages that were dropped are ignored. That all are finite is `scoring`'s promise.
        """
        following: list[tuple[int, TokenizedPairs]] = []
        for row, ref in enumerate(batch.refs):
            slot = self._slots.get(ref.message)
            if slot is None or slot.open_stage is None:
                continue
            slot.open_stage.note(ref, scores.logits[row])
            if slot.open_stage.missing == 0 and slot.refusal is None:
                following += [(slot.number, pairs) for pairs in self._advance(slot, slot.open_stage)]
        return following

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

    def _advance(self, slot: _Slot, done: _OpenStage) -> Sequence[TokenizedPairs]:
        """Close a stage and open the next one; the pairs of that one, if there is one."""
        slot.stages.append(done.scored())
        slot.open_stage = None
        if done.premise is None:
            return ()
        try:
            following = self._follow_up(slot.stages, done.premise)
        except MessageError as error:
            slot.refusal = Refusal.of(error)
            return ()
        if following is None:
            return ()
        slot.open_stage = _OpenStage.of(following.plan, following.pairs, self._classes)
        slot.text = min(slot.text, following.pairs.text)  # told is what the pair saw that saw least of the text
        return (following.pairs,)
