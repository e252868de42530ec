"""Ownership, order and transactions together, as a state machine against a broker that fails as it is told.

The delivery thread's own loop and the publisher that ships are driven, event by event. Any interleaving of deliver,
finish, fail, revoke, assign, abort, crash and publish shows a subscriber every offset once, in order, and as far as the
committed position of the group: no further and no less. In the end nothing is in flight.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from confluent_kafka import KafkaError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.scripted_kafka import (
    FENCED,
    MEMBERSHIP,
    STALE,
    TIMED_OUT,
    KnownTopics,
    ScriptedBroker,
    Step,
    Waits,
    kafka_error,
    publisher_parts,
)
from tests.support.stepped_delivery import SteppedInbox, Watched, stepped_delivery
from tests.support.strategies import pairs_of
from tests.support.strategies import record as record_at
from worker.clock import ManualClock
from worker.errors import ErrorCode, FatalError, Stage
from worker.flow import Admitted, BatchFailed, BatchScored, Event, Flush, NotAdmitted, PartitionsGone
from worker.kafka.bounded_calls import BoundedCalls
from worker.kafka.offsets import Assignment
from worker.kafka.producer import TransactionalPublisher
from worker.labels.schema import parse_schema
from worker.pipeline.planning import plan_pairs
from worker.types import Batch, OutboundRecord, PairRef, PairScores, Record, Refusal, Request, TopicPartition

PARTITIONS = (TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0))
OUTPUTS = {"a": "a.out", "b": "b.out"}
LETTERS = "dlq"
LABELS = parse_schema({"name": "a", "version": 1, "labels": [{"name": n} for n in "ab"]}, "test")
PAIRS = 2
REFUSAL = Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, "the engine fails")
LATE_SECONDS = 11.0
"""Longer than the transaction timeout: what is retriable is no longer repeated."""

anywhere = st.sampled_from(PARTITIONS)
few = st.integers(1, 3)


class CrashError(Exception):
    """The process ends at this very call."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What one call of the client meets."""

    call: str
    error: KafkaError | None = None
    is_done: bool = False
    meanwhile: str = "nothing"
    """`late`, `crash`, or what becomes of `partition`: `revoked`, `returned` or `taken`."""
    partition: TopicPartition = PARTITIONS[0]


def _faults() -> st.SearchStrategy[Fault]:
    """What a broker can do: it never says that a transaction has to be aborted after it has committed it."""
    moves = st.sampled_from(["revoked", "returned", "taken"])
    events = st.sampled_from(["nothing", "late", "crash", "revoked"])
    errors = st.sampled_from([STALE, TIMED_OUT, FENCED])
    unknown = st.sampled_from([TIMED_OUT, FENCED])
    early, late = st.sampled_from(["begin", "produce"]), st.sampled_from(["send_offsets", "commit"])
    return st.one_of(
        # From the offsets on the broker lets nobody read a position before the transaction has ended.
        st.builds(Fault, early, meanwhile=moves, partition=anywhere),
        st.builds(Fault, late, meanwhile=events, partition=anywhere),
        st.builds(Fault, st.one_of(early, late), errors, meanwhile=events, partition=anywhere),
        st.builds(Fault, st.just("commit"), unknown, st.just(True), events, anywhere),
        st.builds(
            Fault, st.sampled_from(["abort", "init", "committed"]), unknown, meanwhile=events, partition=anywhere
        ),
    )


class ExactlyOnceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.broker = ScriptedBroker()
        self.broker.refuses = _too_large
        self.topics = KnownTopics({*OUTPUTS.values(), LETTERS})
        self.clock = ManualClock()
        self.fed = dict.fromkeys(PARTITIONS, 0)
        self.numbers = 0
        self._start()

    def _start(self) -> None:
        """A new process, which knows nothing of a former one."""
        self.assignment = Assignment()
        self.assignment.note_membership(MEMBERSHIP)
        self.inbox = SteppedInbox()
        self.open_pairs: list[PairRef] = []
        self.positions: dict[TopicPartition, int] = {}
        self.calls = BoundedCalls()
        parts = publisher_parts(self.broker, self.assignment, self.topics, self.clock)
        self.publisher = TransactionalPublisher(parts, Waits(self.clock), lambda _reason: None, self.calls)
        self.publisher.start()
        watched = Watched(self.publisher, self.broker, self.assignment)
        self.delivery = stepped_delivery(self.inbox, watched, self.clock, _output)
        self.assignment.assign(PARTITIONS)

    # What the group does.

    @rule(partition=anywhere)
    def assign(self, partition: TopicPartition) -> None:
        if self.assignment.epoch(partition) is None:
            self.assignment.assign([partition])

    @rule(partition=anywhere, taken=st.integers(0, 3), is_back=st.booleans())
    def revoke(self, partition: TopicPartition, taken: int, is_back: bool) -> None:
        """It goes, another worker publishes some of it, and perhaps it comes back: all before delivery hears of it."""
        if self.assignment.epoch(partition) is not None:
            self.assignment.revoke([partition])
            self.positions.pop(partition, None)
            self._tell(PartitionsGone(frozenset({partition})))
        self._another_worker_publishes(partition, taken)
        if is_back:
            self.assign(partition)

    # What the poll thread does.

    @rule(partition=anywhere, count=few, is_broken=st.booleans(), is_finished=st.booleans())
    def deliver(self, partition: TopicPartition, count: int, is_broken: bool, is_finished: bool) -> None:
        epoch = self.assignment.epoch(partition)
        if epoch is None:
            return
        first = self.positions.get(partition, self.broker.offsets.get(partition, 0))
        for offset in range(first, first + count):
            made = record_at(topic=partition.topic, partition=partition.partition, offset=offset, epoch=epoch)
            record = replace(made, value=_identity(partition, offset))
            self.delivery.in_flight.admit(record)
            self._tell(self._admitted(record, is_broken=is_broken))
        self.positions[partition] = first + count
        self.fed[partition] = max(self.fed[partition], first + count)
        if is_finished:
            self._catch_up()

    # What the delivery thread does.

    @rule(count=few)
    def hear(self, count: int) -> None:
        self.inbox.allow(count)
        self.delivery.step()

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self._score(data.draw(st.lists(st.sampled_from(self.open_pairs), min_size=1, unique=True)))

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(self.open_pairs))
        self.open_pairs.remove(ref)
        self._tell(BatchFailed(_batch([ref]), REFUSAL))

    @rule(faults=st.lists(_faults(), max_size=3), missing=st.sampled_from([None, None, *OUTPUTS.values()]))
    def publish(self, faults: Sequence[Fault], missing: str | None) -> None:
        self.topics.names.discard(missing or "")
        for each in faults:
            self.broker.plan(each.call, Step(each.error, each.is_done, partial(self._strike, each)))
        self.inbox.put_first(Flush(done := threading.Event()))
        try:
            self.hear(1)
        except (CrashError, FatalError):  # fenced twice in a short time is one of the ends of a worker
            self.calls.close()
            self._start()
        else:
            assert done.is_set()
        self.broker.script.clear()
        self.topics.names |= set(OUTPUTS.values())

    @rule(fault=_faults(), count=few)
    def publish_what_is_fresh(self, fault: Fault, count: int) -> None:
        """So that most faults meet records, and moves of a partition its own."""
        self.deliver(fault.partition, count, is_broken=False, is_finished=True)
        self.publish([fault], None)

    @invariant()
    def a_subscriber_sees_every_offset_up_to_the_committed_one_once_and_in_order(self) -> None:
        for partition in PARTITIONS:
            prefix = f"{partition.topic}/{partition.partition}/".encode()
            seen = [each for each in self.broker.outputs if (each[2] or b"").startswith(prefix)]
            expected = [_identity(partition, n) for n in range(self.broker.offsets.get(partition, 0))]
            assert expected == [value for _, _, value in seen]
            for topic, number, value in seen:
                assert partition.partition == number
                assert topic in {OUTPUTS[partition.topic], LETTERS}
                assert _too_large(topic, value) is None

    def teardown(self) -> None:
        """Once nothing fails any more, all that was ever fed comes out."""
        for partition in PARTITIONS:
            self.assign(partition)
            first = self.positions.get(partition, self.broker.offsets.get(partition, 0))
            if first < self.fed[partition]:
                self.deliver(partition, self.fed[partition] - first, is_broken=False, is_finished=False)
        self._catch_up()
        self.publish([], None)
        assert 0 == self.delivery.in_flight.records
        assert self.fed == dict.fromkeys(PARTITIONS, 0) | self.broker.offsets
        self.a_subscriber_sees_every_offset_up_to_the_committed_one_once_and_in_order()
        self.publisher.close()

    def _another_worker_publishes(self, partition: TopicPartition, count: int) -> None:
        first = self.broker.offsets.get(partition, 0)
        for offset in range(first, first + count):
            topic = LETTERS if _is_large(offset) else OUTPUTS[partition.topic]
            self.broker.outputs.append((topic, partition.partition, _identity(partition, offset)))
        if count:
            self.broker.offsets[partition] = first + count
        self.fed[partition] = max(self.fed[partition], first + count)

    def _catch_up(self) -> None:
        self._score(list(self.open_pairs))
        self.hear(len(self.inbox))

    def _tell(self, event: Event) -> None:
        self.inbox.put(event)

    def _admitted(self, record: Record, *, is_broken: bool) -> Event:
        self.numbers += 1
        if is_broken:
            return NotAdmitted(self.numbers, record, REFUSAL)
        self.open_pairs += [PairRef(self.numbers, pair) for pair in range(PAIRS)]
        return Admitted(self.numbers, record, plan_pairs(Request("id", "text"), LABELS, 10), pairs_of([4] * PAIRS))

    def _score(self, refs: list[PairRef]) -> None:
        if not refs:
            return
        gone = set(refs)
        self.open_pairs = [ref for ref in self.open_pairs if ref not in gone]
        self._tell(BatchScored(_batch(refs), PairScores(np.zeros((len(refs), 2), np.float32))))

    def _strike(self, fault: Fault) -> None:
        """What happens while a call is under way."""
        if fault.meanwhile == "crash":
            if fault.is_done:
                self.broker.commit_open()
            raise CrashError
        if fault.meanwhile == "late":
            self.clock.advance(LATE_SECONDS)
        if fault.meanwhile in {"revoked", "returned", "taken"}:
            self.revoke(fault.partition, int(fault.meanwhile == "taken"), fault.meanwhile != "revoked")
        if fault.meanwhile in {"returned", "taken"}:
            self.positions[fault.partition] = self.broker.offsets.get(fault.partition, 0)


def _identity(partition: TopicPartition, offset: int) -> bytes:
    return f"{partition.topic}/{partition.partition}/{offset}".encode()


def _is_large(offset: int) -> bool:
    """Whether the prediction for this offset is too large for its topic."""
    return offset % 5 == 4


def _too_large(topic: str, value: bytes | None) -> KafkaError | None:
    if topic == LETTERS or not _is_large(int((value or b"").rsplit(b"/", 1)[1])):
        return None
    return kafka_error(KafkaError.MSG_SIZE_TOO_LARGE)


def _output(record: Record, *, is_refused: bool) -> OutboundRecord:
    topic = LETTERS if is_refused else OUTPUTS[record.topic]
    return OutboundRecord(topic, None, record.value, (), None, record.source)


def _batch(refs: Iterable[PairRef]) -> Batch:
    rows = tuple(refs)
    empty: Any = np.zeros(len(rows), np.int32)
    return Batch(rows, empty, empty, np.ones(len(rows), np.int32))


TestExactlyOnce = ExactlyOnceMachine.TestCase
