"""Framed bytes to plain values: what no schema can read is refused, whatever it is."""

import base64
import datetime as dt
import decimal
import io
import json
import struct
import uuid

import fastavro
import orjson
import pytest
from google.protobuf import timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.support.serialized import PROTOBUF_TEXT
from worker.errors import ErrorCode, MessageError
from worker.kafka.protobuf_schemas import protobuf_reader, protobuf_writer
from worker.kafka.schema_registry import RegisteredText
from worker.kafka.serdes import avro_writer, framed, make_reader, plain, split_frame
from worker.messages.outbound import PredictionMessage
from worker.messages.registered import prediction_avro_schema, prediction_json_schema, with_event_as_text
from worker.messages.registered_protobuf import NUMBERED, prediction_proto
from worker.types import JsonValue, Record

AVRO = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "raw", "type": "bytes"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "other", "type": "Other"},
    ],
}
OTHER = {"type": "record", "name": "Other", "fields": [{"name": "n", "type": ["null", "int"]}]}


def record(value: bytes | None, *headers: tuple[str, bytes | None]) -> Record:
    return Record("in", 0, 0, 1, None, value, headers)


def test_the_frame_gives_the_schemas_id_and_what_follows() -> None:
    assert (258, b"body") == split_frame(record(framed(258, b"body")))


def test_a_guid_stands_in_a_header_or_in_front() -> None:
    guid = uuid.uuid4()
    assert (str(guid), b"body") == split_frame(record(b"body", ("__value_schema_id", b"\1" + guid.bytes)))
    assert (str(guid), b"body") == split_frame(record(b"\1" + guid.bytes + b"body"))


