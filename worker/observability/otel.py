"""Spans by OpenTelemetry's SDK. Loaded only where tracing is on: it comes with the extra `otel`.

No span ever holds a text, a label, a key or a header.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import structlog
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker import __version__
from worker.errors import ErrorCode
from worker.observability import semconv
from worker.observability.tracing import Reader
from worker.tracing_settings import TracingSettings
from worker.types import Batch, Finished, Headers, Record

MOST_LINKS = 4096
"""Links of a span: a batch has one for each of its messages. The SDK's own 128 is less than a batch of short texts."""
QUEUED_SPANS = 16_384
"""Spans that may wait for the collector, the rest is dropped: a transaction ends two thousand at once."""
FLUSH_SECONDS = 5.0
"""How long the end of the worker waits for the collector: a pod that is told to go has half a minute in all."""

_TALKATIVE = ("opentelemetry.trace.propagation.tracecontext", "opentelemetry.trace.span", "opentelemetry.sdk.trace")
"""They warn of every header that cannot be read: a topic full of those would fill the disk."""
_CONTEXT_HEADERS = frozenset({"traceparent", "tracestate"})
_PATHS = {"": "/v1/traces", "/": "/v1/traces"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    number: int
    span: Span


_Place = tuple[str, int, int, int]
"""Topic, partition, offset and epoch: under one assignment no record is read twice."""


class SpanTracing:
    """A span for each record that is sampled, and one for each batch with such records in it."""

    def __init__(self, processor: SpanProcessor, settings: TracingSettings, reader: Reader) -> None:
        """`processor` is given every span that ends."""
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._processor = processor
        resource = Resource.create(
            {
                semconv.SERVICE_NAME: settings.service_name,
                semconv.SERVICE_VERSION: __version__,
                semconv.SERVICE_INSTANCE_ID: reader.instance,
            }
        )
        self._records = _tracer(processor, resource, ParentBased(TraceIdRatioBased(settings.sample_ratio)))
        # A batch is traced where one of its records is: that was decided before.
        self._batches = _tracer(processor, resource, ALWAYS_ON)
        self._common = {
            semconv.SYSTEM: semconv.KAFKA,
            semconv.OPERATION_NAME: semconv.PROCESS,
            semconv.OPERATION_TYPE: semconv.PROCESS,
            semconv.CONSUMER_GROUP: reader.group_id,
            semconv.CLIENT_ID: reader.client_id,
        }
        # The poll thread adds, the engine thread looks up, the delivery thread removes: one operation each, no lock.
        self._open: dict[_Place, _Open] = {}
        self._by_number: dict[int, Span] = {}

    def taken_in(self, records: Sequence[Record], first: int) -> Sequence[Record]:
        """`records` with the context of their spans in their headers. See `Tracing`."""
        return [self._begin(record, number) for number, record in enumerate(records, start=first)]

    @contextmanager
    def scoring(self, batch: Batch) -> Iterator[None]:
        """A span for `batch`, linked with those of its records. See `Tracing`."""
        numbers = dict.fromkeys([ref.message for ref in batch.refs])
        records = [span for span in map(self._by_number.get, numbers) if span is not None]
        if not records:
            yield
            return
        attributes = {
            semconv.BATCH_MESSAGES: len(numbers),
            semconv.BATCH_PAIRS: len(batch.refs),
            semconv.BATCH_TOKENS: int(batch.lengths.sum()),
        }
        links = [Link(record.get_span_context()) for record in records]
        span = self._batches.start_span(semconv.SCORE, Context(), SpanKind.INTERNAL, attributes, links)
        for record in records:
            record.add_link(span.get_span_context())
        try:
            yield
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def settled(self, records: Sequence[Record], committed: Sequence[Finished] = ()) -> None:
        """End the spans of `records`. See `Tracing`."""
        for each in committed:
            self._end(_place(each.record), semconv.PREDICTED if each.code is None else semconv.DEAD_LETTER, each.code)
        for record in records:
            self._end(_place(record), semconv.DROPPED)

    def close(self) -> None:
        """End what is open, and send what has ended. See `Tracing`."""
        for place in list(self._open):
            self._end(place, semconv.DROPPED)
        # A collector that does not answer is waited for at length by the SDK.
        thread = threading.Thread(target=self._processor.shutdown, name="tracing", daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)
        if thread.is_alive():
            log.warning("tracing.flush_abandoned", budget_seconds=FLUSH_SECONDS)

    def _begin(self, record: Record, number: int) -> Record:
        parent = _PROPAGATOR.extract(record.headers, Context(), _LastHeader())
        span = self._records.start_span(f"{semconv.PROCESS} {record.topic}", parent, SpanKind.CONSUMER)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
        if span.is_recording():
            span.set_attributes({**self._common, **_attributes(record)})
            self._by_number[number] = span
            self._open[_place(record)] = _Open(number, span)
        return replace(record, headers=_with_context(record.headers, carrier)) if carrier else record

    def _end(self, place: _Place, outcome: str, code: ErrorCode | None = None) -> None:
        opened = self._open.pop(place, None)
        if opened is None:
            return
        self._by_number.pop(opened.number, None)
        opened.span.set_attribute(semconv.OUTCOME, outcome)
        if code is not None:
            _fail(opened.span, code.value)
        opened.span.end()


def exporting_processor(settings: TracingSettings, endpoint: str) -> SpanProcessor:
    """Sends spans to `endpoint` by OTLP, on a thread of its own.

    What the collector wants beside its address (headers, certificates) is taken from OTEL_EXPORTER_OTLP_… variables.
    """
    return BatchSpanProcessor(_exporter(settings.protocol, endpoint), max_queue_size=QUEUED_SPANS)


def _exporter(protocol: str, endpoint: str) -> SpanExporter:
    # Each of the two brings libraries of its own.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc  # noqa: PLC0415

        return Grpc(endpoint=endpoint, insecure=endpoint.startswith("http://"))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http  # noqa: PLC0415

    address = urlsplit(endpoint)
    return Http(endpoint=address._replace(path=_PATHS.get(address.path, address.path)).geturl())


def _tracer(processor: SpanProcessor, resource: Resource, sampler: Sampler) -> Tracer:
    limits = SpanLimits(max_links=MOST_LINKS)
    provider = TracerProvider(sampler, resource, shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(processor)
    return provider.get_tracer("nli-stream-worker", __version__, semconv.SCHEMA_URL)


class _LastHeader(Getter[Headers]):
    """Headers as the propagator reads them: of several `traceparent` the last counts, as everywhere in Kafka."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        values = [value.decode("ascii", "replace") for name, value in carrier if name == key and value is not None]
        return (values[-1:] if key == "traceparent" else values) or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


_PROPAGATOR = TraceContextTextMapPropagator()


def _with_context(headers: Headers, carrier: Mapping[str, str]) -> Headers:
    ours = ((name, value.encode("ascii")) for name, value in carrier.items())
    return (*(header for header in headers if header[0] not in _CONTEXT_HEADERS), *ours)


def _attributes(record: Record) -> dict[str, str | int | bool]:
    attributes: dict[str, str | int | bool] = {
        semconv.DESTINATION_NAME: record.topic,
        semconv.PARTITION_ID: str(record.partition),
        semconv.OFFSET: record.offset,
        semconv.BODY_SIZE: len(record.value or b""),
    }
    return attributes if record.value is not None else {**attributes, semconv.TOMBSTONE: True}


def _place(record: Record) -> _Place:
    return record.topic, record.partition, record.offset, record.epoch


def _fail(span: Span, error_type: str) -> None:
    span.set_attribute(semconv.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, error_type))
