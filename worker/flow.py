"""What stands between the threads: the pair queue, the inbox of delivery, and the bound on what is in flight."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import cast

from worker.pipeline.batching import Batcher
from worker.pipeline.cutting import padded_tokens
from worker.pipeline.pacing import Pace
from worker.pipeline.planning import PairPlan
from worker.types import Batch, PairScores, Record, Refusal, TokenizedPairs, TopicPartition


@dataclass(frozen=True, slots=True)
class Admitted:
    """A record took its place in line; its pairs are queued."""

    number: int
    record: Record
    plan: PairPlan
    pairs: TokenizedPairs


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """A record took its place in line as a dead letter."""

    number: int
    record: Record
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class TakenIn:
    """Records that took their places in line together."""

    places: Sequence[Admitted | NotAdmitted]


@dataclass(frozen=True, slots=True)
class BatchScored:
    """The engine finished a batch."""

    batch: Batch
    scores: PairScores
    is_cached: bool = False
    """Whether the scores were known from before."""


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """The engine cannot score a batch; it holds pairs of one message only."""

    batch: Batch
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Flush:
    """Publish what is finished now, then set `done`."""

    done: threading.Event


@dataclass(frozen=True, slots=True)
class PartitionsGone:
    """Forget what is in flight of these partitions."""

    partitions: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing more will come: publish what is finished and end."""


LEAST_ROOM_RECORDS = 16
"""Records that may be admitted wherever there is any room: fewer at a time would be read one by one."""
UNKNOWN_COST_SHARE = 1 / LEAST_ROOM_RECORDS
"""What a record is taken to cost of the bound on tokens before the first one has been seen."""

Event = Admitted | NotAdmitted | TakenIn | BatchScored | BatchFailed | Flush | PartitionsGone | Finish


class Inbox:
    """The events of the delivery thread, in the order they were put. Thread-safe; bounded by `InFlight`."""

    def __init__(self) -> None:
        """Start empty."""
        self._events: SimpleQueue[Event] = SimpleQueue()

    def put(self, event: Event) -> None:
        """Add an event; never blocks."""
        self._events.put(event)

    def take(self, timeout_seconds: float) -> Event | None:
        """The next event; None when none came within the timeout (0: at once)."""
        try:
            return self._events.get(timeout=timeout_seconds) if timeout_seconds > 0 else self._events.get_nowait()
        except Empty:
            return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight before partitions are paused."""

    records: int
    value_bytes: int
    queued_tokens: int


class InFlight:
    """What has been admitted and is neither published nor dropped, and the tokens waiting for the engine.

    Thread-safe. The poll thread admits and waits for room; the engine and delivery threads make room.
    """

    def __init__(self, bounds: Bounds) -> None:
        """Start empty."""
        self._bounds = bounds
        self._condition = threading.Condition()
        self._records: Counter[TopicPartition] = Counter()
        self._count = 0
        self._settled = 0
        self._value_bytes = 0
        self._parked_count = 0
        self._parked_bytes = 0
        self._queued_tokens = 0
        self._tokens_per_record = bounds.queued_tokens * UNKNOWN_COST_SHARE

    @property
    def records(self) -> int:
        """Records in flight."""
        return self._count

    @property
    def settled(self) -> int:
        """Records that have been in flight and are no longer."""
        return self._settled

    @property
    def is_idle(self) -> bool:
        """Whether all that is in flight is parked."""
        with self._condition:
            return self._count <= self._parked_count

    def of(self, partition: TopicPartition) -> int:
        """Records in flight from `partition`."""
        with self._condition:
            return self._records[partition]

    def admit(self, *records: Record) -> None:
        """Count `records` in."""
        counted, value_bytes = _by_partition(records), _value_bytes(records)
        with self._condition:
            self._records.update(counted)
            self._count += len(records)
            self._value_bytes += value_bytes

    def settle(self, records: list[Record]) -> None:
        """Count `records` out: published, or no longer ours."""
        counted, value_bytes = _by_partition(records), _value_bytes(records)
        with self._condition:
            self._records -= counted
            self._count -= len(records)
            self._settled += len(records)
            self._value_bytes -= value_bytes
            self._condition.notify_all()

    def note_cost(self, records: int, tokens: int) -> None:
        """Say what records that were admitted together cost: how many more there is room for is judged by the last."""
        if records:
            with self._condition:
                self._tokens_per_record = max(1.0, tokens / records)

    def note_parked(self, records: Sequence[Record]) -> None:
        """Say which records in flight wait for a topic that is missing: they take no room from other inputs.

        Their own input is closed meanwhile, so that they are never more than one bound's worth for each input.
        """
        with self._condition:
            self._parked_count = len(records)
            self._parked_bytes = _value_bytes(records)
            self._condition.notify_all()

    def note_queued_tokens(self, tokens: int) -> None:
        """Say how many tokens wait for the engine."""
        with self._condition:
            self._queued_tokens = tokens
            self._condition.notify_all()

    def room(self) -> int:
        """How many records may be admitted now."""
        with self._condition:
            return self._room(1.0)

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Block until there is room, at most for the timeout; false when there is none."""
        with self._condition:
            return self._condition.wait_for(lambda: self._room(1.0) > 0, timeout_seconds)

    def is_low(self) -> bool:
        """Whether paused partitions may resume: at most half of every bound is used."""
        with self._condition:
            return self._room(0.5) > 0

    def _room(self, share: float) -> int:
        bounds, held_bytes = self._bounds, self._value_bytes - self._parked_bytes
        if held_bytes >= bounds.value_bytes * share or self._queued_tokens >= bounds.queued_tokens * share:
            return 0
        held = self._count - self._parked_count
        # A record with a thousand labels costs what a thousand records do: tokens are pairs already made, in memory.
        by_tokens = int((bounds.queued_tokens * share - self._queued_tokens) / self._tokens_per_record)
        return max(0, min(max(1, int(bounds.records * share)) - held, max(LEAST_ROOM_RECORDS, by_tokens)))


