"""Traces through a real broker and OTLP: what a collector gets, and what a subscriber can go on from."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.worker import Changes, Setup, run_to_end, set_up
from worker.kafka.embedded_storage import free_port
from worker.observability import semconv

pytestmark = pytest.mark.kafka

TRACE = "0af7651916cd43dd8448eb211c80319{number:x}"
PARENT = "b7ad6b716920333{number:x}"
SECRET = "nobody may see this"  # noqa: S105  a text


class Collector:
    """Takes OTLP over HTTP, as a collector would, and keeps it."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.paths: set[str] = set()
        self.bodies: list[bytes] = []

    def requests(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]

    def spans(self, name: str) -> list[Span]:
        """Those whose names begin so."""
        scopes = [scope for told in self.requests() for of in told.resource_spans for scope in of.scope_spans]
        return [span for scope in scopes for span in scope.spans if span.name.startswith(name)]


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.paths.add(self.path)
            collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  so named
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def context(number: int, flags: str = "01") -> bytes:
    return f"00-{TRACE.format(number=number)}-{PARENT.format(number=number)}-{flags}".encode()


EVENTS = [
    {
        "value": json.dumps({"text": SECRET}),
        "key": SECRET,
        "partition": 0,
        "headers": {"traceparent": context(1), "tracestate": b"shop=1", "baggage": b"tenant=7", "own": SECRET.encode()},
    },
    {"value": SECRET, "partition": 1, "headers": {"traceparent": context(2)}},
    {"value": json.dumps({"text": "of no trace"}), "partition": 2},
    {"value": json.dumps({"text": "not sampled"}), "partition": 3, "headers": {"traceparent": context(4, "00")}},
]


def traced(kafka: BrokerUnderTest, folder: Path, topics: TopicsFactory, endpoint: str | None) -> Setup:
    """A worker that has read the events."""
    changes: Changes = {} if endpoint is None else {"tracing": {"endpoint": endpoint, "service_name": "labels"}}
    setup = set_up(folder, kafka, topics("traced"), changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    kafka.produce(setup.inputs[0], EVENTS)
    run_to_end(setup)
    return setup


def written(kafka: BrokerUnderTest, setup: Setup) -> dict[int | None, dict[str, bytes]]:
    """The headers of every output, by partition: one record was in each."""
    return {message.partition(): headers_of(message) for message in kafka.read_committed(*setup.outputs)}


def headers_of(message: Message) -> dict[str, bytes]:
    return dict(cast("list[tuple[str, bytes]]", message.headers() or []))


def by_partition(spans: list[Span]) -> dict[int, Span]:
    return {int(str(attributes(span)[semconv.PARTITION_ID])): span for span in spans}


def attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def own_context(span: Span) -> bytes:
    return f"00-{span.trace_id.hex()}-{span.span_id.hex()}".encode()


def test_a_collector_gets_a_span_of_each_record_and_batch_and_outputs_go_on_from_them(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    with collecting() as collector:
        setup = traced(kafka, tmp_path, topics, collector.endpoint)
    records, outputs = by_partition(collector.spans(f"process {setup.inputs[0]}")), written(kafka, setup)
    assert {"/v1/traces"} == collector.paths
    assert {0, 1, 2} == set(records)
    for partition, span in records.items():
        assert own_context(span) == outputs[partition]["traceparent"][:52]
    assert [(TRACE.format(number=n), PARENT.format(number=n)) for n in (1, 2)] == [
        (records[partition].trace_id.hex(), records[partition].parent_span_id.hex()) for partition in (0, 1)
    ]
    assert b"" == records[2].parent_span_id
    assert ["predicted", "dead_letter", "predicted"] == [attributes(records[p])["worker.outcome"] for p in (0, 1, 2)]
    assert (Status.STATUS_CODE_ERROR, "json_invalid") == (records[1].status.code, records[1].status.message)
    assert b"json_invalid" == outputs[1]["nli-error-code"]

    linked = {link.span_id for batch in collector.spans("score") for link in batch.links}
    assert {records[0].span_id, records[2].span_id} == linked


def test_what_came_along_goes_on_and_the_collector_sees_none_of_it(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    with collecting() as collector:
        setup = traced(kafka, tmp_path, topics, collector.endpoint)
    outputs = written(kafka, setup)
    assert (b"shop=1", b"tenant=7", SECRET.encode()) == tuple(
        outputs[0][name] for name in ("tracestate", "baggage", "own")
    )
    assert TRACE.format(number=4).encode() == outputs[3]["traceparent"][3:35]
    assert collector.bodies
    for secret in (SECRET.encode(), b"tenant=7", b"billing"):
        assert [] == [body for body in collector.bodies if secret in body]


def test_without_tracing_the_context_of_the_event_goes_on_as_it_came(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    outputs = written(kafka, traced(kafka, tmp_path, topics, None))
    assert {0: context(1), 1: context(2), 2: None, 3: context(4, "00")} == {
        partition: headers.get("traceparent") for partition, headers in outputs.items()
    }
    assert (b"shop=1", b"tenant=7") == (outputs[0]["tracestate"], outputs[0]["baggage"])


def test_a_collector_that_is_not_there_holds_up_nothing(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = traced(kafka, tmp_path, topics, f"http://127.0.0.1:{free_port()}")
    assert {0, 1, 2, 3} == set(written(kafka, setup))
