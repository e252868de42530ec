"""The schemas of what we write: registered under `<topic>-value`, their numbers in front of each value."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from worker.errors import ErrorCode, MessageError, RetryableError, Stage
from worker.kafka.protobuf_schemas import protobuf_writer
from worker.kafka.schema_registry import NOT_TAKEN, RefusedSchemaError, RegistryClient
from worker.kafka.serdes import TYPES, avro_writer, framed
from worker.messages.registered import prediction_avro_schema, prediction_json_schema, with_event_as_text
from worker.messages.registered_protobuf import prediction_proto
from worker.types import OutboundRecord

Writer = Callable[[Mapping[str, Any]], bytes]

log = structlog.get_logger(__name__)


class OutputSchemas:
    """Which topics have their schema, and values in its form. `register` belongs to one thread, the rest to any."""

    def __init__(self, client: RegistryClient, *, create: bool) -> None:
        """`create`: whether schemas that are not there are registered."""
        self._client = client
        self._create = create
        self._ids: dict[tuple[str, str], int] = {}
        self._texts = {
            "avro": json.dumps(prediction_avro_schema()),
            "json_schema": json.dumps(prediction_json_schema()),
            "protobuf": prediction_proto(),
        }
        self._writers: dict[str, Writer | None] = {}

    def register(self, topic: str, output_format: str) -> str | None:
        """Why predictions cannot be written to `topic` for now; None where they can. Blocks the first time."""
        if (topic, output_format) in self._ids:
            return None
        try:
            if output_format not in self._writers:
                self._writers[output_format] = _make_writer(output_format)
            subject, text = f"{topic}-value", self._texts[output_format]
            number = self._client.register(subject, text, TYPES[output_format], create=self._create)
        except (RetryableError, RefusedSchemaError, ValueError) as error:
            return f"subject {topic}-value: {error}"
        log.info("registry_schema.registered", topic=topic, schema=number)
        self._ids[topic, output_format] = number
        return None

    def look_up(self, topic: str, output_format: str) -> tuple[str | None, bool]:
        """Why our schema is not to be had for `topic`, None where it is; and whether it is only missing. Blocks."""
        try:
            self._client.register(f"{topic}-value", self._texts[output_format], TYPES[output_format], create=False)
        except RefusedSchemaError as error:
            return self._refusal(f"{topic}-value", output_format) or (str(error), True)
        except RetryableError as error:
            return str(error), False
        return None, False

    def doubt(self, topic: str, output_format: str) -> str | None:
        """What will stand in the way of a later version's schema for `topic`, and what to do about it. Blocks.

        Our JSON Schema allows no field but its own: what a longer one adds, readers by the former refuse.

        Raises:
            RetryableError: the registry does not answer, or refuses us.
        """
        if output_format != "json_schema":
            return None
        rule = self._client.compatibility(f"{topic}-value")
        if rule is None or not rule.startswith(("FORWARD", "FULL")):
            return None
        return (
            f"its compatibility is {rule}, under which a later version's JSON Schema with one more field is "
            "refused, and an upgrade stops: set it to BACKWARD"
        )

    def _refusal(self, subject: str, output_format: str) -> tuple[str, bool] | None:
        """Why our schema would not be taken under `subject`; None where it would."""
        try:
            if self._client.takes(subject, self._texts[output_format], TYPES[output_format]):
                return None
        except RetryableError as error:
            return str(error), False
        return NOT_TAKEN, False

    def framed(self, record: OutboundRecord, output_format: str) -> OutboundRecord:
        """`record`, a prediction in JSON, as `output_format` with its frame.

        Raises:
            MessageError: `encode_failed`.
        """
        body = record.value or b""
        try:
            write = self._writers[output_format]
            if write is not None:
                body = write(with_event_as_text(body))
            value = framed(self._ids[record.topic, output_format], body)
        except Exception:  # noqa: BLE001  whatever it is, it is about this record, and must not be quoted
            reason = f"output: the prediction cannot be written as {output_format}"
            raise MessageError(ErrorCode.ENCODE_FAILED, Stage.ENCODE, reason) from None
        # The content type of what was JSON is not that of a frame; readers go by the frame.
        headers = tuple(header for header in record.headers if header[0] != "content-type")
        return replace(record, value=value, headers=headers)


def _make_writer(output_format: str) -> Writer | None:
    """What writes predictions in `output_format`; None where they are JSON already. Blocks."""
    if output_format == "avro":
        return avro_writer(prediction_avro_schema())
    return protobuf_writer(prediction_proto()) if output_format == "protobuf" else None
