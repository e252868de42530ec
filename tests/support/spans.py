"""Tracing for tests: spans are kept in memory as soon as they end."""

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.observability.otel import SpanTracing
from worker.observability.tracing import Reader
from worker.tracing_settings import TracingSettings

READER = Reader("readers", "pod-0")


class KeptSpans:
    """A `SpanTracing`, and the spans that ended in it."""

    def __init__(self, sample_ratio: float = 1.0, processor: SpanProcessor | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        settings = TracingSettings(sample_ratio=sample_ratio)
        self.tracing = SpanTracing(processor or SimpleSpanProcessor(self._exporter), settings, READER)

    def ended(self, name: str = "") -> list[ReadableSpan]:
        """Those whose names begin so, in the order of their ends."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def outcomes(self, name: str = "process") -> list[object]:
        """How records ended, in the order of their offsets."""
        spans = sorted(self.ended(name), key=lambda span: int(str(attributes(span)["messaging.kafka.offset"])))
        return [attributes(span)["worker.outcome"] for span in spans]


def attributes(span: ReadableSpan) -> dict[str, object]:
    """All of a span."""
    return dict(span.attributes or {})
