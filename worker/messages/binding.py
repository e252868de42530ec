"""What a topic's configuration says about its messages: where things are, what is allowed, what comes out."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from worker.documents import MisfitError
from worker.messages.inbound import OVERRIDES, Format, InputFields, Pointer, parse_pointer
from worker.messages.outbound import MAX_RECORD_BYTES, OutputShape
from worker.messages.reference import parse_reference
from worker.types import JsonValue

TOPIC_FIELD = "{topic}"
"""What stands in `output` and `dead_letter` for the name of the input topic."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
FRAME_BYTES = 6
"""What the schema registry's frame adds to a value at most: with Protobuf it also says which message follows."""
REGISTRY_FORMATS = ("json_schema", "avro", "protobuf")
"""Formats whose schemas a schema registry has."""

_POINTERS = ("text", "id", "labels", "label_schema_from", "hypothesis_template_from", "multi_label_from")

Permission = Literal["allow", "forbid"]
Late = Literal["predict", "mark", "dead_letter"]


def not_built_yet(value: JsonValue) -> None:
    """Nothing: the value of a key that is reserved.

    Raises:
        ValueError: the key has a value.
    """
    if value is not None:
        raise ValueError("this version of the worker does not have it; remove the key")


def _listed(value: JsonValue) -> JsonValue:
    return [value] if isinstance(value, str) else value


def _is_pointer(pointer: str) -> str:
    parse_pointer(pointer)
    return pointer


def _is_input(topic: str) -> str:
    if not topic.startswith("^"):
        return _is_topic(topic)
    try:
        re.compile(topic)
    except (re.error, RecursionError, OverflowError):
        raise ValueError("expected a regular expression after ^, in the syntax of Python") from None
    return topic


def _is_topic(topic: str) -> str:
    if topic.startswith("^"):
        raise ValueError("expected a topic's name; only `input` may be a regular expression")
    if not _TOPIC.fullmatch(topic) or topic in {".", ".."}:
        raise ValueError("expected a topic's name: 1 to 249 of A-Z a-z 0-9 . _ -")
    return topic


def _is_pattern(pattern: str) -> str:
    _is_topic(pattern.replace(TOPIC_FIELD, "topic"))
    return pattern


def _is_reference(reference: str) -> str:
    if parse_reference(reference) is None:
        raise ValueError("expected a label schema as name or name@version; `inline` is reserved")
    return reference


def _is_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a name that is not blank")
    return text


def _none_is_empty(value: JsonValue) -> JsonValue:
    return {} if value is None else value


PointerText = Annotated[str, AfterValidator(_is_pointer)]
TopicName = Annotated[str, AfterValidator(_is_topic)]
InputTopic = Annotated[str, AfterValidator(_is_input)]
TopicPattern = Annotated[str, AfterValidator(_is_pattern)]
Reserved = Annotated[None, BeforeValidator(not_built_yet)]


