"""Steps 2 and 10 of the path: bytes to requests, predictions to bytes. Pure."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from worker.errors import ErrorCode, MessageError, Stage
from worker.messages.cloud_events import STRUCTURED, is_event_attribute, prediction_headers, read_cloud_event
from worker.messages.inbound import InputFields, TextLimits, check_text, default_id, read_pointer, read_request
from worker.messages.json_text import decode_utf8, parse_event
from worker.messages.outbound import CONTRACT, OutputShape, Stamps
from worker.types import Headers, JsonValue, LabelScore, OutboundRecord, Prediction, Record, Request

ReadValue = Callable[[Record], JsonValue]
"""The plain value of a record; raises MessageError."""

SCHEMA_ID_HEADER = "__value_schema_id"
"""Where newer clients of the schema registry say by which schema a value was written."""
_OF_VALUE = ("apicurio.value.", "apicurio.protobuf.")
"""How headers begin in which serializers of Apicurio Registry speak of the value."""
LATE_HEADER = "nli-late"
"""On predictions of records that were late: their age in whole seconds."""
ROUTED_HEADER = "nli-routed"
"""On copies: the label that they are for."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RECORD_OVERHEAD_BYTES = 128
"""More than a record and the batch around it add (61 bytes and some 40; Kafka message format 2)."""
_HEADER_OVERHEAD_BYTES = 10


def decode(
    record: Record,
    fields: InputFields,
    limits: TextLimits,
    now_seconds: float | None = None,
    read: ReadValue | None = None,
) -> Request:
    """What `record` asks for. Inline labels are handed on unchecked.

    `now_seconds` since the Unix epoch is what its age is measured by; without it no record is too old.
    `read` gives the plain values of records whose schemas a registry has.

    Raises:
        MessageError: at the stage `decode`; nothing else, whatever the bytes.
    """
    if record.has_unreadable_headers:
        raise MessageError(ErrorCode.PAYLOAD_INVALID, Stage.DECODE, "headers: expected names in UTF-8")
    if record.value is None:
        raise MessageError(ErrorCode.VALUE_NULL, Stage.DECODE, "value: expected a value, it is null")
    if fields.format == "text":
        text = decode_utf8(record.value)
        _check_age(record, fields, now_seconds)
        return Request(id=default_id(record), text=check_text(text, limits))
    if fields.format == "cloudevents":
        return _decode_cloud_event(record, fields, limits, now_seconds)
    event = parse_event(record.value) if fields.format == "json" else _read_framed(record, read)
    _check_age(record, fields, now_seconds)
    return read_request(event, record, fields, limits)


def _read_framed(record: Record, read: ReadValue | None) -> JsonValue:
    if read is None:
        raise RuntimeError("This is a bug. A format of the schema registry is read without one.")
    event = read(record)
    if not isinstance(event, dict):
        raise MessageError(ErrorCode.VALUE_NOT_OBJECT, Stage.DECODE, "value: expected a record with fields")
    return event


def _decode_cloud_event(record: Record, fields: InputFields, limits: TextLimits, now_seconds: float | None) -> Request:
    event = read_cloud_event(record)
    _check_age(record, fields, now_seconds)
    if isinstance(event.data, str):
        return Request(id=event.id, text=check_text(event.data, limits))
    request = read_request(event.data, record, fields, limits)
    has_own_id = fields.id is not None and read_pointer(event.data, fields.id) is not None
    return request if has_own_id else replace(request, id=event.id)


def _check_age(record: Record, fields: InputFields, now_seconds: float | None) -> None:
    if fields.max_age_seconds is None or now_seconds is None or record.timestamp_ms is None:
        return
    age_seconds = now_seconds - record.timestamp_ms / 1000
    if age_seconds > fields.max_age_seconds:
        reason = f"timestamp: {age_seconds:.0f} s old, the limit `max_age_seconds` is {fields.max_age_seconds:g}"
        raise MessageError(ErrorCode.EXPIRED, Stage.DECODE, reason)


