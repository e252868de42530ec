"""The poll thread's turns in a world without a broker: a slow engine, a flood, and a topic that comes later."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.strategies import record
from worker.backlog import Backlog
from worker.clock import ManualClock
from worker.in_flight import WORTH_WHILE_SHARE, Bounds, InFlight
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.lifecycle import Lifecycle
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED
from worker.processor import ProcessorParts, StreamProcessor
from worker.types import Record, TopicPartition
from worker.watchdog import STALL_SECONDS

FLOOD, TRICKLE = TopicPartition("flood", 0), TopicPartition("trickle", 0)
RECORDS_PER_SECOND = 100
CHUNK = 5000
"""Records of one answer to a fetch: what lies in the client's queue before whatever was fetched later."""


class SlowEngine(InFlight):
    """What is in flight, and an engine that works on it while the poll thread waits."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(Bounds(records=200, value_bytes=10**9, queued_tokens=10**9))
        self.clock, self.line, self.done = clock, deque[Record](), Counter[TopicPartition]()

    def admit(self, *records: Record) -> None:
        super().admit(*records)
        self.line.extend(records)

    def wait_for_room(self, timeout_seconds: float) -> bool:
        while self._room(WORTH_WHILE_SHARE) == 0 and timeout_seconds > 0:
            self.work(0.05)
            timeout_seconds -= 0.05
        return self.room() > 0

    def work(self, seconds: float) -> None:
        self.clock.advance(seconds)
        count = min(len(self.line), round(seconds * RECORDS_PER_SECOND))
        finished = [self.line.popleft() for _ in range(count)]
        self.done += Counter(each.source for each in finished)
        self.settle(finished)


class Client:
    """A consumer whose queue is one line for all partitions; a pause throws away what it holds of a partition."""

    def __init__(self, engine: SlowEngine) -> None:
        self.engine = engine
        self.ends = {FLOOD: 0, TRICKLE: 0}
        self.positions = dict(self.ends)
        self.fetched = dict(self.ends)
        self.queue: deque[Record] = deque()
        self.paused: frozenset[TopicPartition] = frozenset()
        self.pauses = Counter[TopicPartition]()
        self.without_schema: set[TopicPartition] = set()
        self.listener: Any = None

    def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        self.engine.work(timeout_seconds)
        for partition, end in self.ends.items():
            if partition not in self.paused and len(self.queue) < CHUNK:
                start = self.fetched[partition]
                self.fetched[partition] = min(end, start + CHUNK)
                self.queue += [record(partition.topic, offset=n) for n in range(start, self.fetched[partition])]
        polled = [self.queue.popleft() for _ in range(min(max_records, len(self.queue)))]
        for each in polled:
            self.positions[each.source] = each.offset + 1
        return polled

    def apply_holds(self) -> int:
        held = frozenset(p for p in self.ends if p in self.without_schema or self.listener.is_held(p))
        self.pauses += Counter(held - self.paused)
        if held - self.paused:
            self.queue = deque(each for each in self.queue if each.source not in held)
            self.fetched |= {partition: self.positions[partition] for partition in held}
        self.paused = held
        return len(held)

    def unread(self, _ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {partition: end - self.positions[partition] for partition, end in self.ends.items()}

    lag = unread

    def awaits_schema(self, partition: TopicPartition) -> bool:
        return partition in self.without_schema

    def commit(self, _positions: Mapping[TopicPartition, int], *, wait: bool) -> None: ...


class World:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = SlowEngine(self.clock)
        self.client = Client(self.engine)
        self.backlog = Backlog(self.clock)
        self.favoured: frozenset[str] = frozenset()
        parts = SimpleNamespace(
            consumer=self.client,
            intake=SimpleNamespace(admit=self._admit),
            backlog=self.backlog,
            ends=dict,
            scorer=None,
            delivery=SimpleNamespace(run=None, delivered=0),
            pairs=SimpleNamespace(pairs=0, tokens=0),
            in_flight=self.engine,
            offered=OfferedPositions(Assignment()),
            is_open=lambda _partition: True,
            is_ours=lambda _record: True,
            metrics=Metrics(),
            heartbeats=Heartbeats(self.clock),
            readiness=Readiness(),
            clock=self.clock,
            tracing=UNTRACED,
        )
        self.readiness = parts.readiness
        self.processor = StreamProcessor(cast("ProcessorParts", parts), Lifecycle(), drain_seconds=1)
        self.client.listener = self.processor

    def _admit(self, records: Sequence[Record]) -> Sequence[Record]:
        self.engine.note_cost(len(records), 10 * len(records))
        for each in records:
            self.engine.admit(each)
        return []

    def seconds_until_done(self, partition: TopicPartition, count: int) -> float:
        started = self.clock.monotonic()
        while self.engine.done[partition] < count:
            assert self.clock.monotonic() - started < 1000, "starves"
            self.processor._step()
            self.favoured |= self.backlog.favoured
        return self.clock.monotonic() - started


def flooded() -> World:
    """Ten seconds into a flood of twenty thousand records, fifty of another topic are written."""
    world = World()
    world.client.ends[FLOOD] = 20_000
    world.seconds_until_done(FLOOD, 1000)
    world.client.ends[TRICKLE] = 50
    return world


def test_a_topic_that_comes_during_a_flood_of_another_is_done_within_seconds() -> None:
    """At 100 a second: 2 s in flight before it, 1 s until it is favoured, 1 s of its own and one of the flood's."""
    world = flooded()
    assert world.seconds_until_done(TRICKLE, 50) < 6
    assert 20_000 - world.client.positions[FLOOD] > 15_000


def test_without_favour_it_would_wait_for_what_was_fetched_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test."""
    world = flooded()
    monkeypatch.setattr(world.backlog, "look", lambda _unread: None)
    assert world.seconds_until_done(TRICKLE, 50) > 20


def test_two_floods_share_alike_and_are_paused_seldom() -> None:
    """A pause throws away what was fetched: one in two seconds is the most that fairness may cost."""
    world = World()
    world.client.ends |= {FLOOD: 20_000, TRICKLE: 20_000}
    seconds = world.seconds_until_done(FLOOD, 3000)
    shares = [world.engine.done[partition] for partition in (FLOOD, TRICKLE)]
    assert max(shares) < 1.3 * min(shares)
    assert world.client.pauses.total() < seconds / 2


def test_a_topic_whose_schema_cannot_be_had_is_not_favoured() -> None:
    """Reading the others less would not help it."""
    world = flooded()
    world.client.without_schema.add(TRICKLE)
    world.seconds_until_done(FLOOD, 3000)
    assert TRICKLE in world.client.paused
    assert not world.favoured


@pytest.mark.parametrize("is_with_schema", [True, False])
def test_only_what_could_move_and_does_not_counts_as_standing_still(*, is_with_schema: bool) -> None:
    """What the schema registry keeps back is told as that."""
    world = World()
    world.client.ends[TRICKLE] = 50
    world.client.without_schema |= set() if is_with_schema else {TRICKLE}
    for _ in range(3):
        world.processor._observe()
        world.clock.advance(STALL_SECONDS)
    reasons = world.readiness.reasons()
    assert is_with_schema == any("nothing has moved" in reason for reason in reasons)
    world.backlog.add([record(TRICKLE.topic)])  # read before, and not taken in: that is nobody else's fault
    for _ in range(3):
        world.processor._observe()
        world.clock.advance(STALL_SECONDS)
    assert any("nothing has moved" in reason for reason in world.readiness.reasons())
