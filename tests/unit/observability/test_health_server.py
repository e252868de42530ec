"""The port answers probes and nothing else, however it is asked."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.wait import wait_until
from worker.clock import ManualClock
from worker.errors import ConfigError
from worker.observability import health_server
from worker.observability.health import Heartbeats, Probes, Readiness
from worker.observability.health_server import HealthServer
from worker.observability.metrics import Metrics
from worker.types import JsonValue


def _refuse() -> JsonValue:
    raise LookupError("words of a user")


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def server(readiness: Readiness) -> Iterator[HealthServer]:
    probes = Probes(Heartbeats(ManualClock()).ages, readiness.reasons, Metrics().render, _refuse)
    with HealthServer(probes, port=0) as running:
        yield running


def _ask(server: HealthServer, method: str, path: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def _send_raw(server: HealthServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(request)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            return received  # it was cut off while it was still talking
        return received


def test_readiness_changes_are_seen_by_the_next_probe(server: HealthServer, readiness: Readiness) -> None:
    assert 200 == _ask(server, "GET", "/readyz")[0]

    readiness.block("schema", "intent is missing")

    status, body, _ = _ask(server, "GET", "/readyz?verbose=1")
    assert (503, {"ready": False, "reasons": ["schema: intent is missing"], "remarks": []}) == (
        status,
        json.loads(body),
    )


def test_metrics_are_in_the_form_that_prometheus_reads(server: HealthServer) -> None:
    status, body, headers = _ask(server, "GET", "/metrics")

    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (status, headers["Content-Type"])
    assert b"# HELP worker_records_consumed_total " in body


def test_head_has_the_headers_of_get_and_no_body(server: HealthServer) -> None:
    _, body, headers = _ask(server, "GET", "/livez")
    head_status, head_body, head_headers = _ask(server, "HEAD", "/livez")

    assert (200, b"") == (head_status, head_body)
    assert str(len(body)) == headers["Content-Length"] == head_headers["Content-Length"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
def test_nothing_can_be_written(server: HealthServer, method: str) -> None:
    status, body, headers = _ask(server, method, "/schemas")

    assert (405, "GET, HEAD", {"error": "refused"}) == (status, headers["Allow"], json.loads(body))


def test_an_answer_that_fails_is_an_error_in_the_log_and_says_nothing_outside(
    server: HealthServer, expected_errors: set[str], log_events: list[dict[str, object]]
) -> None:
    expected_errors.add("health.answer_failed")

    status, body, _ = _ask(server, "GET", "/schemas")

    assert (500, {"error": "failed"}) == (status, json.loads(body))
    assert ["health.answer_failed"] == [event["event"] for event in log_events]
    assert 200 == _ask(server, "GET", "/livez")[0]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X-Long: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X-Many: 1\r\n" * 5_000 + b"\r\n",
        b"\x00\xff\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"\r\n",
    ],
    ids=["long-path", "long-header", "many-headers", "no-http", "no-path", "nothing"],
)
def test_an_odd_request_is_cut_off_and_the_next_one_is_answered(server: HealthServer, request_bytes: bytes) -> None:
    received = _send_raw(server, request_bytes)

    assert len(received) < 4_096
    assert b"aaaa" not in received
    assert 200 == _ask(server, "GET", "/livez")[0]


def test_connections_that_say_nothing_cannot_take_all_the_threads(
    monkeypatch: pytest.MonkeyPatch, server: HealthServer
) -> None:
    monkeypatch.setattr(health_server, "_MAX_REQUEST_SECONDS", 0.3)
    with ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        idle = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(100)]

        # Each is closed by the server: at once where there is no slot, else when its time is over.
        assert [b""] * 100 == [_last_words(connection) for connection in idle]

    wait_until(lambda: _send_raw(server, b"GET /livez HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 200"), 10.0)


def _last_words(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionError:
        return b""


def test_a_taken_port_is_said_as_a_configuration_error(server: HealthServer) -> None:
    probes = Probes(dict, tuple, bytes, dict)

    with pytest.raises(ConfigError, match=f"http.port: 127.0.0.1:{server.port} cannot be listened on"):
        HealthServer(probes, port=server.port).start()


def test_after_closing_nobody_answers() -> None:
    server = HealthServer(Probes(dict, tuple, bytes, dict), port=0)
    server.start()
    port = server.port

    server.close()
    server.close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_with_a_token_all_but_probes_have_to_show_it() -> None:
    def asked(path: str, **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    probes = Probes(Heartbeats(ManualClock()).ages, Readiness().reasons, Metrics().render, dict)
    with HealthServer(probes, port=0, token="right") as guarded:  # noqa: S106  a word for this test
        for path in ("/metrics", "/schemas", "/nothing"):
            assert [401] * 3 == [
                asked(path),
                asked(path, Authorization="Bearer wrong"),
                asked(path, Authorization="right"),
            ]
        assert 200 == asked("/metrics", Authorization="Bearer right")
        assert 404 == asked("/nothing", Authorization="Bearer right")
        assert [200, 200] == [asked("/livez"), asked("/readyz")]