@pytest.mark.parametrize("value", [b"", b"\0\0\0\0", b"{}", b"\2\0\0\0\1x", b"\1short"])
def test_a_value_without_a_frame_is_refused(value: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        split_frame(record(value))
    assert ErrorCode.PAYLOAD_INVALID == caught.value.code


APICURIO_ID = ("apicurio.value.contentId", (258).to_bytes(8, "big"))


def test_a_serializer_of_apicurio_may_say_the_schemas_id_and_the_messages_name_in_headers() -> None:
    assert (258, b"body") == split_frame(record(b"body", APICURIO_ID))
    named = split_frame(record(b"body", APICURIO_ID, ("apicurio.protobuf.type", b"Ticket")))
    assert (258, b"\x08\x0a\x06Ticketbody") == named


@pytest.mark.parametrize(
    ("refused", "setting"),
    [
        (record(b"{}", ("apicurio.value.globalId", bytes(8))), "apicurio.registry.use-id=contentId"),
        (record(b"{}", ("apicurio.value.artifactId", b"in-value")), "apicurio.registry.use-id=contentId"),
        (record(b"\0" + (258).to_bytes(8, "big") + b"body"), "apicurio.registry.as-confluent=true"),
    ],
)
def test_an_id_that_only_apicurio_can_look_up_is_refused_with_the_setting_that_mends_it(
    refused: Record, setting: str
) -> None:
    with pytest.raises(MessageError, match=setting) as caught:
        split_frame(refused)
    assert ErrorCode.PAYLOAD_INVALID == caught.value.code


def test_a_message_of_protobuf_may_be_named_where_others_count() -> None:
    message = b"\x08\x07\x12\x03\x0a\x01x"  # number: 7, content { body: "x" }
    by_text = protobuf_reader(PROTOBUF_TEXT, {})
    assert {"number": "7", "content": {"body": "x"}} == by_text(b"\x08\x0a\x06Ticket" + message)
    assert {} == by_text(b"\x09\x0a\x07Ignored")


def test_message_indexes_that_look_like_a_name_are_no_name_where_no_message_has_it() -> None:
    inner = "message A { message B { string text = 8; } message C { string text = 8; } }"
    schema = 'syntax = "proto3";\n' + "\n".join(f"message M{n} {{}}" for n in range(5)) + "\n" + inner
    # Two indexes, 5 and 1: the message C in the sixth; as a name it would be "B" and what follows it.
    body = b"\x04\x0a\x02" + b"\x42\x01x"
    assert {"text": "x"} == protobuf_reader(schema, {})(body)


def test_avro_is_read_with_what_its_schema_refers_to_and_becomes_plain() -> None:
    other = fastavro.parse_schema(OTHER)
    named = {"Other": other}
    write = fastavro.parse_schema(AVRO, named_schemas=named)
    body = io.BytesIO()
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    fastavro.schemaless_writer(body, write, {"text": "t", "raw": b"r", "at": at, "other": {"n": 1}})
    read = make_reader(RegisteredText("AVRO", json.dumps(AVRO), {"other": json.dumps(OTHER)}))
    expected = {"text": "t", "raw": {"base64": "cg=="}, "at": "2026-01-01T00:00:00+00:00", "other": {"n": 1}}
    assert expected == read(body.getvalue())


def test_protobuf_is_read_by_schemas_in_text_and_by_descriptors() -> None:
    message = b"\x08\x07\x12\x03\x0a\x01x"  # number: 7, content { body: "x" }
    by_text = protobuf_reader(PROTOBUF_TEXT, {})
    assert {"number": "7", "content": {"body": "x"}} == by_text(b"\x02\x02" + message)
    descriptor = base64.b64encode(timestamp_pb2.DESCRIPTOR.serialized_pb).decode()
    assert ["1970-01-01T00:00:05Z"] == [protobuf_reader(descriptor, {})(b"\x00\x08\x05")]


@pytest.mark.parametrize("kind", ["AVRO", "PROTOBUF"])
@given(st.binary(max_size=60))
def test_whatever_the_bytes_they_are_read_or_refused_without_a_word_of_them(kind: str, body: bytes) -> None:
    refusals = []
    try:
        _READERS[kind](body)
    except MessageError as error:
        refusals.append((error.code, error.reason))
    reason = "value: expected what its schema says; the bytes cannot be read by it"
    assert refusals in ([], [(ErrorCode.PAYLOAD_INVALID, reason)])


_FLAT = {"type": "record", "name": "E", "fields": [{"name": "t", "type": "string"}, {"name": "n", "type": "double"}]}
_READERS = {
    "AVRO": make_reader(RegisteredText("AVRO", json.dumps(_FLAT))),
    "PROTOBUF": make_reader(RegisteredText("PROTOBUF", PROTOBUF_TEXT)),
}


@pytest.mark.parametrize(
    "schema",
    [
        RegisteredText("AVRO", '{"type": "record"}'),
        RegisteredText("AVRO", '"Missing"'),
        RegisteredText("PROTOBUF", "message {"),
        RegisteredText("PROTOBUF", 'syntax = "proto3";', {"../outside.proto": ""}),
    ],
)
def test_a_schema_that_cannot_be_read_says_so(schema: RegisteredText) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is nobody's business
        make_reader(schema)


def test_values_that_json_does_not_have_become_strings() -> None:
    assert ["1.50", "2026-01-02", None, True] == plain((decimal.Decimal("1.50"), dt.date(2026, 1, 2), None, True))


def prediction() -> dict[str, JsonValue]:
    return {
        "contract": 1,
        "id": "a",
        "mode": "single",
        "label": None,
        "selected": [],
        "scores": [{"label": "b", "score": 0.5, "path": ["a", "b"]}],
        "schema": {"name": "s", "version": 1, "digest": "sha256:0"},
        "model": {"name": "m", "digest": "d", "engine": "fake", "precision": "float32", "calibrated": False},
        "source": {"topic": "in", "partition": 0, "offset": 1, "timestamp": None},
        "text": {"tokens": 1, "tokens_dropped": 0, "windows": 1},
        "pairs": {"scored": 1, "cached": 0, "skipped": 0},
        "scored_at": "2026-01-01T00:00:00.000Z",
    }


EVENT = '{"text": "é", "price":1.10, "far":123456789012345678901234567890, "a,": {"event": 1}}'


def written(event: str) -> bytes:
    """The prediction with its event as the codec writes it."""
    return orjson.dumps({**prediction(), "event": orjson.Fragment(event)})


def test_a_prediction_survives_the_avro_schema_of_predictions() -> None:
    schema = prediction_avro_schema()
    body = avro_writer(schema)(with_event_as_text(written(EVENT)))
    found = make_reader(RegisteredText("AVRO", json.dumps(schema)))(body)
    assert isinstance(found, dict)
    assert {**prediction(), "event": EVENT} == {
        name: value for name, value in found.items() if value is not None or name == "label"
    }


def test_a_prediction_survives_the_protobuf_schema_of_predictions() -> None:
    body = protobuf_writer(prediction_proto())(with_event_as_text(written(EVENT)))
    found = make_reader(RegisteredText("PROTOBUF", prediction_proto()))(body)
    assert isinstance(found, dict)
    # What is null or at its default is not written, and 64-bit integers are strings in Protobuf's JSON.
    assert {
        **{name: value for name, value in prediction().items() if value not in (None, [])},
        "contract": "1",
        "schema": {"name": "s", "version": "1", "digest": "sha256:0"},
        "model": {"name": "m", "digest": "d", "engine": "fake", "precision": "float32"},
        "source": {"topic": "in", "offset": "1"},
        "text": {"tokens": "1", "windows": "1"},
        "pairs": {"scored": "1"},
        "event": EVENT,
    } == found


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9) | st.dictionaries(st.just("event"), st.integers())))
def test_the_event_in_a_prediction_stays_as_it_was_byte_for_byte(event: dict[str, object]) -> None:
    text = json.dumps(event, ensure_ascii=False)
    assert {**prediction(), "event": text} == with_event_as_text(written(text))


