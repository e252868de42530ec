"""Handing records to a client whose queue is full."""

from dataclasses import replace
from typing import cast

import pytest
from confluent_kafka import KafkaException, Producer

from tests.support.scripted_kafka import KnownTopics, ScriptedBroker, finished_lane, publisher_parts
from worker.clock import ManualClock
from worker.kafka.offsets import Assignment
from worker.kafka.publishing import FULL_QUEUE_SECONDS


class FullProducer:
    """Has room again after so many seconds."""

    def __init__(self, clock: ManualClock, seconds: float) -> None:
        self.clock, self.room_at, self.taken = clock, clock.monotonic() + seconds, 0

    def produce(self, *_arguments: object, **_more: object) -> None:
        if self.clock.monotonic() < self.room_at:
            raise BufferError
        self.taken += 1

    def poll(self, _timeout: float) -> int:
        self.clock.advance(0.5)
        return 0


def test_a_full_queue_is_waited_for() -> None:
    clock = ManualClock()
    parts = publisher_parts(ScriptedBroker(), Assignment(), KnownTopics(["out"]), clock)
    producer = FullProducer(clock, FULL_QUEUE_SECONDS - 1)
    parts.send(cast("Producer", producer), finished_lane(0, range(3)), None)
    assert 3 == producer.taken


def test_whoever_waits_for_room_shows_that_it_is_alive() -> None:
    """A wait for each record is short; a thousand of them are longer than a thread may be silent."""
    clock, beats = ManualClock(), list[float]()
    parts = publisher_parts(ScriptedBroker(), Assignment(), KnownTopics(["out"]), clock)
    parts = replace(parts, beat=lambda: beats.append(clock.monotonic()))
    parts.send(cast("Producer", FullProducer(clock, 3)), finished_lane(0, range(3)), None)
    assert 6 == len(beats)


def test_a_queue_that_stays_full_is_told_before_the_thread_counts_as_stuck() -> None:
    clock = ManualClock()
    parts = publisher_parts(ScriptedBroker(), Assignment(), KnownTopics(["out"]), clock)
    producer = FullProducer(clock, 10 * FULL_QUEUE_SECONDS)
    with pytest.raises(KafkaException, match="_QUEUE_FULL"):
        parts.send(cast("Producer", producer), finished_lane(0, range(3)), None)
    assert 0 == producer.taken
