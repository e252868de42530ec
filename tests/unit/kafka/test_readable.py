"""Records wait for their schemas in order, and only those of their partition with them."""

from typing import cast

import pytest

from worker.clock import ManualClock
from worker.errors import ErrorCode, MessageError, RetryableError
from worker.kafka.readable import BACK_OFF_SECONDS, FORGET_UNKNOWN_SECONDS, UNKNOWN_KEPT, SchemaShelf, Sieve
from worker.kafka.schema_registry import (
    AnsweredError,
    RefusedSchemaError,
    RegisteredText,
    RegistryClient,
    SchemaKey,
    UnknownSchemaError,
)
from worker.kafka.serdes import framed
from worker.observability.health import Readiness
from worker.types import Record, TopicPartition


class Registry:
    """Has JSON schemas by number; can be out of reach."""

    def __init__(self) -> None:
        self.known: set[SchemaKey] = {1, 2}
        self.is_silent = False
        self.asked: list[SchemaKey] = []
        self.raises: dict[SchemaKey, Exception] = {}

    def fetch(self, key: SchemaKey) -> RegisteredText:
        self.asked.append(key)
        if self.is_silent:
            raise RetryableError("the schema registry does not answer")
        if key in self.raises:
            raise self.raises[key]
        if key not in self.known:
            raise UnknownSchemaError
        return RegisteredText("JSON", "{}")


class Scene:
    def __init__(self) -> None:
        self.registry = Registry()
        self.readiness = Readiness()
        self.clock = ManualClock()
        client = cast("RegistryClient", self.registry)
        formats = {"in": "json_schema", "avro": "avro", "plain": "json"}
        self.shelf = SchemaShelf(client, formats.get, self.readiness, self.clock)
        self.sieve = Sieve(self.shelf)


def record(offset: int, schema: int = 1, partition: int = 0, topic: str = "in") -> Record:
    return Record(topic, partition, offset, 1, None, framed(schema, b'{"a": 1}'))


def test_a_schema_is_asked_for_once() -> None:
    scene = Scene()
    assert 4 == len(scene.sieve.sift([record(0), record(1), record(2, schema=2), record(3)]))
    assert [1, 2] == scene.registry.asked
    assert {"a": 1} == scene.shelf.read(record(0))


def test_what_needs_no_schema_is_not_looked_at() -> None:
    scene = Scene()
    scene.registry.is_silent = True
    unframed = Record("in", 0, 1, 1, None, b"no frame")
    assert 3 == len(scene.sieve.sift([record(0, topic="plain"), unframed, Record("in", 0, 2, 1, None, None)]))
    assert [] == scene.registry.asked


def test_a_partition_waits_as_a_whole_and_in_order_while_others_go_on() -> None:
    scene = Scene()
    scene.sieve.sift([record(0, partition=1)])
    scene.registry.is_silent = True
    passed = scene.sieve.sift([record(0, schema=2), record(1), record(1, partition=1)])
    assert [(1, 1)] == [(each.partition, each.offset) for each in passed]
    assert {TopicPartition("in", 0): 2} == scene.sieve.waiting()
    assert scene.sieve.holds(TopicPartition("in", 0))
    assert ("registry: the schema registry does not answer",) == scene.readiness.reasons()
    assert [] == scene.sieve.sift([record(2)])
    scene.registry.is_silent = False
    scene.clock.advance(BACK_OFF_SECONDS[0])
    assert [0, 1, 2, 3] == [each.offset for each in scene.sieve.sift([record(3)])]
    assert () == scene.readiness.reasons()
    assert not scene.sieve.waiting()


def test_a_silent_registry_is_asked_ever_less_often() -> None:
    scene = Scene()
    scene.registry.is_silent = True
    scene.sieve.sift([record(0), record(0, schema=2, partition=1)])
    assert 1 == len(scene.registry.asked)
    for seconds in (*BACK_OFF_SECONDS, BACK_OFF_SECONDS[-1]):
        before = len(scene.registry.asked)
        scene.clock.advance(seconds * 0.9)
        scene.sieve.sift([])
        assert before == len(scene.registry.asked)
        scene.clock.advance(seconds * 0.2)
        scene.sieve.sift([])
        assert before + 1 == len(scene.registry.asked)


def test_what_waits_of_a_partition_that_went_is_forgotten() -> None:
    scene = Scene()
    scene.registry.is_silent = True
    scene.sieve.sift([record(0)])
    scene.sieve.drop([TopicPartition("in", 0)])
    assert {} == scene.sieve.waiting()
    assert () == scene.readiness.reasons()


def test_an_unknown_schema_is_a_refusal_and_looked_up_again_after_a_while() -> None:
    scene = Scene()
    assert 1 == len(scene.sieve.sift([record(0, schema=7)]))
    with pytest.raises(MessageError) as caught:
        scene.shelf.read(record(0, schema=7))
    assert ErrorCode.REGISTRY_SCHEMA_UNKNOWN == caught.value.code
    scene.sieve.sift([record(1, schema=7)])
    assert [7] == scene.registry.asked
    scene.registry.known.add(7)
    scene.clock.advance(FORGET_UNKNOWN_SECONDS)
    scene.sieve.sift([record(2, schema=7)])
    assert {"a": 1} == scene.shelf.read(record(2, schema=7))


def test_a_schema_of_another_type_than_the_topics_format_is_refused() -> None:
    scene = Scene()
    scene.sieve.sift([record(0, topic="avro")])
    with pytest.raises(MessageError) as caught:
        scene.shelf.read(record(0, topic="avro"))
    assert ErrorCode.PAYLOAD_INVALID == caught.value.code


def test_a_schema_that_the_registry_refuses_to_hand_out_holds_up_only_its_own_partition() -> None:
    scene = Scene()
    scene.registry.raises[1] = AnsweredError("the schema registry refuses a request (HTTP 403)")
    assert [] == scene.sieve.sift([record(0)])
    for step in range(20):
        scene.clock.advance(BACK_OFF_SECONDS[-1])
        assert [(2, step)] == [(e.partition, e.offset) for e in scene.sieve.sift([record(step, 2, partition=2)])]
        assert scene.readiness.reasons()  # partition 0 still waits
    del scene.registry.raises[1]
    scene.clock.advance(BACK_OFF_SECONDS[-1])
    assert [0] == [each.offset for each in scene.sieve.sift([])]
    assert () == scene.readiness.reasons()


@pytest.mark.parametrize("error", [RefusedSchemaError("HTTP 422"), AttributeError("schema_str"), FileExistsError("a")])
def test_whatever_the_registry_says_of_a_schema_hurts_only_its_records(error: Exception) -> None:
    scene = Scene()
    scene.registry.raises[1] = error
    assert 2 == len(scene.sieve.sift([record(0), record(1, schema=2)]))
    with pytest.raises(MessageError) as refused:
        scene.shelf.read(record(0))
    assert ErrorCode.REGISTRY_SCHEMA_UNKNOWN == refused.value.code
    assert {"a": 1} == scene.shelf.read(record(1, schema=2))


def test_bytes_that_only_look_framed_are_not_kept_in_mind_without_end() -> None:
    scene = Scene()
    for number in range(3, UNKNOWN_KEPT + 100):
        scene.sieve.sift([record(number, schema=number)])
    assert len(scene.shelf._unknown) <= UNKNOWN_KEPT
