"""What stands between the threads: the pair queue and the inbox of delivery."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from queue import Empty, SimpleQueue

from worker.pipeline.batching import Batcher, BatchLimit
from worker.pipeline.cutting import padded_tokens
from worker.pipeline.pacing import Pace
from worker.pipeline.pair_keys import PairHasher
from worker.pipeline.planning import PairPlan
from worker.types import Batch, PairScores, Record, Refusal, TokenizedPairs, TopicPartition

FULL_BATCHES = 2
"""How much must wait, in batches, before a busy engine gets the next one."""


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


Event = Admitted | NotAdmitted | TakenIn | BatchScored | BatchFailed | Flush | PartitionsGone | Finish


class Inbox:
    """The events of the delivery thread, in the order they were put. Thread-safe; bounded by what may be in flight."""

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


class PairQueue:
    """The batcher behind a lock: the poll thread adds, the engine thread pops, the delivery thread drops."""

    def __init__(
        self,
        batcher: Batcher,
        note_tokens: Callable[[int], None],
        pace: Pace | None = None,
        hasher: PairHasher | None = None,
    ) -> None:
        """`note_tokens` is told the tokens waiting after every change; `pace` says how large each batch may be.

        `hasher` gives pairs their keys: on the thread that adds them, of many messages at once.
        """
        self._batcher = batcher
        self._hasher = hasher
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
        keys: Iterable[tuple[bytes, ...]] = repeat(())
        if self._hasher is not None:
            keys = self._hasher.keys_of_each([pairs for _, pairs in messages])
        keyed = list(zip(messages, keys, strict=False))
        with self._condition:
            for (message, pairs), its_keys in keyed:
                self._batcher.add(message, pairs, its_keys)
            self._note_tokens(self._batcher.tokens)
            self._condition.notify()

    def pop(self, timeout_seconds: float) -> Batch | None:
        """The next batch, waiting for one at most for the timeout."""
        with self._condition:
            self._condition.wait_for(lambda: self._batcher.pairs > 0 or self._is_closed, timeout_seconds)
            batch = self._batcher.pop(self._limit())
            self._note_tokens(self._batcher.tokens)
            return batch

    def pop_ahead(self) -> Batch | None:
        """The next batch, for an engine that is still busy; None where too little waits to fill it well: more may come.

        Pairs of all lengths wait, and a batch holds those of one: twice its limit of tokens is enough for most.
        """
        with self._condition:
            limit = self._limit()
            batch = self._batcher.pop(limit) if self._batcher.tokens >= FULL_BATCHES * limit.tokens else None
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

    def _limit(self) -> BatchLimit:
        return self._batcher.limit if self._pace is None else self._pace.limit(self._batcher.tokens)
