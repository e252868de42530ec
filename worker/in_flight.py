"""The bound on what has been admitted and is not yet published."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import cast

from worker.types import Record, TopicPartition

LEAST_ROOM_RECORDS = 16
"""Records that may be admitted wherever there is any room: fewer at a time would be read one by one."""
ADMISSION_SHARE = 1 / 8
"""Of the bound on tokens, what may be admitted at once where there is any room: what the bound may be exceeded by.
It is judged by bytes, of which a token has four or so; less at a time would be read one by one."""
WORTH_WHILE_SHARE = 3 / 4
"""Of every bound: while more is used, more room is waited for. Many records are taken in for little more than a few."""
UNKNOWN_COST_SHARE = 1 / LEAST_ROOM_RECORDS
"""What a record is taken to cost of the bound on tokens before the first one has been seen."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight before partitions are paused."""

    records: int
    value_bytes: int
    queued_tokens: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the next records may bring that are admitted together; the first of them may always bring more."""

    tokens: int
    value_bytes: int


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
        self._is_waited_for = self._had_room = False
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
            self._tell_who_waits()

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
            self._tell_who_waits()

    def note_queued_tokens(self, tokens: int) -> None:
        """Say how many tokens wait for the engine."""
        with self._condition:
            self._queued_tokens = tokens
            self._tell_who_waits()

    def room(self) -> int:
        """How many records may be admitted now."""
        with self._condition:
            return self._room(1.0)

    def allowance(self) -> Allowance:
        """What the next records may bring."""
        bounds = self._bounds
        with self._condition:
            tokens = max(bounds.queued_tokens - self._queued_tokens, int(bounds.queued_tokens * ADMISSION_SHARE))
            held_bytes = self._value_bytes - self._parked_bytes
        return Allowance(tokens, bounds.value_bytes - held_bytes)

    def wait_for_room(self, timeout_seconds: float) -> bool:
        """Block while more than three quarters of a bound are used, at most for the timeout.

        False when there was no room at all, not even for a moment.
        """
        with self._condition:
            self._is_waited_for, self._had_room = True, self._room(1.0) > 0
            self._condition.wait_for(lambda: self._room(WORTH_WHILE_SHARE) > 0, timeout_seconds)
            self._is_waited_for = False
            return self._had_room or self._room(1.0) > 0

    def is_low(self) -> bool:
        """Whether paused partitions may resume: at most half of every bound is used."""
        with self._condition:
            return self._room(0.5) > 0

    def _tell_who_waits(self) -> None:
        if self._is_waited_for:
            self._had_room = self._had_room or self._room(1.0) > 0
            if self._room(WORTH_WHILE_SHARE) > 0:
                self._condition.notify_all()

    def _room(self, share: float) -> int:
        bounds, held_bytes = self._bounds, self._value_bytes - self._parked_bytes
        if held_bytes >= bounds.value_bytes * share or self._queued_tokens >= bounds.queued_tokens * share:
            return 0
        held = self._count - self._parked_count
        # A guess by the last ones, to save taking what would be given back: what fits is judged by `allowance`.
        by_tokens = int((bounds.queued_tokens * share - self._queued_tokens) / self._tokens_per_record)
        return max(0, min(ceil(bounds.records * share) - held, max(LEAST_ROOM_RECORDS, by_tokens)))


def _by_partition(records: Sequence[Record]) -> Counter[TopicPartition]:
    # Plain tuples are equal to TopicPartitions, and made in a fraction of the time.
    return cast("Counter[TopicPartition]", Counter([(record.topic, record.partition) for record in records]))


def _value_bytes(records: Sequence[Record]) -> int:
    return sum([len(record.value) for record in records if record.value is not None])
