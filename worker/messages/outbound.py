"""What a prediction looks like on the wire."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.messages.inbound import Format
from worker.types import ModelStamp

CONTRACT = 1
"""Rises only with a breaking change."""

MAX_RECORD_BYTES = 1_000_000
"""What a Kafka client sends at most unless told otherwise (librdkafka's `message.max.bytes`)."""

_OPEN = ConfigDict(frozen=True, hide_input_in_errors=True)


@dataclass(frozen=True, slots=True)
class OutputShape:
    """How the predictions of one binding are written."""

    topic: str
    emit: Literal["envelope", "merge", "prediction"] = "envelope"
    merge_field: str = "prediction"
    timestamp: Literal["input", "now"] = "input"
    max_bytes: int = MAX_RECORD_BYTES
    format: Format = "json"
    """That of the input: JSON is embedded as it is, anything else in base64."""
    routed_for: str | None = None
    """The label that a copy is for; None for the prediction itself."""


@dataclass(frozen=True, slots=True)
class Stamps:
    """What a prediction says of how it came about."""

    schema_name: str
    schema_version: int
    schema_digest: str
    model: ModelStamp
    scored_at: str
    """RFC 3339, in UTC."""
    late_seconds: float | None = None
    """The record's age, where it was late and is to be marked."""


class ScoreField(BaseModel):
    """One label and its score."""

    model_config = _OPEN

    label: str = Field(description="Its name in the label schema.")
    score: float = Field(
        ge=0.0,
        le=1.0,
        description="Single: share among siblings. Multi: by itself. In a hierarchy: the product along its path.",
    )
    path: tuple[str, ...] | None = Field(
        default=None, description="From the root of a hierarchy down to the label; where it is selected."
    )


class SchemaField(BaseModel):
    """Which label schema was in force."""

    model_config = _OPEN

    name: str = Field(description="`inline` for a label set that the message carried.")
    version: int = Field(ge=0, description="0 for `inline`.")
    digest: str = Field(description="sha256 of the label schema; of what took effect where the message set something.")


class ModelField(BaseModel):
    """Which model made the scores."""

    model_config = _OPEN

    name: str = Field(description="As configured.")
    digest: str = Field(description="sha256 over the model's files.")
    engine: str = Field(description="What ran it.")
    precision: str = Field(description="What it computed in.")
    calibrated: bool = Field(description="True where the label schema corrects the scores of this very model.")


class SourceField(BaseModel):
    """Which record the prediction is of."""

    model_config = _OPEN

    topic: str = Field(description="Input topic.")
    partition: int = Field(description="Input partition.")
    offset: int = Field(description="Offset of the input record.")
    timestamp: str | None = Field(description="The input record's, RFC 3339 in UTC; null where it has none.")


class TextField(BaseModel):
    """How much of the text the model saw."""

    model_config = _OPEN

    tokens: int = Field(description="Tokens scored.")
    tokens_dropped: int = Field(description="Tokens cut away because the model takes no more.")
    windows: int = Field(description="Into how many windows the text was split; 1: none.")


class PairsField(BaseModel):
    """What the prediction cost."""

    model_config = _OPEN

    scored: int = Field(description="Text and hypothesis pairs that the model scored.")
    cached: int = Field(description="Pairs whose scores came from a cache.")
    skipped: int = Field(description="Pairs that were left out.")


class PredictionMessage(BaseModel):
    """A prediction. Fields are only ever added while `contract` stays; a reader ignores those it does not know."""

    model_config = _OPEN

    contract: Literal[1] = Field(description="Rises only with a breaking change.")
    id: str = Field(description="The event's own, else topic/partition/offset.")
    mode: Literal["single", "multi"] = Field(description="Whether labels exclude each other.")
    label: str | None = Field(description="The winner; `abstain.label` or null where none is selected; null in multi.")
    selected: tuple[str, ...] = Field(description="The winner, or every label over its threshold, or none.")
    scores: tuple[ScoreField, ...] = Field(description="By falling score; selected labels are always among them.")
    template_spread: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="With several templates: the largest difference between scores that single ones would give.",
    )
    schema_: SchemaField = Field(alias="schema", description="Which label schema was in force.")
    model: ModelField = Field(description="Which model made the scores.")
    source: SourceField = Field(description="Which record the prediction is of.")
    text: TextField = Field(description="How much of the text the model saw.")
    pairs: PairsField = Field(description="What the prediction cost.")
    scored_at: str = Field(description="When it was decided, RFC 3339 in UTC.")
    event: dict[str, object] | None = Field(default=None, description="The input event, byte for byte; envelope only.")
    event_base64: str | None = Field(default=None, description="The input value, where it is not JSON; envelope only.")
    event_omitted: bool | None = Field(default=None, description="True where the event would not fit into the record.")