def encode(
    prediction: Prediction, request: Request, record: Record, stamps: Stamps, shape: OutputShape
) -> OutboundRecord:
    """The record to publish for `record`: its key and headers, with `prediction` as JSON.

    An envelope that would be too large goes out without its event.

    Raises:
        MessageError: at the stage `encode`: `merge_field_taken`, `encode_failed` or `output_too_large`.
    """
    model = stamps.model
    # Looked up by strings: those compare in no time, a stamp as a whole does not.
    stamp = (model.name, model.digest, model.engine, model.precision)
    frame = _frame(stamps.schema_name, stamps.schema_version, stamps.schema_digest, stamp, prediction.calibrated)
    message = _laid_out(prediction, request, frame, stamps.scored_at, {"source": _source(record)})
    headers, headers_bytes = _headers(record, stamps, shape)
    value = _write(message, record, shape)
    size = _RECORD_OVERHEAD_BYTES + len(record.key or b"") + len(value) + headers_bytes
    if shape.emit == "envelope" and size > shape.max_bytes:
        value = _dump({**message, "event_omitted": True})
        size = record_bytes(record.key, value, headers)
    if size > shape.max_bytes:
        raise _refused(ErrorCode.OUTPUT_TOO_LARGE, f"output: {size} bytes, the limit is {shape.max_bytes}")
    return OutboundRecord(
        topic=shape.topic,
        key=record.key,
        value=value,
        headers=headers,
        timestamp_ms=record.timestamp_ms if shape.timestamp == "input" else None,
        source=record.source,
    )


def prediction_object(prediction: Prediction, request: Request, stamps: Stamps) -> dict[str, JsonValue]:
    """The prediction as plain JSON in the order of the contract, without `source` and `event`.

    Raises:
        MessageError: `encode_failed`, where a score is not a finite number.
    """
    model = stamps.model
    frame = _Frame(
        {"name": stamps.schema_name, "version": stamps.schema_version, "digest": stamps.schema_digest},
        {
            "name": model.name,
            "digest": model.digest,
            "engine": model.engine,
            "precision": model.precision,
            "calibrated": prediction.calibrated,
        },
    )
    return _laid_out(prediction, request, frame, stamps.scored_at, {})


class _Frame(NamedTuple):
    """What predictions have in common, as JSON values or already written."""

    schema: Any
    model: Any


@lru_cache(maxsize=256)
def _frame(name: str, version: int, digest: str, model: tuple[str, str, str, str], calibrated: bool) -> _Frame:  # noqa: FBT001
    """The frame of all predictions under one label schema, written once."""
    stamp = dict(zip(("name", "digest", "engine", "precision"), model, strict=True))
    schema = _dump({"name": name, "version": version, "digest": digest})
    return _Frame(orjson.Fragment(schema), orjson.Fragment(_dump({**stamp, "calibrated": calibrated})))


def _laid_out(
    prediction: Prediction, request: Request, frame: _Frame, scored_at: str, source: dict[str, JsonValue]
) -> dict[str, Any]:
    """The fields of a prediction in the order of the contract."""
    # A sum is finite only if all it is made of is.
    if not math.isfinite(sum([item.score for item in prediction.scores])):
        raise _refused(ErrorCode.ENCODE_FAILED, "scores: expected finite numbers")
    text, pairs = prediction.text, prediction.pairs
    return {
        "contract": CONTRACT,
        "id": request.id,
        "mode": prediction.mode,
        "label": prediction.label,
        "selected": [*prediction.selected],
        "scores": [_score(item) for item in prediction.scores],
        **({} if prediction.template_spread is None else {"template_spread": prediction.template_spread}),
        "schema": frame.schema,
        "model": frame.model,
        **source,
        "text": {"tokens": text.tokens, "tokens_dropped": text.tokens_dropped, "windows": text.windows},
        "pairs": {"scored": pairs.scored, "cached": pairs.cached, "skipped": pairs.skipped},
        "scored_at": scored_at,
    }


def _score(item: LabelScore) -> dict[str, JsonValue]:
    score: dict[str, JsonValue] = {"label": item.label, "score": item.score}
    return score if item.path is None else {**score, "path": [*item.path]}


def utc_timestamp(milliseconds: int) -> str | None:
    """RFC 3339 with milliseconds, in UTC; None before year 1 and after year 9999."""
    seconds, rest = divmod(milliseconds, 1000)
    start = _utc_second(seconds)
    return None if start is None else f"{start}.{rest:03d}Z"


