"""The schema registry's client against a real registry, without a broker."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference

from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers, ticket
from worker.clock import ManualClock
from worker.errors import ErrorCode, MessageError, RetryableError
from worker.kafka.output_schemas import OutputSchemas
from worker.kafka.readable import SchemaShelf
from worker.kafka.schema_registry import RefusedSchemaError, RegistryClient
from worker.kafka.serdes import TYPES
from worker.messages.registered import prediction_avro_schema, prediction_json_schema
from worker.messages.registered_protobuf import prediction_proto
from worker.observability.health import Readiness
from worker.registry_settings import Registry
from worker.types import JsonValue, OutboundRecord, Record, TopicPartition

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


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_written_under_a_schema_of_ours_is_read_by_it(
    client: RegistryClient, shelf: SchemaShelf, kind: str
) -> None:
    outputs = OutputSchemas(client, create=True)
    topic = f"{kind}-own"
    assert outputs.register(topic, kind) is None
    written = outputs.framed(OutboundRecord(topic, None, PREDICTION, (), None, TopicPartition("in", 0)), kind)
    found = read(shelf, topic, written.value or b"")
    assert isinstance(found, dict)
    assert "a" == found["id"]
    assert [{"label": "b", "score": 0.5, "path": ["a", "b"]}] == found["scores"]
    assert ({"n": 1} if kind == "json_schema" else '{"n": 1}') == found["event"]


PREDICTION = orjson.dumps(
    {
        "contract": 1,
        "id": "a",
        "mode": "single",
        "label": "b",
        "selected": ["b"],
        "scores": [{"label": "b", "score": 0.5, "path": ["a", "b"]}],
        "schema": {"name": "s", "version": 1, "digest": "sha256:0"},
        "model": {"name": "m", "digest": "d", "engine": "fake", "precision": "float32", "calibrated": False},
        "source": {"topic": "in", "partition": 0, "offset": 1, "timestamp": None},
        "text": {"tokens": 1, "tokens_dropped": 0, "windows": 1},
        "pairs": {"scored": 1, "cached": 0, "skipped": 0},
        "scored_at": "2026-01-01T00:00:00.000Z",
        "event": orjson.Fragment('{"n": 1}'),
    }
)


def with_avro_fields(change: Callable[[list[Any]], list[Any]]) -> str:
    schema = prediction_avro_schema()
    return json.dumps({**schema, "fields": change(schema["fields"])})


def with_properties(change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    schema = prediction_json_schema()
    return json.dumps({**schema, "properties": change(schema["properties"])})


def former(kind: str) -> str:
    """Our schema as it was before `template_spread`."""
    if kind == "avro":
        return with_avro_fields(lambda fields: [each for each in fields if each["name"] != "template_spread"])
    if kind == "json_schema":
        return with_properties(lambda found: {name: each for name, each in found.items() if name != "template_spread"})
    return "".join(line for line in prediction_proto().splitlines(keepends=True) if "template_spread" not in line)


def later(kind: str) -> str:
    """Our schema with one more field, as a later version would have it."""
    if kind == "avro":
        return with_avro_fields(lambda fields: [*fields, {"name": "more", "type": ["null", "long"], "default": None}])
    if kind == "json_schema":
        return with_properties(lambda found: {**found, "more": {"anyOf": [{"type": "integer"}, {"type": "null"}]}})
    return prediction_proto().rstrip()[:-1] + "  optional int64 more = 1000;\n}\n"


def broken(kind: str) -> str:
    """Our schema with an id that is a number."""
    if kind == "avro":
        return with_avro_fields(lambda found: [{**f, "type": "long"} if f["name"] == "id" else f for f in found])
    if kind == "json_schema":
        return with_properties(lambda found: {**found, "id": {"type": "integer"}})
    return prediction_proto().replace("  string id = 2;", "  int64 id = 2;")


@pytest.mark.parametrize("kind", TYPES)
def test_our_schema_follows_its_older_self_and_is_followed_by_a_longer_one_but_not_by_a_broken_one(
    registry: RegistryUnderTest, client: RegistryClient, kind: str
) -> None:
    outputs = OutputSchemas(client, create=True)
    theirs = Serializers(registry.url).client
    subject = f"evolving-{kind}-value"
    theirs.register_schema(subject, Schema(former(kind), TYPES[kind]))
    theirs.set_compatibility(subject, "BACKWARD")
    assert outputs.look_up(f"evolving-{kind}", kind)[1]
    assert outputs.register(f"evolving-{kind}", kind) is None
    assert (None, False) == outputs.look_up(f"evolving-{kind}", kind)
    with pytest.raises(RefusedSchemaError, match="name another output topic, or have the subject's") as caught:
        client.register(subject, broken(kind), TYPES[kind], create=True)
    assert "(HTTP 409)" in str(caught.value)
    client.register(subject, later(kind), TYPES[kind], create=True)
    assert [1, 2, 3] == theirs.get_versions(subject)


def test_our_schema_is_not_forced_on_a_subject_that_refuses_it(
    registry: RegistryUnderTest, client: RegistryClient
) -> None:
    theirs = Serializers(registry.url).client
    theirs.register_schema("foreign-value", Schema('"long"', "AVRO"))
    theirs.set_compatibility("foreign-value", "FULL")
    assert "the registry refuses the schema" in str(OutputSchemas(client, create=True).register("foreign", "avro"))


@pytest.mark.parametrize("rule", ["BACKWARD", "NONE", "FORWARD", "FULL", "FULL_TRANSITIVE"])
def test_a_rule_under_which_a_later_json_schema_is_refused_is_told_with_its_fix(
    registry: RegistryUnderTest, client: RegistryClient, rule: str
) -> None:
    outputs, theirs = OutputSchemas(client, create=True), Serializers(registry.url).client
    topic = f"ruled-{rule.lower()}"
    assert outputs.register(topic, "json_schema") is None
    theirs.set_compatibility(f"{topic}-value", rule)
    doubt = outputs.doubt(topic, "json_schema")
    if rule in {"BACKWARD", "NONE"}:
        assert doubt is None
        client.register(f"{topic}-value", later("json_schema"), "JSON", create=True)
    else:
        assert f"its compatibility is {rule}," in str(doubt)
        assert "set it to BACKWARD" in str(doubt)
        with pytest.raises(RefusedSchemaError, match="a JSON Schema needs BACKWARD"):
            client.register(f"{topic}-value", later("json_schema"), "JSON", create=True)
    for kind in ("avro", "protobuf"):
        assert outputs.doubt(topic, kind) is None


def test_the_rule_of_all_subjects_holds_where_one_has_none(registry: RegistryUnderTest, client: RegistryClient) -> None:
    outputs, theirs = OutputSchemas(client, create=True), Serializers(registry.url).client
    before = theirs.get_compatibility()
    theirs.set_compatibility(level="FULL")
    try:
        assert "its compatibility is FULL," in str(outputs.doubt("ruled-by-none", "json_schema"))
    finally:
        theirs.set_compatibility(level=before)


def test_a_schema_that_would_be_refused_is_told_before_it_is_tried(
    registry: RegistryUnderTest, client: RegistryClient
) -> None:
    outputs, theirs = OutputSchemas(client, create=True), Serializers(registry.url).client
    assert (True, True) == (outputs.look_up("taken", "avro")[1], outputs.look_up("taken", "json_schema")[1])
    theirs.register_schema("taken-value", Schema(former("json_schema"), "JSON"))
    theirs.set_compatibility("taken-value", "FULL")
    reason, is_missing = outputs.look_up("taken", "json_schema")
    assert not is_missing
    assert "the registry would refuse the schema" in str(reason)
    assert "a JSON Schema needs BACKWARD" in str(reason)
    assert [1] == theirs.get_versions("taken-value")
