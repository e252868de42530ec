"""Tracing that is off costs nothing; tracing that cannot be had says what to do."""

import io
import logging
import subprocess
import sys

import pytest

from tests.support.spans import READER
from tests.support.strategies import record as record_at
from worker.errors import ConfigError
from worker.observability.logging import configure_logging
from worker.observability.tracing import UNTRACED, open_tracing
from worker.tracing_settings import TracingSettings

SECRET = "zq-secret-7f3"  # noqa: S105  nobody's
NOTHING_LOADED = """
import sys
import worker.app
from worker.observability.tracing import Reader, open_tracing
from worker.tracing_settings import TracingSettings

open_tracing(TracingSettings(), Reader("group", "pod-0"))
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_without_an_endpoint_nothing_is_imported() -> None:
    outcome = subprocess.run([sys.executable, "-c", NOTHING_LOADED], capture_output=True, text=True, check=True)
    assert "[]" == outcome.stdout.strip()


def test_without_an_endpoint_no_object_is_made() -> None:
    tracing, records = open_tracing(TracingSettings(), READER), [record_at()]
    assert UNTRACED is tracing
    assert records is tracing.taken_in(records, 1)


def test_a_missing_extra_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "worker.observability.otel", raising=False)
    with pytest.raises(ConfigError, match=r"nli-stream-worker\[otel\]"):
        open_tracing(TracingSettings(endpoint="http://127.0.0.1:4318"), READER)


@pytest.mark.parametrize(
    ("variable", "value", "protocol"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", SECRET, "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", SECRET, "grpc"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999", "http/protobuf"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "-1", "http/protobuf"),
    ],
)
def test_a_variable_that_opentelemetry_refuses_is_an_error_of_the_configuration_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, protocol: str
) -> None:
    monkeypatch.setenv(variable, value)
    settings = TracingSettings.model_validate({"endpoint": "https://127.0.0.1:4318", "protocol": protocol})
    with pytest.raises(ConfigError, match="OTEL_") as caught:
        open_tracing(settings, READER)
    assert SECRET not in str(caught.value)


def test_headers_for_the_collector_that_are_malformed_are_not_quoted_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", SECRET)
    root, stream = logging.getLogger(), io.StringIO()
    before = (root.level, list(root.handlers))
    try:
        configure_logging(form="json", stream=stream)
        open_tracing(TracingSettings(endpoint="http://127.0.0.1:4318"), READER).close()
    finally:
        root.setLevel(before[0])
        root.handlers[:] = before[1]
    assert "opentelemetry" in stream.getvalue()
    assert SECRET not in stream.getvalue()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_missing_exporter_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    kind = "http" if protocol.startswith("http") else "grpc"
    monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter", None)
    settings = TracingSettings.model_validate({"endpoint": "http://127.0.0.1:4318", "protocol": protocol})
    with pytest.raises(ConfigError, match=r"nli-stream-worker\[otel\]"):
        open_tracing(settings, READER)