class Overrides(BaseModel):
    """What a message may set for itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    labels: Permission = Field(default="allow", description="A label set of its own.")
    label_schema: Permission = Field(default="allow", description="Another label schema, by name.")
    hypothesis_template: Permission = Field(default="allow", description="Another hypothesis template.")
    multi_label: Permission = Field(default="allow", description="Whether labels exclude each other.")


class Binding(BaseModel):
    """One input topic, or all that a pattern matches, and what becomes of their events."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: InputTopic = Field(
        description="Topic to read, or `^` and a regular expression that names begin with: topics that match, later "
        "ones too, are read, except those that this configuration writes and Kafka's own."
    )
    output: TopicPattern = Field(
        default="{topic}.predictions", description="Topic for predictions; `{topic}` is the input's name."
    )
    dead_letter: TopicPattern = Field(
        default="{topic}.dlq", description="Topic for what cannot be predicted; `{topic}` is the input's name."
    )
    label_schema: Annotated[str, AfterValidator(_is_reference)] | None = Field(
        default=None, description="Label schema, `name` or `name@version`; null: every message brings its labels."
    )
    format: Format = Field(
        default="json",
        description="`json`: a JSON object. `text`: the value is the text. `cloudevents`: the data is the event, in "
        "both modes. `json_schema`, `avro`, `protobuf`: by the schema in the registry that wrote the record.",
    )
    output_format: Literal["json", "json_schema", "avro", "protobuf"] = Field(
        default="json",
        description="Of predictions. `json_schema`, `avro`, `protobuf`: framed, under a schema in the registry, "
        "subject `<output>-value`.",
    )
    text: Annotated[tuple[PointerText, ...], BeforeValidator(_listed), Field(min_length=1)] | None = Field(
        default=None, description="JSON Pointers of the text, joined by a newline; null: the documented input message."
    )
    id: PointerText | None = Field(default=None, description="JSON Pointer of the id; null: topic/partition/offset.")
    labels: PointerText | None = Field(default=None, description="JSON Pointer of a label set for one message.")
    label_schema_from: PointerText | None = Field(default=None, description="JSON Pointer of a label schema's name.")
    hypothesis_template_from: PointerText | None = Field(default=None, description="JSON Pointer of a template.")
    multi_label_from: PointerText | None = Field(default=None, description="JSON Pointer of a boolean.")
    overrides: Overrides = Field(default=Overrides(), description="What a message may set for itself.")
    emit: Literal["envelope", "merge", "prediction"] = Field(
        default="envelope",
        description="`envelope`: prediction with the event inside. `merge`: event with the prediction inside. "
        "`prediction`: no event.",
    )
    merge_field: Annotated[str, AfterValidator(_is_not_blank)] = Field(
        default="prediction", description="Where `merge` puts the prediction; an event that has it is a dead letter."
    )
    timestamp: Literal["input", "now"] = Field(
        default="input", description="Timestamp of a prediction: that of its event, or when it is published."
    )
    routes: Annotated[dict[str, TopicName], BeforeValidator(_none_is_empty)] = Field(
        default_factory=dict,
        description="Label to topic: where a prediction goes in addition, for each selected label or `abstain.label`.",
    )
    max_age_seconds: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        default=None, description="From which age on, by its timestamp, a record is late; null: never."
    )
    late: Late = Field(
        default="dead_letter",
        description="What becomes of late records. `predict`: they are counted. `mark`: their predictions have the "
        "header nli-late. `dead_letter`: they are not predicted.",
    )

    @property
    def is_pattern(self) -> bool:
        """Whether `input` is a pattern; what is asked of a topic is then asked of what `of` gives."""
        return self.input.startswith("^")

    def of(self, topic: str) -> "Binding":
        """This binding for one of the topics that its pattern matches."""
        return self.model_copy(update={"input": topic})

    @property
    def output_topic(self) -> str:
        """Where its predictions go."""
        return self.output.replace(TOPIC_FIELD, self.input)

    @property
    def dead_letter_topic(self) -> str:
        """Where its dead letters go."""
        return self.dead_letter.replace(TOPIC_FIELD, self.input)

    @property
    def topics_written(self) -> tuple[str, ...]:
        """Every topic that its records may go to."""
        return tuple(dict.fromkeys((self.output_topic, self.dead_letter_topic, *self.routes.values())))

    @property
    def frame_bytes(self) -> int:
        """What the output format adds to a prediction in JSON."""
        return 0 if self.output_format == "json" else FRAME_BYTES

    def late_by(self, timestamp_ms: int | None, now_seconds: float) -> float | None:
        """The age in seconds of a record that is late at `now_seconds` since the Unix epoch; None where it is not."""
        if self.max_age_seconds is None or timestamp_ms is None:
            return None
        age_seconds = now_seconds - timestamp_ms / 1000
        return age_seconds if age_seconds > self.max_age_seconds else None

    @cached_property
    def input_fields(self) -> InputFields:
        """Where the values of its events stand."""
        documented = (
            InputFields()
            if self.text is None
            else InputFields(id=None, labels=None, label_schema=None, hypothesis_template=None, multi_label=None)
        )
        permissions = self.overrides.model_dump()
        return InputFields(
            format=self.format,
            text=documented.text if self.text is None else tuple(parse_pointer(pointer) for pointer in self.text),
            id=_pointer_or(self.id, documented.id),
            labels=_pointer_or(self.labels, documented.labels),
            label_schema=_pointer_or(self.label_schema_from, documented.label_schema),
            hypothesis_template=_pointer_or(self.hypothesis_template_from, documented.hypothesis_template),
            multi_label=_pointer_or(self.multi_label_from, documented.multi_label),
            max_age_seconds=self.max_age_seconds if self.late == "dead_letter" else None,
            allowed=frozenset(name for name in OVERRIDES if permissions[name] == "allow"),
        )

    def output_shape(self, max_bytes: int = MAX_RECORD_BYTES) -> OutputShape:
        """How its predictions are written; `max_bytes` is the largest record that can be sent."""
        return OutputShape(
            topic=self.output_topic,
            emit=self.emit,
            merge_field=self.merge_field,
            timestamp=self.timestamp,
            max_bytes=max_bytes,
            format=self.format,
        )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for key in ("output", "dead_letter"):
            _check_template(self, key)
        if self.output_topic == self.dead_letter_topic:
            raise MisfitError(("dead_letter",), "expected a topic other than `output`")
        if {self.output_topic, self.dead_letter_topic} & set(self.routes.values()):
            raise MisfitError(("routes",), "expected topics other than `output` and `dead_letter`")
        if "late" in self.model_fields_set and self.max_age_seconds is None:
            raise MisfitError(("late",), "expected only with `max_age_seconds`")
        for path, expected in _misfits_of_formats(self):
            raise MisfitError(path, expected)
        return self


def _misfits_of_formats(binding: Binding) -> Iterator[tuple[tuple[str], str]]:
    if binding.format == "text":
        for name in _POINTERS:
            if getattr(binding, name) is not None:
                yield (name,), "expected only with `format: json`; the whole value is the text"
    if binding.emit == "merge" and binding.format == "text":
        yield ("emit",), "expected 'envelope' or 'prediction'; a text has no fields to merge into"
    if binding.emit == "merge" and binding.format != "json":
        yield ("emit",), "expected 'envelope' or 'prediction'; only JSON events can be merged into"
    if binding.emit == "merge" and binding.output_format != "json":
        yield ("output_format",), "expected 'json' with `emit: merge`; what is merged into has a schema of its own"
    if binding.format == "cloudevents" and binding.output_format != "json":
        yield ("output_format",), "expected 'json' with `format: cloudevents`; predictions are CloudEvents themselves"


def _check_template(binding: Binding, key: str) -> None:
    template = getattr(binding, key)
    if binding.is_pattern:  # a match may be too long for it: that input then waits for a topic that cannot be
        if TOPIC_FIELD not in template:
            raise MisfitError((key,), "expected {topic} in it, since `input` is a regular expression")
        if template == TOPIC_FIELD:
            raise MisfitError((key,), "expected another topic than the input")
        return
    try:
        _is_topic(template.replace(TOPIC_FIELD, binding.input))
    except ValueError as error:
        raise MisfitError((key,), str(error)) from None


def _pointer_or(written: str | None, default: Pointer | None) -> Pointer | None:
    return default if written is None else parse_pointer(written)
