"""Steps 2 and 10 of the path: bytes to requests, predictions to bytes. Pure."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
    message = prediction_object(prediction, request, stamps)
    message = _placed_after(message, "model", {"source": _source(record)})
    headers = _headers(record, stamps, shape)
    value = _write(message, record, shape)
    if shape.emit == "envelope" and record_bytes(record.key, value, headers) > shape.max_bytes:
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
    if not all(math.isfinite(item.score) for item in prediction.scores):
        raise _refused(ErrorCode.ENCODE_FAILED, "scores: expected finite numbers")
    model = stamps.model
    return {
        "contract": CONTRACT,
        "id": request.id,
        "mode": prediction.mode,
        "label": prediction.label,
        "selected": list(prediction.selected),
        "scores": [_score(item) for item in prediction.scores],
        **({} if prediction.template_spread is None else {"template_spread": prediction.template_spread}),
        "schema": {"name": stamps.schema_name, "version": stamps.schema_version, "digest": stamps.schema_digest},
        "model": {
            "name": model.name,
            "digest": model.digest,
            "engine": model.engine,
            "precision": model.precision,
            "calibrated": prediction.calibrated,
        },
        "text": {
            "tokens": prediction.text.tokens,
            "tokens_dropped": prediction.text.tokens_dropped,
            "windows": prediction.text.windows,
        },
        "pairs": {
            "scored": prediction.pairs.scored,
            "cached": prediction.pairs.cached,
            "skipped": prediction.pairs.skipped,
        },
        "scored_at": stamps.scored_at,
    }


def _score(item: LabelScore) -> dict[str, JsonValue]:
    score: dict[str, JsonValue] = {"label": item.label, "score": float(item.score)}
    return score if item.path is None else {**score, "path": [*item.path]}


def utc_timestamp(milliseconds: int) -> str | None:
    """RFC 3339 with milliseconds, in UTC; None before year 1 and after year 9999."""
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def replace_headers(headers: Headers, ours: Sequence[tuple[str, bytes]]) -> Headers:
    """`headers` without those that have one of our names, then ours."""
    names = {name for name, _ in ours}
    return (*(header for header in headers if header[0] not in names), *ours)


def record_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """What a record takes on the wire, uncompressed; never less than the truth."""
    held = sum(len(_header_name(name)) + len(held or b"") + _HEADER_OVERHEAD_BYTES for name, held in headers)
    return len(key or b"") + len(value or b"") + held + _RECORD_OVERHEAD_BYTES


def _header_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _headers(record: Record, stamps: Stamps, shape: OutputShape) -> Headers:
    ours = [
        ("nli-schema", f"{stamps.schema_name}@{stamps.schema_version}".encode()),
        ("nli-model", f"{stamps.model.name}@{stamps.model.digest}".encode()),
        ("content-type", b"application/json"),
    ]
    if stamps.late_seconds is not None:
        ours.append((LATE_HEADER, str(int(stamps.late_seconds)).encode()))
    if shape.routed_for is not None:
        ours.append((ROUTED_HEADER, shape.routed_for.encode()))
    # They speak of this very prediction: what an event brings from a prediction before it is not true of it.
    untrue = {LATE_HEADER, ROUTED_HEADER, SCHEMA_ID_HEADER}
    if shape.format == "cloudevents":
        ours += prediction_headers(record, stamps.scored_at)
        untrue |= {name for name, _ in record.headers if is_event_attribute(name)}
    kept = tuple(header for header in record.headers if header[0] not in untrue)
    return replace_headers(kept, ours)


def _source(record: Record) -> JsonValue:
    timestamp = None if record.timestamp_ms is None else utc_timestamp(record.timestamp_ms)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": timestamp,
    }


def _placed_after(message: dict[str, JsonValue], key: str, more: dict[str, JsonValue]) -> dict[str, JsonValue]:
    placed: dict[str, JsonValue] = {}
    for name, value in message.items():
        placed[name] = value
        if name == key:
            placed |= more
    return placed


def _write(message: dict[str, JsonValue], record: Record, shape: OutputShape) -> bytes:
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
