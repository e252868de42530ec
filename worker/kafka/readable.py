"""Records are handed on once the schema that wrote them is at hand; until then they and their partition wait."""

from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from worker.clock import Clock
from worker.errors import ErrorCode, MessageError, RetryableError, Stage
from worker.kafka.schema_registry import (
    AnsweredError,
    RefusedSchemaError,
    RegistryClient,
    SchemaKey,
    UnknownSchemaError,
)
from worker.kafka.serdes import TYPES, Reader, make_reader, split_frame
from worker.observability.health import Readiness
from worker.types import JsonValue, Record, TopicPartition

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0)
FORGET_UNKNOWN_SECONDS = 30.0
"""After how long the registry is asked again for a schema that it did not have: somebody may have mended that."""
UNKNOWN_KEPT = 4096
"""Schemas kept in mind that the registry did not have: bytes that only look framed name another one in every record."""
_REASON = "registry"
_ANY = 1
"""A schema that most registries have; whether this one does says nothing."""

log = structlog.get_logger(__name__)


class SchemaShelf:
    """The schemas met so far. `prepare` may ask the registry and belongs to one thread; `read` never does."""

    def __init__(
        self, client: RegistryClient, format_of: Callable[[str], str | None], readiness: Readiness, clock: Clock
    ) -> None:
        """`format_of` gives the format of a topic's values; only those of the registry are looked at."""
        self._client = client
        self._format_of = format_of
        self._readiness = readiness
        self._clock = clock
        self._readers: dict[SchemaKey, tuple[str, Reader] | None] = {}
        self._unknown: dict[SchemaKey, float] = {}
        self._failures = 0
        self._retry_at = 0.0
        self._retry_alone_at: dict[SchemaKey, float] = {}

    def prepare(self, record: Record) -> None:
        """Have at hand what `record` needs to be read. Blocks while the registry is asked.

        Raises:
            RetryableError: it does not answer, now or a moment ago.
        """
        if self._format_of(record.topic) not in TYPES:
            return
        try:
            key, _ = split_frame(record)
        except MessageError:
            return  # `read` says so
        now = self._clock.monotonic()
        if key in self._readers or now < self._unknown.get(key, float("-inf")):
            return
        if now < max(self._retry_at, self._retry_alone_at.get(key, 0.0)):
            raise RetryableError("the schema registry does not answer")
        self._readers.pop(key, None)
        self._fetch(key)

    def read(self, record: Record) -> JsonValue:
        """The plain value of `record`. Asks nobody.

        Raises:
            MessageError: `registry_schema_unknown`, or `payload_invalid`.
        """
        key, body = split_frame(record)
        found = self._readers.get(key)
        if found is None:
            reason = "value: expected a schema that the registry has" if key not in self._readers else _UNREADABLE
            raise MessageError(ErrorCode.REGISTRY_SCHEMA_UNKNOWN, Stage.DECODE, reason)
        kind, read = found
        if kind != TYPES[str(self._format_of(record.topic))]:
            reason = f"value: expected the format of its topic; its schema is of type {kind.lower()}"
            raise MessageError(ErrorCode.PAYLOAD_INVALID, Stage.DECODE, reason)
        return read(body)

    def obstacle(self) -> str | None:
        """Why the registry cannot be used, None where it can. Blocks."""
        try:
            self._client.fetch(_ANY)
        except UnknownSchemaError:
            return None
        except RetryableError as error:
            return str(error)
        return None

    def idle(self) -> None:
        """Nobody waits for the registry any more."""
        if self._failures:
            self._failures = 0
            self._retry_alone_at.clear()
            self._readiness.clear(_REASON)

    def _fetch(self, key: SchemaKey) -> None:
        try:
            schema = self._client.fetch(key)
        except (UnknownSchemaError, RefusedSchemaError):
            log.warning("registry_schema.not_found", schema=key)
            self._note_unknown(key)
        except RetryableError as error:
            self._note_failure(key, error)
            raise
        except Exception as error:  # noqa: BLE001  whatever the registry says of one schema, it hurts only its records
            log.warning("registry_schema.unreadable", schema=key, error=type(error).__name__)
            self._note_unknown(key)
        else:
            self._unknown.pop(key, None)
            try:
                self._readers[key] = (schema.type, make_reader(schema))
            except Exception as error:  # noqa: BLE001  as above
                log.warning("registry_schema.unreadable", schema=key, type=schema.type, error=type(error).__name__)
                self._readers[key] = None
        self._retry_alone_at.pop(key, None)

    def _note_unknown(self, key: SchemaKey) -> None:
        if len(self._unknown) >= UNKNOWN_KEPT:
            self._unknown.clear()
        self._unknown[key] = self._clock.monotonic() + FORGET_UNKNOWN_SECONDS

    def _note_failure(self, key: SchemaKey, error: RetryableError) -> None:
        wait = BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        if isinstance(error, AnsweredError):
            self._retry_alone_at[key] = self._clock.monotonic() + wait
        else:
            self._retry_at = self._clock.monotonic() + wait
        self._readiness.block(_REASON, str(error))
        if self._failures == 1:
            log.warning("registry.unreachable", reason=str(error))


_UNREADABLE = "value: its schema in the registry cannot be read"


class Sieve:
    """Holds records back whose schema cannot be had for now, and all after them in their partition."""

    def __init__(self, shelf: SchemaShelf) -> None:
        self._shelf = shelf
        self._waiting: dict[TopicPartition, list[Record]] = {}

    def sift(self, records: Sequence[Record]) -> list[Record]:
        """Those of `records`, and of what waits, that can be read now; each partition in order. May block."""
        if not records and not self._waiting:
            return []
        waiting = [record for held in self._waiting.values() for record in held]
        self._waiting, readable = {}, []
        for record in (*waiting, *records):
            held = self._waiting.get(record.source)
            if held is not None:
                held.append(record)
                continue
            try:
                self._shelf.prepare(record)
            except RetryableError:
                self._waiting[record.source] = [record]
            else:
                readable.append(record)
        if not self._waiting:
            self._shelf.idle()
        return readable

    def holds(self, partition: TopicPartition) -> bool:
        """Whether records of `partition` wait."""
        return partition in self._waiting

    def waiting(self) -> Mapping[TopicPartition, int]:
        """How many records of each partition wait."""
        return {partition: len(held) for partition, held in self._waiting.items()}

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what waits of `partitions`: their next owner reads it again."""
        for partition in partitions:
            self._waiting.pop(partition, None)
        if not self._waiting:
            self._shelf.idle()
