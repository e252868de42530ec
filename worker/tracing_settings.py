"""The part of the configuration that says where traces go."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TracingSettings(BaseModel):
    """Spans of records and batches, sent by OTLP; nothing is traced without an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: Annotated[str, Field(pattern=r"^https?://[^@?#\s]+$")] | None = Field(
        default=None,
        description="Where an OpenTelemetry collector takes OTLP, as in `http://localhost:4318`; null: nothing is "
        "traced. Needs the extra `otel`.",
    )
    protocol: Literal["http/protobuf", "grpc"] = Field(
        default="http/protobuf", description="How the collector is spoken to; port 4318 is usual, with grpc 4317."
    )
    sample_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=1.0,
        description="Share of the records traced of those that belong to no trace yet; all others follow their trace.",
    )
    service_name: Annotated[str, Field(min_length=1)] = Field(
        default="nli-stream-worker", description="Whose spans they are."
    )
