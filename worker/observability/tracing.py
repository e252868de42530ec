"""The seam to tracing: what the three threads tell of records and batches, and who listens.

A record's span is born when the poll thread takes the record in, once it is decoded, and ends on the delivery thread
once its outputs are committed or it is no longer ours. The span travels in the record's own headers, which outputs and
dead letters keep: no step in between knows of it.
"""

import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from worker.errors import ConfigError
from worker.tracing_settings import TracingSettings
from worker.types import Batch, Finished, Record

EXTRA_MISSING = (
    'tracing.endpoint: tracing needs the extra `otel`: pip install "nli-stream-worker[otel]", or leave the key out'
)

CONNECT_SECONDS = 3.0


class Tracing(Protocol):
    """Hears of every record and batch. Thread-safe; never blocks, never raises."""

    def taken_in(self, records: Sequence[Record], first: int) -> Sequence[Record]:
        """`records`, numbered from `first` on, as they are to go on: whoever traces them says so in their headers."""
        ...

    def scoring(self, batch: Batch) -> AbstractContextManager[None]:
        """To be open for as long as the engine has `batch`; that of the next one may be open, too."""
        ...

    def settled(self, records: Sequence[Record], committed: Sequence[Finished] = ()) -> None:
        """`records` are no longer in flight: those of `committed` are published, the others another's to read."""
        ...

    def close(self) -> None:
        """Let go of what was not settled, and see that what is told is sent. Blocks for some seconds at most."""
        ...


class Untraced:
    """Tracing that is off."""

    _nothing = nullcontext()

    def taken_in(self, records: Sequence[Record], first: int) -> Sequence[Record]:  # noqa: ARG002  as the seam has it
        """`records` as they are."""
        return records

    def scoring(self, batch: Batch) -> AbstractContextManager[None]:  # noqa: ARG002
        """Nothing."""
        return self._nothing

    def settled(self, records: Sequence[Record], committed: Sequence[Finished] = ()) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


UNTRACED = Untraced()
"""It keeps nothing: one is enough for all."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads the records, as their spans say."""

    group_id: str
    instance: str

    @property
    def client_id(self) -> str:
        """What the broker knows it as."""
        return f"{self.group_id}.{self.instance}"


def open_tracing(settings: TracingSettings, reader: Reader) -> Tracing:
    """Tracing as configured, to be closed; `Untraced`, with no library loaded, where there is no endpoint.

    Raises:
        ConfigError: the extra `otel` is not installed, or OpenTelemetry refuses what its own variables say.
    """
    if settings.endpoint is None:
        return UNTRACED
    try:
        from worker.observability.otel import SpanTracing, exporting_processor  # noqa: PLC0415  an extra

        return SpanTracing(exporting_processor(settings, settings.endpoint), settings, reader)
    except ImportError:
        raise ConfigError(EXTRA_MISSING) from None
    except Exception as error:  # noqa: BLE001  it raises many kinds; what they say may quote a secret
        kind = type(error).__name__
        raise ConfigError(f"environment: OpenTelemetry refuses a variable OTEL_… ({kind}): mend or remove it") from None


def is_reachable(endpoint: str) -> bool:
    """Whether somebody takes connections at the address of a collector; nothing is sent. Blocks for some seconds."""
    address = urlsplit(endpoint)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), CONNECT_SECONDS).close()
    except (OSError, ValueError):  # what is no port number is nobody's
        return False
    return True
