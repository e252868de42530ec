"""What `worker check` says without a cluster."""

import socket
import sys
from collections.abc import Mapping

import pytest

from worker.assembler import Assembler
from worker.checks import _of_tracing
from worker.clock import ManualClock
from worker.config import fixed_config
from worker.types import JsonValue


def verdicts(tracing: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    """Verdict and message of all that is found about tracing."""
    kafka: Mapping[str, JsonValue] = {"bootstrap_servers": "127.0.0.1:1", "group_id": "checked"}
    config = fixed_config({"kafka": dict(kafka), "topics": [{"input": "in"}], "tracing": dict(tracing)})
    return [(finding.verdict, finding.message) for finding in _of_tracing(Assembler(config, ManualClock()))]


def test_nothing_is_said_of_tracing_that_is_off() -> None:
    assert [] == verdicts({})


def test_a_collector_that_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert [("ok", f"spans go to {endpoint}")] == verdicts({"endpoint": endpoint})


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "https://127.0.0.1:99999", "http://nobody.invalid"])
def test_a_collector_that_does_not_answer_is_a_warning(endpoint: str) -> None:
    [(verdict, message)] = verdicts({"endpoint": endpoint})
    assert "warning" == verdict
    assert endpoint in message


def test_a_missing_extra_fails_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "worker.observability.otel", raising=False)
    [(verdict, message)] = verdicts({"endpoint": "http://127.0.0.1:1"})
    assert "failed" == verdict
    assert "nli-stream-worker[otel]" in message
