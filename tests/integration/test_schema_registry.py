"""The schema registry's client against a real registry, without a broker."""

import json
from collections.abc import Iterator

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference

from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers, ticket
from worker.clock import ManualClock
from worker.errors import ErrorCode, MessageError, RetryableError
from worker.kafka.output_schemas import OutputSchemas
from worker.kafka.readable import SchemaShelf
from worker.kafka.schema_registry import RegistryClient
from worker.messages.registered import prediction_avro_schema
from worker.observability.health import Readiness
from worker.registry_settings import Registry
from worker.types import JsonValue, Record

FORMATS = {"avro": "avro", "json_schema": "json_schema", "protobuf": "protobuf", "protobuf_by_text": "protobuf"}


@pytest.fixture
def client(registry: RegistryUnderTest) -> Iterator[RegistryClient]:
    made = RegistryClient(Registry(url=registry.url))
    yield made
    made.close()


@pytest.fixture
def shelf(client: RegistryClient) -> SchemaShelf:
    return SchemaShelf(client, lambda topic: FORMATS[topic.partition("-")[0]], Readiness(), ManualClock())


@pytest.fixture
def paused(registry: RegistryUnderTest) -> Iterator[RegistryUnderTest]:
    registry.pause()
    yield registry
    registry.resume()


def read(shelf: SchemaShelf, topic: str, value: bytes) -> JsonValue:
    record = Record(topic, 0, 0, 1, None, value)
    shelf.prepare(record)
    return shelf.read(record)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_reference_serializer_wrote_is_read(registry: RegistryUnderTest, shelf: SchemaShelf, kind: str) -> None:
    value = Serializers(registry.url).write(kind, f"{kind}-read", ticket(7, "é"))
    found = read(shelf, f"{kind}-read", value)
    assert isinstance(found, dict)
    assert "7" == str(found["number"])
    assert {"body": "é"} == found["content"]


def test_what_a_schema_refers_to_is_fetched_with_it(registry: RegistryUnderTest, shelf: SchemaShelf) -> None:
    client = Serializers(registry.url).client
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "body", "type": "string"}]}
    outer = {"type": "record", "name": "Outer", "fields": [{"name": "inner", "type": "Inner"}]}
    client.register_schema("inner", Schema(json.dumps(inner), "AVRO"))
    reference = SchemaReference("Inner", "inner", 1)
    number = client.register_schema("outer-value", Schema(json.dumps(outer), "AVRO", [reference]))
    assert {"inner": {"body": "x"}} == read(shelf, "avro-outer", b"\0" + number.to_bytes(4, "big") + b"\x02x")


def test_an_unknown_schema_is_refused(shelf: SchemaShelf) -> None:
    with pytest.raises(MessageError) as caught:
        read(shelf, "avro-unknown", b"\0\x7f\0\0\1x")
    assert ErrorCode.REGISTRY_SCHEMA_UNKNOWN == caught.value.code


def test_a_registry_that_does_not_answer_is_waited_for(shelf: SchemaShelf, paused: RegistryUnderTest) -> None:
    with pytest.raises(RetryableError, match="does not answer"):
        shelf.prepare(Record("avro-waits", 0, 0, 1, None, b"\0\0\0\0\1x"))


def test_our_schema_follows_an_older_one_and_is_not_forced_on_a_subject_that_refuses_it(
    registry: RegistryUnderTest, client: RegistryClient
) -> None:
    outputs = OutputSchemas(client, create=True)
    theirs = Serializers(registry.url).client
    schema = prediction_avro_schema()
    former = {**schema, "fields": [each for each in schema["fields"] if each["name"] != "template_spread"]}
    for topic, text in (("older", json.dumps(former)), ("foreign", '"long"')):
        theirs.register_schema(f"{topic}-value", Schema(text, "AVRO"))
        theirs.set_compatibility(f"{topic}-value", "FULL")
    assert outputs.look_up("older", "avro")[1]
    assert outputs.register("older", "avro") is None
    assert (None, False) == outputs.look_up("older", "avro")
    assert "the registry refuses the schema" in str(outputs.register("foreign", "avro"))
    assert outputs.register("fresh", "json_schema") is None
    assert {"older-value", "fresh-value"} <= set(theirs.get_subjects())
