"""Spans of records and batches: where they begin, how they end, what they never hold."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes, service_attributes
from opentelemetry.semconv.attributes import error_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from tests.support.spans import READER, KeptSpans, attributes
from tests.support.strategies import record as record_at
from worker.errors import EngineError, ErrorCode, Stage
from worker.messages.codec import encode
from worker.messages.dead_letter import dead_letter
from worker.messages.outbound import OutputShape, Stamps
from worker.observability import otel, semconv
from worker.observability.otel import exporting_processor
from worker.observability.tracing import open_tracing
from worker.tracing_settings import TracingSettings
from worker.types import (
    Batch,
    Finished,
    Headers,
    LabelScore,
    ModelStamp,
    PairCounts,
    PairRef,
    Prediction,
    Record,
    Refusal,
    Request,
    TokenSpan,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
NOT_SAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
SECRETS = ("the secret text", "the-key", "the-header", "the-label")


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


def with_headers(*headers: tuple[str, bytes | None], offset: int = 0) -> Record:
    return replace(record_at(offset=offset), headers=headers)


def taken_in(kept: KeptSpans, record: Record, number: int = 1) -> Record:
    return next(iter(kept.tracing.taken_in([record], number)))


def publish(kept: KeptSpans, *records: Record, code: ErrorCode | None = None) -> None:
    kept.tracing.settled(records, [Finished(record, (), code) for record in records])


def batch_of(*messages: int) -> Batch:
    refs = tuple(PairRef(message, pair) for message in messages for pair in (0, 1))
    ids = np.zeros(3 * len(refs), np.int32)
    return Batch(refs, ids, ids, np.full(len(refs), 3, np.int32))


def parent_of(headers: Headers) -> tuple[str, str, str]:
    """Trace, span and flags that the one `traceparent` names."""
    (value,) = [value for name, value in headers if name == "traceparent"]
    _, trace, span, flags = (value or b"").decode().split("-")
    return trace, span, flags


def context_of(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


def predicted(record: Record) -> Headers:
    """The headers of the prediction of `record`."""
    prediction = Prediction(
        "single", "a", ("a",), (LabelScore("a", 0.9),), calibrated=False, text=TokenSpan(2, 0), pairs=PairCounts(1)
    )
    stamps = Stamps("kinds", 1, "sha256:1", ModelStamp("mini", "sha256:2", "fake", "float32"), "2026-11-21T00:00:00Z")
    return encode(prediction, Request("1", "text"), record, stamps, OutputShape("out")).headers


def refused(record: Record) -> Headers:
    """The headers of the dead letter of `record`."""
    return dead_letter(record, Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "text: empty"), "dlq").headers


@pytest.mark.parametrize("written", [predicted, refused])
def test_what_is_written_names_the_span_of_its_record_as_parent_in_the_trace_of_the_event(
    kept: KeptSpans, written: Callable[[Record], Headers]
) -> None:
    record = taken_in(kept, with_headers(("traceparent", SAMPLED)))
    publish(kept, record)
    (span,) = kept.ended()
    assert span.parent is not None
    assert (TRACE, PARENT) == (format_trace_id(span.parent.trace_id), format_span_id(span.parent.span_id))
    assert TRACE == context_of(span)[0]
    assert context_of(span) == parent_of(written(record))[:2]


def test_tracestate_goes_on_and_baggage_and_all_others_stay_as_they_came(kept: KeptSpans) -> None:
    others = (("baggage", b"tenant=7"), ("plain", b"\xff"), ("empty", None), ("plain", b"again"))
    record = taken_in(kept, with_headers(("traceparent", SAMPLED), ("tracestate", b"a=1,b=2"), *others))
    assert others == tuple(header for header in record.headers if header[0] not in {"traceparent", "tracestate"})
    assert [b"a=1,b=2"] == [value for name, value in record.headers if name == "tracestate"]


def test_an_event_of_no_trace_begins_one(kept: KeptSpans) -> None:
    record = taken_in(kept, record_at())
    publish(kept, record)
    (span,) = kept.ended()
    assert span.parent is None
    assert context_of(span) == parent_of(record.headers)[:2]


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"00-0-0-01", f"00-{'0' * 32}-{PARENT}-01".encode(), None])
def test_a_trace_context_that_cannot_be_read_is_replaced_by_a_new_one(kept: KeptSpans, value: bytes | None) -> None:
    record = taken_in(kept, with_headers(("traceparent", value), ("tracestate", b"a=1")))
    publish(kept, record)
    (span,) = kept.ended()
    assert span.parent is None
    assert context_of(span) == parent_of(record.headers)[:2]
    assert ["traceparent"] == [name for name, _ in record.headers]


def test_of_several_trace_contexts_the_last_counts_and_one_goes_on(kept: KeptSpans) -> None:
    other = f"00-{'1' * 32}-{PARENT}-01".encode()
    record = taken_in(kept, with_headers(("traceparent", other), ("traceparent", SAMPLED)))
    assert TRACE == parent_of(record.headers)[0]


def test_an_event_that_its_trace_does_not_sample_has_no_span_and_its_trace_goes_on(kept: KeptSpans) -> None:
    record = taken_in(kept, with_headers(("traceparent", NOT_SAMPLED)))
    with kept.tracing.scoring(batch_of(1)):
        pass
    publish(kept, record)
    trace, _, flags = parent_of(record.headers)
    assert (TRACE, 0) == (trace, int(flags, 16) & 1)
    assert [] == kept.ended()


def test_the_ratio_is_for_events_of_no_trace_all_others_follow_theirs() -> None:
    kept = KeptSpans(sample_ratio=0.0)
    publish(kept, taken_in(kept, record_at(offset=1), 1))
    publish(kept, taken_in(kept, with_headers(("traceparent", SAMPLED), offset=2), 2))
    assert [2] == [attributes(span)[semconv.OFFSET] for span in kept.ended()]


def test_the_span_of_a_record_says_where_it_stood_and_how_it_ended(kept: KeptSpans) -> None:
    publish(kept, taken_in(kept, replace(record_at("in", 3, 7), value=b"12345")))
    (span,) = kept.ended()
    assert ("process in", SpanKind.CONSUMER, StatusCode.UNSET) == (span.name, span.kind, span.status.status_code)
    assert {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "in",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": "readers",
        "messaging.client.id": "readers.pod-0",
        "messaging.message.body.size": 5,
        "worker.outcome": "predicted",
    } == attributes(span)
    assert ("nli-stream-worker", "pod-0") == (
        span.resource.attributes["service.name"],
        span.resource.attributes["service.instance.id"],
    )
    assert span.instrumentation_scope is not None
    assert semconv.SCHEMA_URL == span.instrumentation_scope.schema_url


def test_a_record_without_a_value_says_so(kept: KeptSpans) -> None:
    publish(kept, taken_in(kept, replace(record_at(), value=None)))
    (span,) = kept.ended()
    assert True is attributes(span)["messaging.kafka.message.tombstone"]


def test_a_dead_letter_is_an_error_with_its_code(kept: KeptSpans) -> None:
    publish(kept, taken_in(kept, record_at()), code=ErrorCode.TEXT_EMPTY)
    (span,) = kept.ended()
    assert (StatusCode.ERROR, "text_empty") == (span.status.status_code, span.status.description)
    assert ("dead_letter", "text_empty") == (attributes(span)["worker.outcome"], attributes(span)["error.type"])


def test_a_record_that_went_to_another_worker_is_dropped_and_no_error(kept: KeptSpans) -> None:
    kept.tracing.settled([taken_in(kept, record_at())])
    (span,) = kept.ended()
    assert ("dropped", StatusCode.UNSET) == (attributes(span)["worker.outcome"], span.status.status_code)


def test_what_was_settled_with_others_and_not_committed_is_dropped(kept: KeptSpans) -> None:
    records = kept.tracing.taken_in([record_at(offset=offset) for offset in range(3)], 1)
    kept.tracing.settled(records[:2], [Finished(records[0], ())])
    assert ["predicted", "dropped"] == kept.outcomes()


def test_a_record_that_comes_back_has_a_span_of_its_own_whatever_becomes_of_the_first(kept: KeptSpans) -> None:
    first, second = taken_in(kept, record_at(epoch=1), 1), taken_in(kept, record_at(epoch=2), 2)
    kept.tracing.settled([first])
    publish(kept, second)
    assert ["dropped", "predicted"] == [attributes(span)["worker.outcome"] for span in kept.ended()]
    assert [parent_of(each.headers)[1] for each in (first, second)] == [context_of(span)[1] for span in kept.ended()]


def test_a_record_has_one_span_however_often_it_is_settled(kept: KeptSpans) -> None:
    record = taken_in(kept, record_at())
    publish(kept, record)
    publish(kept, record)
    assert 1 == len(kept.ended())


def test_a_batch_is_linked_with_its_records_and_they_with_it(kept: KeptSpans) -> None:
    records = kept.tracing.taken_in(
        [record_at(offset=1), with_headers(("traceparent", NOT_SAMPLED), offset=2), record_at(offset=3)], 1
    )
    with kept.tracing.scoring(batch_of(1, 2, 3)):
        assert [] == kept.ended()
    publish(kept, *records)
    (batch,) = kept.ended("score")
    assert (SpanKind.INTERNAL, None) == (batch.kind, batch.parent)
    assert {
        "messaging.batch.message_count": 3,
        "worker.batch.pairs": 6,
        "worker.batch.tokens": 18,
    } == attributes(batch)
    spans = kept.ended("process")
    assert [span.context for span in spans] == [link.context for link in batch.links]
    assert [[batch.context], [batch.context]] == [[link.context for link in span.links] for span in spans]


def test_a_batch_has_as_many_links_as_messages(kept: KeptSpans) -> None:
    kept.tracing.taken_in([record_at(offset=offset) for offset in range(1000)], 1)
    with kept.tracing.scoring(batch_of(*range(1, 1001))):
        pass
    (batch,) = kept.ended("score")
    assert (1000, 0) == (len(batch.links), batch.dropped_links)


def test_a_batch_of_messages_that_went_meanwhile_has_no_span(kept: KeptSpans) -> None:
    kept.tracing.settled([taken_in(kept, record_at())])
    with kept.tracing.scoring(batch_of(1)):
        pass
    assert [] == kept.ended("score")


def test_a_batch_that_breaks_the_engine_is_an_error_of_which_the_type_alone_is_told(kept: KeptSpans) -> None:
    taken_in(kept, record_at())
    with pytest.raises(EngineError), kept.tracing.scoring(batch_of(1)):
        raise EngineError(SECRETS[0])
    (batch,) = kept.ended()
    assert (StatusCode.ERROR, "EngineError") == (batch.status.status_code, batch.status.description)
    assert SECRETS[0] not in batch.to_json()


def test_no_span_holds_a_text_a_label_a_key_or_a_header(kept: KeptSpans) -> None:
    text, key, header, label = (secret.encode() for secret in SECRETS)
    record = replace(record_at(), value=text + label, key=key, headers=((header.decode(), header), ("baggage", key)))
    publish(kept, taken_in(kept, record), code=ErrorCode.LABELS_INVALID)
    told = "".join(span.to_json() for span in kept.ended())
    assert "labels_invalid" in told
    assert [] == [secret for secret in SECRETS if secret in told]


def test_at_the_end_what_is_open_ends_and_all_is_sent() -> None:
    exporter = InMemorySpanExporter()
    closed = threading.Event()

    class Noticing(SimpleSpanProcessor):
        def shutdown(self) -> None:
            closed.set()

    kept = KeptSpans(processor=Noticing(exporter))
    taken_in(kept, record_at())
    kept.tracing.close()
    assert ["dropped"] == [attributes(span)["worker.outcome"] for span in exporter.get_finished_spans()]
    assert closed.is_set()


def test_a_collector_that_never_answers_does_not_keep_the_worker_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "FLUSH_SECONDS", 0.01)
    answers = threading.Event()

    class Silent(SpanProcessor):
        def shutdown(self) -> None:
            answers.wait()

    KeptSpans(processor=Silent()).tracing.close()
    assert not answers.is_set()
    answers.set()


def test_the_kit_s_own_switch_leaves_headers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    kept = KeptSpans()
    record = record_at()
    assert record is taken_in(kept, record)
    publish(kept, record)
    assert [] == kept.ended()


@pytest.mark.parametrize(
    ("endpoint", "address"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://traces.example/otlp/v1/traces", "https://traces.example/otlp/v1/traces"),
    ],
)
def test_the_address_of_a_collector_is_enough(endpoint: str, address: str) -> None:
    assert address == vars(otel._exporter("http/protobuf", endpoint))["_endpoint"]


def test_the_collector_is_spoken_to_by_grpc_where_that_is_asked_for() -> None:
    processor = exporting_processor(TracingSettings(protocol="grpc"), "http://127.0.0.1:4317")
    assert isinstance(processor, BatchSpanProcessor)
    assert "opentelemetry.exporter.otlp.proto.grpc.trace_exporter" == type(processor.span_exporter).__module__
    processor.shutdown()  # type: ignore[no-untyped-call]  # the kit has it so


class Servicer(TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[str] = []

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802
        scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
        self.spans += [span.name for scope in scopes for span in scope.spans]
        return ExportTraceServiceResponse()


def test_spans_arrive_by_grpc() -> None:
    server, servicer = grpc.server(ThreadPoolExecutor(1)), Servicer()
    add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        tracing = open_tracing(TracingSettings(endpoint=f"http://127.0.0.1:{port}", protocol="grpc"), READER)
        tracing.settled(tracing.taken_in([record_at()], 1))
        tracing.close()
    finally:
        server.stop(None)
    assert ["process in"] == servicer.spans


context_names = st.sampled_from(["traceparent", "tracestate", "baggage", "other"])
context_values = st.one_of(
    st.none(), st.binary(max_size=60), st.sampled_from([SAMPLED, NOT_SAMPLED, b"a=1,b=2", b"a=1,,=,\xff", b"=" * 600])
)


@settings(deadline=None)  # the first one loads much
@given(st.lists(st.tuples(context_names, context_values), max_size=8).map(tuple))
def test_whatever_headers_come_one_context_goes_on_and_all_others_stay(headers: Headers) -> None:
    kept = KeptSpans()
    record = taken_in(kept, with_headers(*headers))
    carried = {"traceparent", "tracestate"}
    assert [each for each in headers if each[0] not in carried] == [e for e in record.headers if e[0] not in carried]
    assert 1 == [name for name, _ in record.headers].count("traceparent")
    assert 1 >= [name for name, _ in record.headers].count("tracestate")


def test_headers_that_cannot_be_read_fill_no_log(kept: KeptSpans, caplog: pytest.LogCaptureFixture) -> None:
    for value in (b"0" * 600, SAMPLED):
        taken_in(kept, with_headers(("traceparent", value), ("tracestate", b"a=1,a=2,=,x"), ("tracestate", b"=" * 600)))
        taken_in(kept, with_headers(("traceparent", value), ("tracestate", b"a=1,a=2,=,x")))
    assert [] == caplog.records


def names(prefix: str) -> set[str]:
    return {value for key, value in vars(semconv).items() if key.isupper() and value.startswith(prefix)}


def test_every_name_is_one_of_the_conventions_in_the_version_that_is_pinned() -> None:
    installed = (messaging_attributes, service_attributes, error_attributes)
    known = {value for module in installed for value in vars(module).values() if isinstance(value, str)}
    assert semconv.SCHEMA_URL in {schema.value for schema in Schemas}
    assert set() == (names("messaging.") | names("service.") | names("error.")) - known


def test_the_page_on_tracing_explains_every_name() -> None:
    page = Path("docs/tracing.md").read_text(encoding="utf-8")
    asked = names("messaging.") | names("service.") | names("error.") | names("worker.")
    assert set() == {name for name in asked if f"`{name}`" not in page}
    assert semconv.VERSION in page
