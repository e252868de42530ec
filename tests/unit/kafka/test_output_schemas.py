"""Predictions are written under a schema of ours once the registry has it, and not before."""

from typing import cast

import orjson
import pytest

from worker.errors import ErrorCode, MessageError, RetryableError
from worker.kafka.output_schemas import OutputSchemas
from worker.kafka.schema_registry import RefusedSchemaError, RegistryClient
from worker.types import OutboundRecord, TopicPartition


class Registry:
    """Takes any schema, refuses all, or is silent."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[tuple[str, str, bool]] = []
        self.is_open = True

    def register(self, subject: str, _text: str, schema_type: str, *, create: bool) -> int:
        self.asked.append((subject, schema_type, create))
        if self.error is not None:
            raise self.error
        return 7

    def takes(self, _subject: str, _text: str, _schema_type: str) -> bool:
        if isinstance(self.error, RetryableError):
            raise self.error
        return self.is_open


@pytest.fixture
def registry() -> Registry:
    return Registry()


def schemas(registry: Registry, *, create: bool = True) -> OutputSchemas:
    return OutputSchemas(cast("RegistryClient", registry), create=create)


def outbound(value: bytes) -> OutboundRecord:
    headers = (("content-type", b"application/json"), ("kept", b""))
    return OutboundRecord("out", None, value, headers, None, TopicPartition("in", 0))


def test_a_schema_is_registered_once_under_its_topics_name(registry: Registry) -> None:
    outputs = schemas(registry)
    assert [None, None] == [outputs.register("out", "avro") for _ in range(2)]
    assert [("out-value", "AVRO", True)] == registry.asked


def test_a_protobuf_frame_says_that_the_first_message_of_the_schema_follows(registry: Registry) -> None:
    outputs = schemas(registry)
    assert outputs.register("out", "protobuf") is None
    assert [("out-value", "PROTOBUF", True)] == registry.asked
    assert b"\0\0\0\0\7\0\x08\x01" == outputs.framed(outbound(b'{"contract": 1}'), "protobuf").value


def test_a_compiler_that_fails_is_told_and_tried_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = schemas(registry)
    with monkeypatch.context() as broken:
        broken.setattr("sys.executable", "/does/not/exist")
        assert "subject out-value: protoc does not end" == outputs.register("out", "protobuf")
    assert outputs.register("out", "protobuf") is None


@pytest.mark.parametrize("error", [RetryableError("silent"), RefusedSchemaError("incompatible")])
def test_until_it_is_taken_the_reason_is_told_and_it_is_tried_again(registry: Registry, error: Exception) -> None:
    outputs = schemas(registry)
    registry.error = error
    assert f"subject out-value: {error}" == outputs.register("out", "json_schema")
    registry.error = None
    assert outputs.register("out", "json_schema") is None


def test_a_look_registers_nothing(registry: Registry) -> None:
    outputs = schemas(registry)
    assert (None, False) == outputs.look_up("out", "avro")
    registry.error = RefusedSchemaError("not there")
    assert ("not there", True) == outputs.look_up("out", "avro")
    registry.is_open = False
    assert "the registry would refuse the schema" in str(outputs.look_up("out", "avro"))
    registry.error = RetryableError("silent")
    assert ("silent", False) == outputs.look_up("out", "avro")
    assert {False} == {create for _, _, create in registry.asked}


def test_json_is_framed_as_it_is_and_loses_only_its_content_type(registry: Registry) -> None:
    outputs = schemas(registry)
    outputs.register("out", "json_schema")
    found = outputs.framed(outbound(b'{"a": 1}'), "json_schema")
    assert b'\0\0\0\0\7{"a": 1}' == found.value
    assert (("kept", b""),) == found.headers


WORDS = orjson.dumps({"contract": "words of a user"})


@pytest.mark.parametrize(("kind", "value"), [("avro", b"{}"), ("avro", WORDS), ("protobuf", WORDS), ("protobuf", b"[")])
def test_what_cannot_be_written_is_refused_without_a_word_of_it(registry: Registry, kind: str, value: bytes) -> None:
    outputs = schemas(registry)
    outputs.register("out", kind)
    with pytest.raises(MessageError) as caught:
        outputs.framed(outbound(value), kind)
    assert ErrorCode.ENCODE_FAILED == caught.value.code
    assert "words" not in str(caught.value)
