"""The publisher without transactions against a broker that does what each test says."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError

from tests.support.scripted_kafka import (
    MEMBERSHIP,
    TIMED_OUT,
    KnownTopics,
    OneAtATime,
    ScriptedBroker,
    Step,
    Waits,
    finished_lane,
    kafka_error,
    publisher_parts,
)
from worker.clock import ManualClock
from worker.kafka.at_least_once import AtLeastOncePublisher
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.kafka.publishing import StoppedError
from worker.types import TopicPartition

LANE = TopicPartition("in", 0)
LOST = kafka_error(KafkaError._MSG_TIMED_OUT)


class Scene:
    """A publisher that owns one partition, and all that it talks to."""

    def __init__(self) -> None:
        self.broker, self.assignment = ScriptedBroker(), Assignment()
        self.assignment.assign([LANE])
        self.assignment.note_membership(MEMBERSHIP)
        self.topics = KnownTopics({"out"})
        self.waits = Waits(ManualClock())
        self.offered = OfferedPositions(self.assignment)
        parts = publisher_parts(self.broker, self.assignment, self.topics, ManualClock())
        self.publisher = AtLeastOncePublisher(parts, self.waits, lambda _reason: None, self.offered.offer)
        self.publisher.start()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_positions_are_offered_only_after_every_output_was_acknowledged(scene: Scene) -> None:
    before: list[Mapping[TopicPartition, int]] = []
    scene.broker.plan("flush", Step(before=lambda: before.append(scene.offered.take())))
    records = finished_lane(0, range(3))
    assert records == list(scene.publisher.publish(records).committed)
    assert [{}] == before
    assert {LANE: 3} == scene.offered.take()


def test_an_output_that_is_not_acknowledged_is_waited_for(scene: Scene) -> None:
    scene.broker.plan("flush", Step(TIMED_OUT), Step(TIMED_OUT))
    scene.publisher.publish(finished_lane(0, [0]))
    assert 3 == scene.broker.calls.count("flush")
    assert 1 == len(scene.broker.outputs)


def test_after_a_failed_output_all_are_sent_again_in_order_by_a_new_producer(scene: Scene) -> None:
    scene.broker.plan("flush", Step(LOST))
    scene.publisher.publish(finished_lane(0, range(3)))
    assert 2 == len(scene.broker.producers)
    assert [b"in/0/0", b"in/0/1", b"in/0/2"] == [value for _, _, value in scene.broker.outputs]
    assert {LANE: 3} == scene.offered.take()


def test_no_position_is_offered_when_the_worker_stops_before_the_acknowledgement(scene: Scene) -> None:
    scene.broker.plan("flush", Step(TIMED_OUT))
    scene.waits.is_stopping = True
    with pytest.raises(StoppedError):
        scene.publisher.publish(finished_lane(0, [0]))
    assert {} == scene.offered.all()


def test_records_of_a_former_assignment_are_not_sent(scene: Scene) -> None:
    scene.assignment.assign([LANE])
    assert () == tuple(scene.publisher.publish(finished_lane(0, [0], epoch=1)).committed)
    assert [] == scene.broker.outputs


def test_a_missing_output_topic_leaves_its_records(scene: Scene) -> None:
    scene.topics.names.clear()
    records = finished_lane(0, [0])
    assert records == list(scene.publisher.publish(records).left)
    assert {} == scene.offered.all()


@pytest.mark.parametrize("comes_back", [False, True])
def test_no_position_is_committed_of_a_partition_that_went_while_its_outputs_were_acknowledged(
    scene: Scene, *, comes_back: bool
) -> None:
    """Whoever had it meanwhile may be far beyond."""

    def rebalance() -> None:
        scene.assignment.revoke([LANE])
        if comes_back:
            scene.assignment.assign([LANE])

    scene.broker.plan("flush", Step(before=rebalance))
    scene.publisher.publish(finished_lane(0, range(3)))
    assert {} == scene.offered.take()
    assert {} == scene.offered.all()


def test_what_was_offered_is_forgotten_when_its_partition_goes(scene: Scene) -> None:
    scene.publisher.publish(finished_lane(0, range(3)))
    assert {LANE: 3} == scene.offered.take()
    assert ({}, {LANE: 3}) == (scene.offered.take(), scene.offered.all())
    scene.assignment.assign([LANE])
    assert {} == scene.offered.all()


def test_a_replaced_producer_is_gone_before_the_next_one_is_made(scene: Scene) -> None:
    make = OneAtATime(scene.broker)
    parts = replace(publisher_parts(scene.broker, scene.assignment, scene.topics, ManualClock()), make_producer=make)
    publisher = AtLeastOncePublisher(parts, scene.waits, lambda _reason: None, scene.offered.offer)
    scene.broker.plan("flush", Step(LOST))
    scene.broker.plan("produce", Step(), Step(LOST))
    publisher.publish(finished_lane(0, range(3)))
    assert 3 == len(make.made)
