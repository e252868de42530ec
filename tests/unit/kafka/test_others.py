"""How far the rest of the group has come."""

from typing import cast

import pytest
from confluent_kafka import KafkaError

from tests.support.scripted_kafka import ScriptedBroker, Step, kafka_error
from worker.clock import ManualClock
from worker.kafka import others
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.others import LOOK_SECONDS, OthersProgress
from worker.types import TopicPartition

LANE, OTHER = TopicPartition("in", 0), TopicPartition("in", 1)


class Scene:
    def __init__(self) -> None:
        self.broker, self.clock = ScriptedBroker(), ManualClock()
        self.others = OthersProgress(cast("GroupOffsets", self.broker), self.clock)

    def has_passed(self) -> bool:
        self.clock.advance(LOOK_SECONDS)
        return self.others.has_passed({LANE: 5, OTHER: 2})


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Up to which committed positions nothing but markers is left; add to it."""
    found: list[int] = []
    monkeypatch.setattr(others.OthersProgress, "_is_bare", lambda _self, _partition, start, _end: start in found)
    return found


@pytest.mark.usefixtures("bare")
def test_it_has_passed_once_every_partition_is_committed_up_to_its_end() -> None:
    scene = Scene()
    assert not scene.has_passed()
    scene.broker.offsets = {LANE: 5}
    assert not scene.has_passed()
    scene.broker.offsets = {LANE: 7, OTHER: 2}
    assert scene.has_passed()
    asked = len(scene.broker.calls)
    assert scene.has_passed()
    assert asked == len(scene.broker.calls)


@pytest.mark.usefixtures("bare")
def test_nothing_to_wait_for_is_passed_without_asking() -> None:
    scene = Scene()
    assert scene.others.has_passed({})
    assert [] == scene.broker.calls


@pytest.mark.usefixtures("bare")
def test_the_broker_is_not_asked_at_every_turn() -> None:
    scene = Scene()
    for _ in range(5):
        scene.others.has_passed({LANE: 5})
    assert ["committed"] == scene.broker.calls


@pytest.mark.usefixtures("bare")
def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    scene = Scene()
    scene.broker.offsets = {LANE: 5, OTHER: 2}
    scene.broker.plan("committed", Step(kafka_error(KafkaError._TIMED_OUT)))
    assert not scene.has_passed()
    assert scene.has_passed()


def test_where_only_markers_are_left_it_has_passed_once_it_stands_still(bare: list[int]) -> None:
    scene = Scene()
    bare.append(4)
    scene.broker.offsets = {LANE: 3, OTHER: 2}
    assert [False, False] == [scene.has_passed(), scene.has_passed()]
    scene.broker.offsets = {LANE: 4, OTHER: 2}
    assert [False, True] == [scene.has_passed(), scene.has_passed()]