def test_a_prediction_without_an_event_has_none() -> None:
    assert prediction() == with_event_as_text(orjson.dumps(prediction()))


FIRST_NUMBERS = {
    "PredictionMessage": (
        *("contract", "id", "mode", "label", "selected", "scores", "template_spread", "schema", "model", "source"),
        *("text", "pairs", "scored_at", "event", "event_base64", "event_omitted"),
    ),
    "ScoreField": ("label", "score", "path"),
    "SchemaField": ("name", "version", "digest"),
    "ModelField": ("name", "digest", "engine", "precision", "calibrated"),
    "SourceField": ("topic", "partition", "offset", "timestamp"),
    "TextField": ("tokens", "tokens_dropped", "windows"),
    "PairsField": ("scored", "cached", "skipped"),
}
"""Of the first version that had this schema. Readers of back then go by these for ever: nothing here ever changes."""


def test_a_number_that_protobuf_readers_go_by_is_never_given_to_another_field() -> None:
    numbered = {model.__name__: names for model, names in NUMBERED.items()}
    for name, fields in FIRST_NUMBERS.items():
        assert fields == numbered[name][: len(fields)]
    for model, names in NUMBERED.items():
        assert sorted(field.alias or name for name, field in model.model_fields.items()) == sorted(names)


def test_every_field_of_a_prediction_is_in_the_registered_schemas_and_new_ones_would_have_defaults() -> None:
    names = {field.alias or name for name, field in PredictionMessage.model_fields.items()}
    avro = {field["name"]: field for field in prediction_avro_schema()["fields"]}
    assert names == avro.keys() == prediction_json_schema()["properties"].keys()
    for field in PredictionMessage.model_fields.values():
        if not field.is_required():
            assert field.default is None
    assert {"template_spread", "event", "event_base64", "event_omitted"} == {
        name for name, field in avro.items() if "default" in field
    }


def test_frames_are_four_bytes_of_number_after_a_zero() -> None:
    assert b"\0" + struct.pack(">I", 7) + b"x" == framed(7, b"x")
