"""What brokers refuse for good: the culprit becomes a dead letter, or its topic waits, and nobody else does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scripted_kafka import (
    MEMBERSHIP,
    KnownTopics,
    ScriptedBroker,
    Waits,
    finished,
    finished_lane,
    kafka_error,
    publisher_parts,
)
from tests.support.strategies import record as record_at
from worker.clock import ManualClock
from worker.errors import ErrorCode
from worker.kafka.at_least_once import AtLeastOncePublisher
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.kafka.producer import TransactionalPublisher
from worker.kafka.publishing import Publisher
from worker.kafka.refusals import LAPSE_SECONDS, RETRY_SECONDS, RefusedTopics
from worker.types import TopicPartition

LANES = tuple(TopicPartition("in", number) for number in range(4))
INVALID = kafka_error(KafkaError.INVALID_RECORD)
TOO_LARGE = kafka_error(KafkaError.MSG_SIZE_TOO_LARGE)
FORBIDDEN = kafka_error(KafkaError.TOPIC_AUTHORIZATION_FAILED)


@dataclass
class Scene:
    """A publisher over four partitions, and a broker that refuses what a test says."""

    delivery: str
    broker: ScriptedBroker = field(default_factory=ScriptedBroker)
    topics: KnownTopics = field(default_factory=lambda: KnownTopics({"out", "elsewhere", "dlq"}))
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        assignment = Assignment()
        assignment.assign([*LANES, TopicPartition("other", 0)])
        assignment.note_membership(MEMBERSHIP)
        self.offered = OfferedPositions(assignment)
        self.parts = publisher_parts(self.broker, assignment, self.topics, self.clock)
        self.publisher = self._publisher()
        self.publisher.start()

    def _publisher(self) -> Publisher:
        waits = Waits(self.clock)
        if self.delivery == "exactly_once":
            return TransactionalPublisher(self.parts, waits, lambda _reason: None)
        return AtLeastOncePublisher(self.parts, waits, lambda _reason: None, self.offered.offer)

    def refuse(self, error: KafkaError, *values: bytes | None, topic: str = "out") -> None:
        """Refuse these values in `topic`, all where none is given."""

        def why(to: str, value: bytes | None) -> KafkaError | None:
            return error if to == topic and (not values or value in values) else None

        self.broker.refuses = why

    def seen(self, topic: str) -> list[Any]:
        return [value for to, _, value in self.broker.outputs if to == topic]


both = pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])


@both
@pytest.mark.parametrize(
    ("error", "code"), [(INVALID, ErrorCode.ENCODE_FAILED), (TOO_LARGE, ErrorCode.OUTPUT_TOO_LARGE)]
)
def test_the_one_record_that_a_broker_refuses_for_good_is_a_dead_letter_and_its_neighbours_go_on(
    delivery: str, error: KafkaError, code: ErrorCode
) -> None:
    scene = Scene(delivery)
    scene.refuse(error, b"in/0/3")
    records = finished_lane(0, range(6)) + finished_lane(1, range(2))
    published = scene.publisher.publish(records)
    assert [code if r.record.offset == 3 else None for r in records] == [p.code for p in published.committed]
    assert [each.record for each in records] == [each.record for each in published.committed]
    assert [] == list(published.left)
    assert b"in/0/3" not in scene.seen("out")
    assert {r.outputs[0].value for r in records if r.record.offset != 3} <= set(scene.seen("out"))
    assert 1 == len(scene.seen("dlq"))
    assert {LANES[0]: 6, LANES[1]: 2} == (scene.broker.offsets if delivery == "exactly_once" else scene.offered.take())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([INVALID, TOO_LARGE]),
)
def test_whatever_is_refused_each_record_is_committed_once_and_in_order(
    given_records: list[tuple[int, bool]], error: KafkaError
) -> None:
    scene = Scene("exactly_once")
    records = [finished(record_at(partition=lane, offset=offset)) for offset, (lane, _) in enumerate(given_records)]
    bad = [r.outputs[0].value for r, (_, is_bad) in zip(records, given_records, strict=True) if is_bad]
    scene.refuse(error, *(bad or [b"none"]))
    published = scene.publisher.publish(records)
    assert [r.outputs[0].value for r in records if r.outputs[0].value not in bad] == scene.seen("out")
    assert len(bad) == len(scene.seen("dlq"))
    assert [r.record for r in records] == [p.record for p in published.committed]


@both
def test_a_dead_letter_that_is_refused_too_has_its_input_wait_and_nobody_else(delivery: str) -> None:
    scene = Scene(delivery)
    in_dlq: Callable[[str, bytes | None], KafkaError | None] = lambda to, value: (  # noqa: E731
        INVALID if to == "dlq" or value == b"in/0/1" else None
    )
    scene.broker.refuses = in_dlq
    records = [*finished_lane(0, range(3)), finished(record_at(topic="other", offset=0), "elsewhere")]
    published = scene.publisher.publish(records)
    assert {(r.record.topic, r.record.offset) for r in published.committed} >= {("other", 0)}
    assert [1, 2] == [r.record.offset for r in published.left]
    assert scene.parts.refused.is_closed("dlq")
    scene.broker.refuses = lambda _to, value: INVALID if value == b"in/0/1" else None
    scene.clock.advance(RETRY_SECONDS)
    again = scene.publisher.publish(published.left)
    assert ([1, 2], []) == ([r.record.offset for r in again.committed], list(again.left))
    assert not scene.parts.refused.is_closed("dlq")


def test_a_topic_without_rights_has_its_input_wait_until_they_are_back() -> None:
    scene = Scene("exactly_once")
    scene.refuse(FORBIDDEN)
    scene.topics.unwritables = {"out"}
    records = [*finished_lane(0, range(3)), finished(record_at(topic="other", offset=0), "elsewhere")]
    published = scene.publisher.publish(records)
    assert ["other"] == [r.record.topic for r in published.committed]
    assert [0, 1, 2] == [r.record.offset for r in published.left]
    assert scene.parts.refused.is_closed("out")
    assert [0, 1, 2] == [r.record.offset for r in scene.publisher.publish(published.left).left]
    scene.refuse(FORBIDDEN, b"none")
    scene.clock.advance(RETRY_SECONDS)
    assert [0, 1, 2] == [r.record.offset for r in scene.publisher.publish(published.left).committed]
    assert not scene.parts.refused.is_closed("out")


class InterruptedClock(ManualClock):
    """Something happens, once, while the time is read."""

    interrupt: Callable[[], None] | None = None

    def monotonic(self) -> float:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt is not None:
            interrupt()
        return super().monotonic()


def test_a_refusal_that_nobody_tries_again_lapses() -> None:
    told: list[tuple[str, str | None]] = []
    clock = ManualClock()
    refused = RefusedTopics(clock, lambda topic, reason: told.append((topic, reason)))
    refused.refuse("out", "why")
    clock.advance(LAPSE_SECONDS - 1)
    assert refused.is_closed("out")
    refused.refuse("out", "why")
    clock.advance(LAPSE_SECONDS - 1)
    assert refused.is_closed("out")
    clock.advance(1)
    assert not refused.is_closed("out")
    assert [("out", "why"), ("out", "why"), ("out", None)] == told


def test_a_refusal_that_comes_while_another_one_lapses_holds() -> None:
    """Delivery refuses while the poll thread has just read the time: then, or right after it, but it is not lost."""
    told: list[tuple[str, str | None]] = []
    clock = InterruptedClock()
    refused = RefusedTopics(clock, lambda topic, reason: told.append((topic, reason)))
    refused.refuse("out", "first")
    clock.advance(LAPSE_SECONDS)
    delivery = Thread(target=refused.refuse, args=("out", "second"))

    def interrupt() -> None:
        delivery.start()
        delivery.join(0.1)  # where one waits for the other it is not over

    clock.interrupt = interrupt
    refused.is_closed("out")
    delivery.join()
    assert refused.is_closed("out")
    assert ("out", "second") == told[-1]
