"""The schema registry: asked once for each schema, never again, and never from the thread that decodes.

`confluent_kafka.schema_registry` and what it needs come with the extra `registry`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.errors import ConfigError, RetryableError
from worker.registry_settings import Registry

REQUEST_SECONDS = 5.0
"""How long the registry may take for one answer before it counts as out of reach."""
EXTRA_MISSING = (
    "topics: a format of the schema registry needs the extra `registry`: install nli-stream-worker[registry]"
)
_NOT_FOUND = 404
_UNWELCOME = {401, 403}
_CREDENTIALS = "check the credentials in registry, and what they may read and write"
_REFUSALS = {
    409: "the subject has one that it may not follow; name another output topic, or have the subject's compatibility "
    "or its schemas changed (a JSON Schema needs BACKWARD)",
    422: "it takes none like it; check that it knows the type of schema",
}
NOT_TAKEN = f"the registry would refuse the schema: {_REFUSALS[409]}"
"""What is told before it is tried."""

SchemaKey = int | str
"""The id of a schema, or its GUID."""


class AnsweredError(RetryableError):
    """The registry answers, but not with what was asked for: another request may fare better."""


class UnknownSchemaError(Exception):
    """The registry answers, and has no such schema."""


class RefusedSchemaError(Exception):
    """The registry answers, and does not take a schema under a subject."""


@dataclass(frozen=True, slots=True)
class RegisteredText:
    """A schema as the registry has it."""

    type: str
    """`AVRO`, `PROTOBUF` or `JSON`."""
    text: str
    references: Mapping[str, str] = field(default_factory=dict)
    """What it refers to, directly or not: name -> text, each before those that need it."""


class RegistryClient:
    """Reads and writes schemas. Every method blocks for some seconds at most; used by several threads."""

    def __init__(self, settings: Registry) -> None:
        """Nothing is asked yet.

        Raises:
            ConfigError: the extra is not installed, or a setting cannot be used.
        """
        try:
            from confluent_kafka.schema_registry import Schema, SchemaRegistryClient  # noqa: PLC0415  an extra
            from confluent_kafka.schema_registry.error import SchemaRegistryError  # noqa: PLC0415
        except ImportError:
            raise ConfigError(EXTRA_MISSING) from None
        self._make_schema: Any = Schema
        self._error: type[Exception] = SchemaRegistryError
        conf = settings.connection() | {"timeout": REQUEST_SECONDS, "max.retries": 0}
        try:
            self._client: Any = SchemaRegistryClient(conf)
        except (ValueError, TypeError, OSError) as error:
            # Its own words may quote the address, credentials in it included.
            raise ConfigError(f"registry: expected settings that can be used ({type(error).__name__})") from None

    def fetch(self, key: SchemaKey) -> RegisteredText:
        """The schema with the id or GUID `key`, with all that it refers to.

        Raises:
            UnknownSchemaError: there is none.
            RetryableError: the registry does not answer, or refuses us.
        """
        schema = self._ask(
            lambda: self._client.get_schema(key) if isinstance(key, int) else self._client.get_schema_by_guid(key)
        )
        references: dict[str, str] = {}
        self._collect(schema, references)
        return RegisteredText(schema.schema_type or "AVRO", schema.schema_str, references)

    def register(self, subject: str, text: str, schema_type: str, *, create: bool) -> int:
        """The id of a schema under `subject`; with `create` it is registered where it is not yet.

        Raises:
            RefusedSchemaError: it is not compatible, or not there and not to be created.
            RetryableError: the registry does not answer, or refuses us.
        """
        schema = self._make_schema(text, schema_type)
        try:
            if create:
                return int(self._ask(lambda: self._client.register_schema(subject, schema)))
            return int(self._ask(lambda: self._client.lookup_schema(subject, schema)).schema_id)
        except UnknownSchemaError:
            raise RefusedSchemaError(
                "the schema is not registered: register it, or set registry.register_schemas: true"
            ) from None

    def takes(self, subject: str, text: str, schema_type: str) -> bool:
        """Whether a schema may follow those that are under `subject`; nothing is registered.

        Raises:
            RetryableError: the registry does not answer, or refuses us.
        """
        schema = self._make_schema(text, schema_type)
        try:
            return bool(self._ask(lambda: self._client.test_compatibility(subject, schema)))
        except UnknownSchemaError:
            return True
        except RefusedSchemaError:
            return False

    def compatibility(self, subject: str) -> str | None:
        """What schemas under `subject` have to be to those before them, in the registry's words; None: not told.

        Raises:
            RetryableError: the registry does not answer, or refuses us.
        """
        for asked in (subject, None):  # without a rule of its own it has that of all
            try:
                return str(self._ask(lambda name=asked: self._client.get_compatibility(name)))
            except (UnknownSchemaError, RefusedSchemaError):
                continue
        return None

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _collect(self, schema: Any, found: dict[str, str]) -> None:  # noqa: ANN401  the client's own type
        for reference in schema.references or ():
            if reference.name in found:
                continue
            name, subject, version = reference.name, reference.subject, reference.version
            referenced = self._ask(lambda s=subject, v=version: self._client.get_version(s, v)).schema
            self._collect(referenced, found)
            found[name] = referenced.schema_str

    def _ask(self, request: Any) -> Any:  # noqa: ANN401  as above
        try:
            return request()
        except self._error as error:
            status = getattr(error, "http_status_code", 0)
            if status == _NOT_FOUND:
                raise UnknownSchemaError from None
            if status in _REFUSALS:
                told = f"the registry refuses the schema (HTTP {status}): {_REFUSALS[status]}"
                raise RefusedSchemaError(told) from None
            told = f": {_CREDENTIALS}" if status in _UNWELCOME else ""
            raise AnsweredError(f"the schema registry refuses a request (HTTP {status}){told}") from None
        except Exception as error:  # noqa: BLE001  the HTTP client's, whichever of two it is
            seen = (
                "registry.ssl_ca_location" if "CERTIFICATE_VERIFY_FAILED" in str(error) else "registry.url and network"
            )
            message = f"the schema registry does not answer ({type(error).__name__}): check {seen}"
            raise RetryableError(message) from None


def as_json(text: str) -> Any:  # noqa: ANN401  whatever JSON it is
    """The JSON value of a schema's text; a bare Avro type name stands for itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
