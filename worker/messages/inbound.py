"""What stands where in an input event, and reading it out."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from worker.errors import ErrorCode, MessageError, Stage
from worker.types import JsonValue, Record, Request

Pointer = tuple[str, ...]
"""The reference tokens of a JSON Pointer (RFC 6901), unescaped."""

OVERRIDES = ("labels", "label_schema", "hypothesis_template", "multi_label")
"""What a message may set for itself where its binding allows it."""

Format = Literal["json", "text", "json_schema", "avro", "protobuf", "cloudevents"]
"""How the values of a topic's events are written."""

_ALL_OVERRIDES = frozenset(OVERRIDES)
_NOTHING_SET = (None, None, None, None)
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


@dataclass(frozen=True, slots=True)
class InputFields:
    """Where the values of one topic's events stand; None: not read.

    The defaults read the object that is documented as the input message.
    """

    format: Format = "json"
    """`text`: the whole value is the text, and nothing else is read."""
    text: tuple[Pointer, ...] = (("text",),)
    """Joined by a newline; absent ones are skipped."""
    id: Pointer | None = ("id",)
    labels: Pointer | None = ("labels",)
    label_schema: Pointer | None = ("label_schema",)
    hypothesis_template: Pointer | None = ("hypothesis_template",)
    multi_label: Pointer | None = ("multi_label",)
    max_age_seconds: float | None = None
    """From which age on a record is refused."""
    allowed: frozenset[str] = field(default=_ALL_OVERRIDES)
    """Which of `OVERRIDES` an event may hold."""


class TextLimits(Protocol):
    """How large a text may be."""

    @property
    def text_bytes(self) -> int:
        """Most UTF-8 bytes of a text."""
        ...


class InlineLabel(BaseModel):
    """A label of a set that its message carries."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    name: str = Field(description="What the prediction calls it; unique in the set, not blank.")
    description: str | None = Field(default=None, description="Fills the template instead of the name.")
    hypothesis: str | None = Field(default=None, description="A whole hypothesis, used instead of the template.")
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = Field(
        default=None, description="Least score at which it is selected; null: 0.5 with `multi_label`, else none."
    )


class InputMessage(BaseModel):
    """An input event where its topic's binding names no pointer for the text. Unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)

    text: str = Field(description="What is classified; not blank.")
    id: str | int | None = Field(default=None, description="Stands in the prediction; null: topic/partition/offset.")
    labels: tuple[str | InlineLabel, ...] | None = Field(
        default=None, min_length=1, description="The label set of this message alone; not together with label_schema."
    )
    label_schema: str | None = Field(default=None, description="`name` or `name@version` instead of the topic's own.")
    multi_label: bool | None = Field(default=None, description="True: each label is decided by itself.")
    hypothesis_template: str | None = Field(default=None, description="A sentence with exactly one `{}`.")


def parse_pointer(pointer: str) -> Pointer:
    """The reference tokens of a JSON Pointer.

    Raises:
        ValueError: it is none: it does not start with `/`, or holds a `~` that is neither `~0` nor `~1`.
    """
    if not pointer.startswith("/"):
        raise ValueError("expected a JSON Pointer, which starts with /")
    if "~" in pointer.replace("~0", "").replace("~1", ""):
        raise ValueError("expected a JSON Pointer; ~ is written ~0, and / within a key ~1")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))


def read_pointer(document: JsonValue, pointer: Pointer) -> JsonValue:
    """The value that `pointer` names, or None where there is none (a null is as good as absent)."""
    if len(pointer) == 1 and isinstance(document, dict):
        return document.get(pointer[0])
    value = document
    for part in pointer:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and _ARRAY_INDEX.fullmatch(part) and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def default_id(record: Record) -> str:
    """`topic/partition/offset`."""
    return f"{record.topic}/{record.partition}/{record.offset}"


def read_request(event: JsonValue, record: Record, fields: InputFields, limits: TextLimits) -> Request:
    """What the event of `record` asks for.

    Raises:
        MessageError: a value that is read is missing or not as it should be.
    """
    request_id = _read_id(event, record, fields)
    text = check_text(_read_text(event, fields), limits)
    multi_label = _read(event, fields.multi_label)
    if multi_label is not None and not isinstance(multi_label, bool):
        raise _refused(ErrorCode.FIELD_INVALID, "multi_label: expected true or false")
    label_schema = _read_string(event, fields.label_schema, "label_schema")
    template = _read_string(event, fields.hypothesis_template, "hypothesis_template")
    request = Request(
        id=request_id,
        text=text,
        labels=_read(event, fields.labels),
        label_schema=label_schema,
        hypothesis_template=template,
        multi_label=multi_label,
    )
    if (request.labels, label_schema, template, multi_label) != _NOTHING_SET:
        _check_overrides(request, fields.allowed)
    return request


def check_text(text: str, limits: TextLimits) -> str:
    """`text` itself.

    Raises:
        MessageError: it is blank, or longer than the limit.
    """
    if not text or text.isspace():
        raise _refused(ErrorCode.TEXT_EMPTY, "text: expected more than white space")
    # A character takes one to four bytes: only in between does the text have to be encoded to be measured.
    if len(text) * 4 > limits.text_bytes:
        text_bytes = len(text.encode("utf-8", "surrogatepass"))
        if text_bytes > limits.text_bytes:
            raise _refused(ErrorCode.TEXT_TOO_LARGE, f"text: {text_bytes} bytes, the limit is {limits.text_bytes}")
    return text


def _read_id(event: JsonValue, record: Record, fields: InputFields) -> str:
    value = _read(event, fields.id)
    if value is None:
        return default_id(record)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise _refused(ErrorCode.ID_INVALID, "id: expected a string, or an integer below 2^64")
    return str(value)


def _read_text(event: JsonValue, fields: InputFields) -> str:
    parts: list[str] = []
    for pointer in fields.text:
        value = read_pointer(event, pointer)
        if value is None:
            continue
        if not isinstance(value, str):
            raise _refused(ErrorCode.TEXT_NOT_STRING, "text: expected a string")
        parts.append(value)
    if not parts:
        raise _refused(ErrorCode.TEXT_MISSING, "text: expected a string, there is none")
    return "\n".join(parts)


def _read(event: JsonValue, pointer: Pointer | None) -> JsonValue:
    return None if pointer is None else read_pointer(event, pointer)


def _read_string(event: JsonValue, pointer: Pointer | None, name: str) -> str | None:
    value = _read(event, pointer)
    if value is not None and not isinstance(value, str):
        raise _refused(ErrorCode.FIELD_INVALID, f"{name}: expected a string")
    return value


def _check_overrides(request: Request, allowed: frozenset[str]) -> None:
    given = {name for name in OVERRIDES if getattr(request, name) is not None}
    for name in OVERRIDES:
        if name in given and name not in allowed:
            raise _refused(ErrorCode.OVERRIDE_FORBIDDEN, f"{name}: this topic does not let its messages set it")
    if {"labels", "label_schema"} <= given:
        raise _refused(ErrorCode.LABELS_INVALID, "labels: expected either labels or label_schema, not both")


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.DECODE, reason)
