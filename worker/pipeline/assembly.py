"""Step 8: scores back to their messages, and messages back into the order of their partitions."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

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
    pairs: int
    classes: int
    premise: Premise | None
    missing: int
    asked: int
    """Pairs that each row of tokens asks about."""
    scored_pairs: int = 0
    """One bit per pair."""
    logits: Float32Array | None = None
    """float32 [pairs, classes], once the first scores are there."""
    cached: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, plan: PairPlan, pairs: TokenizedPairs, classes: int) -> "_OpenStage":
        count = len(pairs.lengths) * pairs.hypotheses
        return cls(shortlisted(plan, pairs.shortlist), count, classes, pairs.premise, count, pairs.hypotheses)

    def note(self, message: int, first: int, rows: Float32Array, *, is_cached: bool) -> None:
        """The scores of consecutive pairs, from `first` on."""
        count = len(rows)
        bits = ((1 << count) - 1) << first
        if self.scored_pairs & bits:
            text = f"This is a bug. Pair {first} or one after it of message {message} was scored twice."
            raise RuntimeError(text)
        self.scored_pairs |= bits
        self.missing -= count
        if is_cached:
            self.cached.extend(range(first, first + count))
        if count == self.pairs:
            self.logits = rows
            return
        if self.logits is None:
            self.logits = np.empty((self.pairs, self.classes), np.float32)
        self.logits[first : first + count] = rows

    def scored(self) -> ScoredStage:
        if self.logits is None:
            raise RuntimeError("This is a bug. A stage without pairs was scored.")
        logits = self.logits.reshape(-1, len(self.plan.hypotheses), self.classes)
        return ScoredStage(self.plan, logits, frozenset(self.cached))


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
        self._lanes: dict[tuple[str, int], deque[_Slot]] = {}
        self._slots: dict[int, _Slot] = {}

    def __len__(self) -> int:
        """Messages in flight."""
        return sum(len(lane) for lane in self._lanes.values())

    def admit(self, number: int, record: Record, plan: PairPlan, pairs: TokenizedPairs) -> None:
        """Give `record` its place in its partition's lane; its pairs are to come."""
        slot = _Slot(record, number, pairs.text, open_stage=_OpenStage.of(plan, pairs, self._classes))
        self._slots[number] = slot
        self._lane(record).append(slot)

    def refuse(self, number: int, record: Record, refusal: Refusal) -> None:
        """Give `record` its place although it cannot be predicted: its dead letter keeps the order too."""
        self._lane(record).append(_Slot(record, number, refusal=refusal))

    def gather(self, batch: Batch, scores: PairScores, *, is_cached: bool = False) -> list[tuple[int, TokenizedPairs]]:
        """Note the scores of `batch`; gives the pairs that have to be scored next, by the number of their message.

        With `is_cached` they were known from before.

        Scores of messages that were dropped are ignored. That all are finite is `scoring`'s promise.
        """
        following: list[tuple[int, TokenizedPairs]] = []
        slots, logits = self._slots, scores.logits
        answers = None if batch.hypotheses is None else [0, *batch.answers().tolist()]
        for message, first, start, end in runs(batch.refs):
            slot = slots.get(message)
            if slot is None or slot.open_stage is None:
                continue
            rows = logits[start:end] if answers is None else logits[answers[start] : answers[end]]
            slot.open_stage.note(message, first * slot.open_stage.asked, rows, is_cached=is_cached)
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

    def _lane(self, record: Record) -> deque[_Slot]:
        # A plain tuple is as good a key as a TopicPartition, and made in a fraction of the time.
        lane = self._lanes.get((record.topic, record.partition))
        if lane is None:
            lane = self._lanes[record.source] = deque()
        return lane

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


def runs(refs: Sequence[PairRef]) -> Iterator[tuple[int, int, int, int]]:
    """Rows of a batch that are consecutive pairs of one message: the message, its first pair, first row, end row."""
    start, message, first, following = 0, -1, 0, -1
    for row, (of, pair) in enumerate(refs):
        if of != message or pair != following:
            if row:
                yield message, first, start, row
            start, message, first = row, of, pair
        following = pair + 1
    if refs:
        yield message, first, start, len(refs)