@lru_cache(maxsize=1024)
def _utc_second(seconds: int) -> str | None:
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None
    return moment.isoformat(timespec="seconds").removesuffix("+00:00")


def replace_headers(headers: Headers, ours: Sequence[tuple[str, bytes]]) -> Headers:
    """`headers` without those that have one of our names, then ours."""
    names = {name for name, _ in ours}
    return (*(header for header in headers if header[0] not in names), *ours)


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """What a record takes on the wire, uncompressed; never less than the truth."""
    return len(key or b"") + len(value or b"") + _headers_bytes(headers) + _RECORD_OVERHEAD_BYTES


def _headers_bytes(headers: Headers) -> int:
    return sum(len(_header_name(name)) + len(held or b"") + _HEADER_OVERHEAD_BYTES for name, held in headers)


def _header_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _headers(record: Record, stamps: Stamps, shape: OutputShape) -> tuple[Headers, int]:
    """The headers of a prediction, and what they take of a record."""
    ours, ours_bytes = _own_headers(stamps.schema_name, stamps.schema_version, stamps.model.name, stamps.model.digest)
    routed_for, is_cloud_event = shape.routed_for, shape.format == "cloudevents"
    if not record.headers and stamps.late_seconds is None and routed_for is None and not is_cloud_event:
        return ours, ours_bytes
    late = () if stamps.late_seconds is None else ((LATE_HEADER, str(int(stamps.late_seconds)).encode()),)
    routed = () if routed_for is None else ((ROUTED_HEADER, routed_for.encode()),)
    attributes = prediction_headers(record, stamps.scored_at) if is_cloud_event else ()
    # They speak of this very prediction: what an event brings from a prediction before it is not true of it.
    untrue = {LATE_HEADER, ROUTED_HEADER, SCHEMA_ID_HEADER}
    if is_cloud_event:
        untrue |= {name for name, _ in record.headers if is_event_attribute(name)}
    kept = tuple(header for header in record.headers if not (header[0] in untrue or header[0].startswith(_OF_VALUE)))
    headers = replace_headers(kept, (*ours, *late, *routed, *attributes))
    return headers, _headers_bytes(headers)


@lru_cache(maxsize=256)
def _own_headers(name: str, version: int, model: str, digest: str) -> tuple[tuple[tuple[str, bytes], ...], int]:
    ours = (
        ("nli-schema", f"{name}@{version}".encode()),
        ("nli-model", f"{model}@{digest}".encode()),
        ("content-type", b"application/json"),
    )
    return ours, _headers_bytes(ours)


def _source(record: Record) -> JsonValue:
    timestamp = None if record.timestamp_ms is None else utc_timestamp(record.timestamp_ms)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": timestamp,
    }


def _write(message: dict[str, Any], record: Record, shape: OutputShape) -> bytes:
    event = record.value or b""
    if shape.emit == "prediction":
        return _dump(message)
    if shape.emit == "merge":
        return _merge(_dump(message), event, shape.merge_field)
    if shape.format == "json" or (shape.format == "cloudevents" and _is_json(record)):
        return _dump({**message, "event": orjson.Fragment(event)})
    return _dump({**message, "event_base64": base64.b64encode(event).decode("ascii")})


def _is_json(record: Record) -> bool:
    """Whether the value of a CloudEvent is a JSON object as it stands."""
    content_type = next((v or b"" for name, v in record.headers if name.lower() == "content-type"), b"")
    if content_type.startswith(STRUCTURED.encode()):
        return True
    return not content_type.lower().startswith(b"text/")


def _merge(prediction: bytes, event: bytes, field: str) -> bytes:
    """The bytes of the event, with one more field at its end."""
    parsed = parse_event(event)
    if field in parsed:
        raise _refused(ErrorCode.MERGE_FIELD_TAKEN, "merge_field: the event has a field of this name")
    head = event.rstrip()[:-1].rstrip()
    comma = b"," if parsed else b""
    return b"".join((head, comma, orjson.dumps(field), b":", prediction, b"}"))


def _dump(message: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:
        raise _refused(ErrorCode.ENCODE_FAILED, "output: a string that is no Unicode") from None


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.ENCODE, reason)
