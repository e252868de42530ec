"""Registry-framed bytes to plain values, and JSON to registry-framed bytes.

A record is decoded by the schema that wrote it, whatever others its topic has, with the libraries that
confluent-kafka's own deserializers use; those themselves would ask the registry in the middle of decoding.
"""

import base64
import datetime as dt
import io
import struct
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from worker.errors import ErrorCode, MessageError, Stage
from worker.kafka.apicurio import check_id, schema_in_headers
from worker.kafka.protobuf_schemas import protobuf_reader
from worker.kafka.schema_registry import RegisteredText, SchemaKey, as_json
from worker.messages.codec import SCHEMA_ID_HEADER
from worker.messages.json_text import parse_event
from worker.types import JsonValue, Record

Reader = Callable[[bytes], JsonValue]
"""The plain value of what follows the frame."""

TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF", "json_schema": "JSON"}
"""The registry's word for each of our formats."""

_BY_ID, _BY_GUID = 0, 1
_ID = struct.Struct(">bI")
_GUID_BYTES = 17


def framed(schema_id: int, body: bytes) -> bytes:
    """`body` with the number of its schema in front."""
    return _ID.pack(_BY_ID, schema_id) + body


def split_frame(record: Record) -> tuple[SchemaKey, bytes]:
    """Which schema wrote the value of `record`, and what it wrote.

    Raises:
        MessageError: `value_null`, or `payload_invalid`: no frame, or one that the registry cannot be asked about.
    """
    if record.value is None:
        raise _refused(ErrorCode.VALUE_NULL, "value: expected a value, it is null")
    for name, value in record.headers:
        if name == SCHEMA_ID_HEADER and value:
            key, _ = _key_of(value)
            return key, record.value
    return (schema_in_headers(record) if record.headers else None) or _key_of(record.value)


def _key_of(value: bytes) -> tuple[SchemaKey, bytes]:
    if len(value) >= _ID.size and value[0] == _BY_ID:
        schema_id: int = _ID.unpack_from(value)[1]
        check_id(schema_id)
        return schema_id, value[_ID.size :]
    if len(value) >= _GUID_BYTES and value[0] == _BY_GUID:
        return str(uuid.UUID(bytes=value[1:_GUID_BYTES])), value[_GUID_BYTES:]
    raise _refused(ErrorCode.PAYLOAD_INVALID, "value: expected the frame of the registry: a zero byte and a schema id")


def make_reader(schema: RegisteredText) -> Reader:
    """What decodes a value that `schema` wrote.

    Raises:
        ValueError: the schema itself cannot be read.
    """
    if schema.type == "JSON":
        return parse_event
    read = protobuf_reader(schema.text, schema.references) if schema.type == "PROTOBUF" else _avro_reader(schema)

    def guarded(body: bytes) -> JsonValue:
        try:
            return plain(read(body))
        except Exception:  # noqa: BLE001  bytes that are no value of the schema raise anything; none of it may be told
            reason = "value: expected what its schema says; the bytes cannot be read by it"
            raise _refused(ErrorCode.PAYLOAD_INVALID, reason) from None

    return guarded


def _avro_reader(schema: RegisteredText) -> Callable[[bytes], Any]:
    import fastavro  # noqa: PLC0415  an extra

    named: dict[str, Any] = {}
    try:
        for text in schema.references.values():
            fastavro.parse_schema(as_json(text), named_schemas=named)
        parsed = fastavro.parse_schema(as_json(schema.text), named_schemas=named)
    except Exception as error:  # noqa: BLE001  whatever is wrong with it
        raise ValueError(type(error).__name__) from None
    return lambda body: fastavro.schemaless_reader(io.BytesIO(body), parsed, None)


def avro_writer(schema: Mapping[str, object]) -> Callable[[Mapping[str, Any]], bytes]:
    """What encodes a value by `schema`."""
    import fastavro  # noqa: PLC0415  an extra

    parsed = fastavro.parse_schema(dict(schema))

    def write(value: Mapping[str, Any]) -> bytes:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, parsed, value)
        return body.getvalue()

    return write


def plain(value: Any) -> JsonValue:  # noqa: ANN401  whatever a deserializer gives
    """`value` in terms of JSON: a moment or a decimal is a string, bytes are `{"base64": …}` and no text."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    return str(value)


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.DECODE, reason)