def _by_partition(records: Sequence[Record]) -> Counter[TopicPartition]:
    # Plain tuples are equal to TopicPartitions, and made in a fraction of the time.
    return cast("Counter[TopicPartition]", Counter([(record.topic, record.partition) for record in records]))


def _value_bytes(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records if record.value is not None])


class PairQueue:
    """The batcher behind a lock: the poll thread adds, the engine thread pops, the delivery thread drops."""

    def __init__(self, batcher: Batcher, note_tokens: Callable[[int], None], pace: Pace | None = None) -> None:
        """`note_tokens` is told the tokens waiting after every change; `pace` says how large each batch may be."""
        self._batcher = batcher
        self._pace = pace
        self._note_tokens = note_tokens
        self._condition = threading.Condition()
        self._is_closed = False

    @property
    def pairs(self) -> int:
        """Pairs waiting."""
        return self._batcher.pairs

    @property
    def tokens(self) -> int:
        """Their tokens."""
        return self._batcher.tokens

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def add(self, message: int, pairs: TokenizedPairs) -> None:
        """Queue every pair of `message`."""
        self.add_all([(message, pairs)])

    def add_all(self, messages: Sequence[tuple[int, TokenizedPairs]]) -> None:
        """Queue every pair of many messages at once."""
        with self._condition:
            for message, pairs in messages:
                self._batcher.add(message, pairs)
            self._note_tokens(self._batcher.tokens)
            self._condition.notify()

    def pop(self, timeout_seconds: float) -> Batch | None:
        """The next batch, waiting for one at most for the timeout."""
        with self._condition:
            self._condition.wait_for(lambda: self._batcher.pairs > 0 or self._is_closed, timeout_seconds)
            batch = self._batcher.pop(None if self._pace is None else self._pace.limit(self._batcher.tokens))
            self._note_tokens(self._batcher.tokens)
            return batch

    def note_scored(self, batch: Batch, seconds: float) -> None:
        """Say how long the engine took for `batch`."""
        if self._pace is not None:
            with self._condition:
                self._pace.observe(padded_tokens(batch), seconds)

    def drop(self, messages: set[int]) -> None:
        """Forget the waiting pairs of `messages`."""
        with self._condition:
            self._batcher.drop(messages)
            self._note_tokens(self._batcher.tokens)

    def close(self) -> None:
        """Wake who waits; what is queued can still be popped."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()


class OfferedPositions:
    """Positions that delivery has earned and the poll thread is to commit, without transactions. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._positions: dict[TopicPartition, int] = {}

    def offer(self, positions: Mapping[TopicPartition, int]) -> None:
        """Have `positions` committed; later ones replace earlier ones."""
        with self._lock:
            self._positions.update(positions)

    def take(self) -> dict[TopicPartition, int]:
        """What was offered since last time."""
        with self._lock:
            positions, self._positions = self._positions, {}
            return positions
