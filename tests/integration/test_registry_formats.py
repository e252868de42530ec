"""Events of a schema registry, written by the reference serializers, and predictions under schemas of our own."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.schema_registry import Schema
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from google.protobuf.json_format import MessageToDict

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers, context, prediction_class, ticket
from tests.support.wait import found_in_time, wait_until
from tests.support.worker import Setup, get, run_to_end, running, set_up, wait_ready
from worker.assembler import Assembler
from worker.checks import findings
from worker.clock import SystemClock
from worker.config import load_config
from worker.messages.binding import REGISTRY_FORMATS
from worker.messages.outbound import PredictionMessage
from worker.messages.registered import prediction_avro_schema

pytestmark = pytest.mark.kafka

KINDS = {"avro": "avro", "json_schema": "json_schema", "protobuf": "protobuf", "protobuf_by_text": "protobuf"}


def created(
    kafka: BrokerUnderTest,
    folder: Path,
    names: list[str],
    registry: RegistryUnderTest,
    **binding: Any,  # noqa: ANN401
) -> Setup:
    changes = {
        "registry": {"url": registry.url},
        "binding": {"text": "/content/body", "id": "/number", **binding},
    }
    setup = set_up(folder, kafka, names, changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    return setup


def predictions(kafka: BrokerUnderTest, topic: str) -> dict[str, Any]:
    found = [json.loads(message.value() or b"") for message in kafka.read_committed(f"{topic}.predictions")]
    return {each["id"]: each for each in found}


def codes(kafka: BrokerUnderTest, topic: str) -> list[bytes | None]:
    return [dict(headers_of(message))["nli-error-code"] for message in kafka.read_committed(f"{topic}.dlq")]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_reference_serializer_wrote_is_read_by_field_path(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path, kind: str
) -> None:
    topic = topics(kind.replace("_", "-"))[0]
    serializers = Serializers(registry.url)
    values = [
        serializers.write(kind, topic, ticket(1, "short")),
        serializers.write(kind, topic, ticket(2, "a longer text, with an é")),
    ]
    kafka.produce(topic, [*values, b"\0\0\0\0\1", b"no frame", values[0][:6]])
    setup = created(kafka, tmp_path, [topic], registry, format=KINDS[kind])
    run_to_end(setup)
    found = predictions(kafka, topic)
    assert {"1", "2"} == found.keys()
    assert found["1"]["text"]["tokens"] < found["2"]["text"]["tokens"]
    assert "event_base64" in found["1"]
    assert 3 == len(codes(kafka, topic))
    # What is cut off after its frame is an empty message in Protobuf, and a whole one.
    cut_off = {b"text_missing"} if kind == "protobuf" else set()
    assert {b"payload_invalid", b"json_invalid"} | cut_off >= set(codes(kafka, topic))


def created_for_each(
    kafka: BrokerUnderTest, folder: Path, by_format: dict[str, str], registry: RegistryUnderTest
) -> Setup:
    """A configuration with a topic of each format."""
    setup = created(kafka, folder, [*by_format.values()], registry, text=["/content/body", "/note"])
    document = json.loads(setup.path.read_text())
    for binding, name in zip(document["topics"], by_format, strict=True):
        binding["format"] = name
    setup.path.write_text(json.dumps(document))
    return setup


def a_topic_each(topics: TopicsFactory, stem: str, partitions: int = 4) -> dict[str, str]:
    """Format -> a topic for it."""
    return dict(zip(REGISTRY_FORMATS, topics(*[stem] * len(REGISTRY_FORMATS), partitions=partitions), strict=True))


def test_schemas_that_evolve_in_midstream_are_followed(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    by_format = a_topic_each(topics, "evolves")
    serializers = Serializers(registry.url)
    setup = created_for_each(kafka, tmp_path, by_format, registry)

    def all_have(count: int) -> bool:
        return all(len(predictions(kafka, topic)) == count for topic in by_format.values())

    with running(setup):
        wait_ready(setup)
        for kind, topic in by_format.items():
            kafka.produce(topic, [serializers.write(kind, topic, ticket(1))])
        wait_until(lambda: all_have(1), 60)
        for kind, topic in by_format.items():
            evolved = serializers.write(kind, topic, {**ticket(2), "note": "and it is urgent"})
            kafka.produce(topic, [evolved, serializers.write(kind, topic, ticket(3))])
        wait_until(lambda: all_have(3), 60)
    for topic in by_format.values():
        found = predictions(kafka, topic)
        assert found["1"]["text"]["tokens"] == found["3"]["text"]["tokens"] < found["2"]["text"]["tokens"]
        assert [1, 2] == serializers.client.get_versions(f"{topic}-value")
        assert [] == codes(kafka, topic)


def test_an_unknown_schema_is_a_dead_letter_with_its_bytes_and_its_neighbours_go_on(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    by_format = a_topic_each(topics, "unknown", partitions=1)
    serializers = Serializers(registry.url)
    unknown = b"\0\x7f\0\0\1\x02\x0aabc"
    for kind, topic in by_format.items():
        first, last = (serializers.write(kind, topic, ticket(number)) for number in (1, 2))
        kafka.produce(topic, [first, unknown, last])
    run_to_end(created_for_each(kafka, tmp_path, by_format, registry))
    for topic in by_format.values():
        assert {"1", "2"} == predictions(kafka, topic).keys()
        assert [b"registry_schema_unknown"] == codes(kafka, topic)
        assert [unknown] == [message.value() for message in kafka.read_committed(f"{topic}.dlq")]


def test_while_the_registry_is_out_of_reach_its_partitions_wait_others_go_on_and_nothing_is_lost(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    by_format, plain = a_topic_each(topics, "waits"), topics("plain")[0]
    serializers = Serializers(registry.url)
    waiting = {
        topic: [{"value": serializers.write(kind, topic, ticket(n)), "partition": n % 4} for n in range(1, 21)]
        for kind, topic in by_format.items()
    }
    setup = created_for_each(kafka, tmp_path, by_format, registry)
    document = json.loads(setup.path.read_text())
    document["topics"].append({"input": plain, "label_schema": "kinds"})
    setup.path.write_text(json.dumps(document))
    kafka.create_topics({f"{plain}.predictions": 4, f"{plain}.dlq": 4})
    written = [f"{topic}.predictions" for topic in waiting]
    registry.pause()
    try:
        with running(setup):
            wait_ready(setup)
            for topic, records in waiting.items():
                kafka.produce(topic, records)
            wait_until(lambda: b"the schema registry does not answer" in get(setup, "/readyz")[1], 60)
            kafka.produce(plain, [b'{"text": "t"}'] * 8)
            found_in_time(lambda: len(kafka.read_committed(f"{plain}.predictions")) == 8, 60)
            assert [] == kafka.read_committed(*written, *[f"{topic}.dlq" for topic in waiting])
            registry.resume()
            found_in_time(lambda: len(kafka.read_committed(*written)) == 60, 60)
            wait_until(lambda: get(setup, "/readyz")[0] == 200, 60)
    finally:
        registry.resume()
    for topic in waiting:
        lanes: dict[int | None, list[int]] = {}
        for message in kafka.read_committed(f"{topic}.predictions"):
            lanes.setdefault(message.partition(), []).append(int(json.loads(message.value() or b"")["id"]))
        assert {partition: list(range(partition or 4, 21, 4)) for partition in range(4)} == lanes
        assert [] == codes(kafka, topic)


def deserialized(registry: RegistryUnderTest, kind: str, message: Message, folder: Path) -> dict[str, Any]:
    client = Serializers(registry.url).client
    value, topic = message.value(), context(str(message.topic()))
    if kind == "protobuf":
        # Without a client: it asks for the schema as a descriptor, which this registry cannot make of a text.
        read = ProtobufDeserializer(prediction_class(folder), {"use.deprecated.format": False})
        return dict(MessageToDict(read(value, topic), preserving_proto_field_name=True))
    make = AvroDeserializer if kind == "avro" else lambda of: JSONDeserializer(None, schema_registry_client=of)
    found = make(client)(value, topic)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("kind", ["avro", "json_schema", "protobuf"])
def test_predictions_under_a_schema_of_ours_are_read_by_the_reference_deserializers(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path, kind: str
) -> None:
    topic = topics("registered", partitions=1)[0]
    event = '{"id": "a", "text": "t", "more": {"n": 1.10}}'
    kafka.produce(topic, [event.encode()])
    changes = {"registry": {"url": registry.url}, "binding": {"output_format": kind}}
    setup = set_up(tmp_path, kafka, [topic], changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    run_to_end(setup)
    (message,) = kafka.read_committed(f"{topic}.predictions")
    found = deserialized(registry, kind, message, tmp_path)
    assert "a" == found["id"]
    assert {"billing", "bug"} == {each["label"] for each in found["scores"]}
    assert (json.loads(event) if kind == "json_schema" else event) == found["event"]
    assert "content-type" not in dict(headers_of(message))
    client = Serializers(registry.url).client
    assert f"{topic}.predictions-value" in client.get_subjects()
    if kind == "json_schema":
        PredictionMessage.model_validate(found)


def test_a_schema_of_ours_follows_an_older_one_and_is_not_forced_on_a_subject_that_refuses_it(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    older, foreign = topics("older", "foreign", partitions=1)
    client = Serializers(registry.url).client
    schema = prediction_avro_schema()
    former = {**schema, "fields": [each for each in schema["fields"] if each["name"] != "template_spread"]}
    for topic, text in ((older, json.dumps(former)), (foreign, '"long"')):
        client.register_schema(f"{topic}.predictions-value", Schema(text, "AVRO"))
        client.set_compatibility(f"{topic}.predictions-value", "FULL")
    changes = {"registry": {"url": registry.url}, "binding": {"output_format": "avro"}}
    setup = set_up(tmp_path, kafka, [older, foreign], changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    for topic in (older, foreign):
        kafka.produce(topic, [b'{"id": "a", "text": "t"}'])
    with running(setup):
        found_in_time(lambda: len(kafka.read_committed(f"{older}.predictions")) == 1, 60)
        told = get(setup, "/readyz")[1].decode()
    assert f"subject {foreign}.predictions-value: the registry refuses the schema" in told
    assert [] == kafka.read_committed(f"{foreign}.predictions", f"{foreign}.dlq")


def test_check_tells_what_the_registry_has_and_registers_nothing(
    kafka: BrokerUnderTest, registry: RegistryUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    topic = topics("checked", partitions=1)[0]
    setup = created(kafka, tmp_path, [topic], registry, format="avro", output_format="avro")

    def told() -> list[tuple[str, str, str]]:
        found = findings(Assembler(load_config(setup.path), SystemClock()))
        return [(each.verdict, each.subject, each.message) for each in found]

    subject = f"subject {topic}.predictions-value"
    assert ("ok", "schema registry", "it answers") in told()
    assert ("ok", subject, "its schema would be registered") in told()
    client = Serializers(registry.url).client
    assert f"{topic}.predictions-value" not in client.get_subjects()
    document = json.loads(setup.path.read_text())
    document["registry"]["register_schemas"] = False
    setup.path.write_text(json.dumps(document))
    assert any(verdict == "failed" and each == subject for verdict, each, _ in told())
    client.register_schema(f"{topic}.predictions-value", Schema(json.dumps(prediction_avro_schema()), "AVRO"))
    assert ("ok", subject, "the schema registry has it") in told()
    registry.pause()
    try:
        (missing,) = [each for each in told() if each[1] == "schema registry"]
    finally:
        registry.resume()
    assert "failed" == missing[0]
    assert "the schema registry does not answer" in missing[2]
