"""What a configuration needs of a schema registry, put together; nothing where no binding names one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from worker.clock import Clock
from worker.errors import RetryableError
from worker.kafka.output_schemas import OutputSchemas
from worker.kafka.readable import SchemaShelf, Sieve
from worker.kafka.schema_registry import RegistryClient
from worker.messages.binding import REGISTRY_FORMATS, Binding
from worker.messages.bindings import Bindings
from worker.observability.health import Readiness
from worker.registry_settings import Registry
from worker.types import JsonValue, OutboundRecord, Record

REGISTRY = "schema registry"
"""What findings about the service itself are about."""


class Obstacle(NamedTuple):
    """Why something cannot be had of the registry."""

    reason: str
    is_missing: bool
    """The registry answers, and has no such thing."""


@dataclass(frozen=True, slots=True)
class RegistryParts:
    """Reading and writing by schemas of the registry."""

    client: RegistryClient
    shelf: SchemaShelf
    sieve: Sieve
    outputs: OutputSchemas
    bindings: Bindings

    def close(self) -> None:
        """Let go of the registry; what was fetched can still be used."""
        self.client.close()

    def read(self, record: Record) -> JsonValue:
        """The plain value of `record`. Raises MessageError."""
        return self.shelf.read(record)

    def framed(self, record: OutboundRecord, binding: Binding) -> OutboundRecord:
        """A prediction in the form that its binding wants. Raises MessageError."""
        if binding.output_format == "json":
            return record
        return self.outputs.framed(record, binding.output_format)

    def look_up(self, binding: Binding) -> Iterator[tuple[str, Obstacle | None]]:
        """What the binding needs of the registry, and what stands in the way; nothing is registered. Blocks."""
        obstacle = self.shelf.obstacle() if binding.format in REGISTRY_FORMATS else None
        if binding.format in REGISTRY_FORMATS:
            yield REGISTRY, None if obstacle is None else Obstacle(obstacle, is_missing=False)
        if binding.output_format != "json" and obstacle is None:
            for output in _written(binding):
                reason, is_missing = self.outputs.look_up(output, binding.output_format)
                yield f"subject {output}-value", None if reason is None else Obstacle(reason, is_missing)

    def doubts(self, binding: Binding) -> Iterator[tuple[str, str]]:
        """What will stand in the way of a later version, by subject, as far as the registry tells. Blocks."""
        for output in _written(binding) if binding.output_format != "json" else ():
            try:
                doubt = self.outputs.doubt(output, binding.output_format)
            except RetryableError:
                continue  # told by `look_up`, or nobody's to know: the rule may be hidden from who may write
            if doubt is not None:
                yield f"subject {output}-value", doubt

    def obstacle(self, topic: str) -> str | None:
        """Why predictions for the input `topic` cannot be written for now; None where they can. Blocks."""
        binding = self.bindings[topic]
        if binding.output_format == "json":
            return None
        for output in _written(binding):
            reason = self.outputs.register(output, binding.output_format)
            if reason is not None:
                return reason
        return None


def registry_parts(
    settings: Registry | None, bindings: Bindings, readiness: Readiness, clock: Clock
) -> RegistryParts | None:
    """The parts, where a binding has a format of the registry.

    Raises:
        ConfigError: the extra `registry` is not installed, or a setting cannot be used.
    """
    formats = {name for each in bindings.configured for name in (each.format, each.output_format)}
    if settings is None or not formats & set(REGISTRY_FORMATS):
        return None
    client = RegistryClient(settings)
    shelf = SchemaShelf(client, _format_of(bindings), readiness, clock)
    outputs = OutputSchemas(client, create=settings.register_schemas)
    return RegistryParts(client, shelf, Sieve(shelf), outputs, bindings)


def _written(binding: Binding) -> tuple[str, ...]:
    return (binding.output_topic, *binding.routes.values())


def _format_of(bindings: Bindings) -> Callable[[str], str | None]:
    def format_of(topic: str) -> str | None:
        binding = bindings.find(topic)
        return None if binding is None else binding.format

    return format_of
