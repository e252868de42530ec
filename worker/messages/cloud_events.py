"""CloudEvents 1.0 in Kafka, binary and structured: what the event is, and how ours are written."""

import base64
import binascii
from typing import NamedTuple

from worker.errors import ErrorCode, MessageError, Stage
from worker.messages.json_text import decode_utf8, parse_event
from worker.types import Headers, JsonValue, Record

PREDICTION_TYPE = "nli.prediction.v1"
"""The type of our events; rises with the contract."""
STRUCTURED = "application/cloudevents"
"""How the content type of a structured event begins."""

_CONTENT_TYPE = "content-type"
_PREFIX = "ce_"
_VERSIONS = frozenset({"1.0", "0.3"})
_TEXT = "text/"
_JSON_ENDS = ("/json", "+json")


class CloudEvent(NamedTuple):
    """What of an event is read."""

    id: str
    data: JsonValue
    """An object of JSON, or a text."""


def read_cloud_event(record: Record) -> CloudEvent:
    """The event in `record`, whichever mode it came in.

    Raises:
        MessageError: it is none, or its data is neither JSON nor a text.
    """
    value = record.value
    if value is None:
        raise _refused(ErrorCode.VALUE_NULL, "value: expected a value, it is null")
    content_type = _header(record.headers, _CONTENT_TYPE)
    if content_type.startswith(STRUCTURED):
        return _structured(value, content_type)
    if _header(record.headers, f"{_PREFIX}specversion") not in _VERSIONS:
        reason = "headers: expected those of a CloudEvent: ce_specversion, or the content-type of a structured one"
        raise _refused(ErrorCode.PAYLOAD_INVALID, reason)
    return CloudEvent(_id(_header(record.headers, f"{_PREFIX}id")), _data(value, content_type))


def prediction_headers(record: Record, time: str) -> list[tuple[str, bytes]]:
    """The attributes of the event that a prediction of `record` is, in binary mode: the same for the same record."""
    attributes = {
        "specversion": "1.0",
        "id": f"{record.topic}-{record.partition}-{record.offset}",
        "source": f"/{record.topic}",
        "type": PREDICTION_TYPE,
        "time": time,
        "subject": _subject(record),
    }
    return [(f"{_PREFIX}{name}", value.encode()) for name, value in attributes.items() if value is not None]


def is_event_attribute(header: str) -> bool:
    """Whether a header speaks of the input event: an attribute that would be untrue of a prediction."""
    return header in _ATTRIBUTES


_ATTRIBUTES = frozenset(
    f"{_PREFIX}{name}"
    for name in ("specversion", "id", "source", "type", "time", "subject", "dataschema", "datacontenttype")
)


def _structured(value: bytes, content_type: str) -> CloudEvent:
    if not content_type.partition(";")[0].strip().endswith("+json"):
        raise _refused(ErrorCode.PAYLOAD_INVALID, "content-type: expected application/cloudevents+json")
    event = parse_event(value)
    if event.get("specversion") not in _VERSIONS:
        raise _refused(ErrorCode.PAYLOAD_INVALID, "value: expected a CloudEvent with specversion 1.0")
    identity = event.get("id")
    data = event.get("data")
    encoded = event.get("data_base64")
    if data is None and isinstance(encoded, str):
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise _refused(ErrorCode.PAYLOAD_INVALID, "data_base64: expected base 64") from None
        kind = event.get("datacontenttype")
        data = _data(raw, kind if isinstance(kind, str) else "")
    if not isinstance(data, (dict, str)):
        raise _refused(ErrorCode.VALUE_NOT_OBJECT, "data: expected a JSON object, or a text")
    return CloudEvent(_id(identity if isinstance(identity, str) else ""), data)


def _data(value: bytes, content_type: str) -> JsonValue:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith(_TEXT):
        return decode_utf8(value)
    if kind and not kind.endswith(_JSON_ENDS):
        raise _refused(ErrorCode.PAYLOAD_INVALID, "content-type: expected JSON or a text")
    return parse_event(value)


def _id(text: str) -> str:
    if not text:
        raise _refused(ErrorCode.ID_INVALID, "id: expected the id of the CloudEvent")
    return text


def _subject(record: Record) -> str | None:
    """That of a binary event; a structured one keeps it in its value."""
    return _header(record.headers, f"{_PREFIX}subject") or None


def _header(headers: Headers, name: str) -> str:
    values = [value for key, value in headers if key.lower() == name]
    return (values[-1] or b"").decode("utf-8", "replace") if values else ""


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.DECODE, reason)
