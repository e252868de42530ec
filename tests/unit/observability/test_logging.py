"""Nothing a user wrote reaches the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from worker.errors import ConfigError
from worker.observability.logging import configure_logging

MARKER = "text-of-a-user-4711"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level, handlers = structlog.get_config(), root.level, list(root.handlers)
    yield io.StringIO()
    structlog.configure(**before)
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.contextvars.clear_contextvars()


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _fail_with(text: str) -> None:
    raise ValueError(f"cannot use {text}")


def test_an_event_is_one_json_object_with_its_values_as_keys(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    structlog.contextvars.bind_contextvars(worker="w-1")

    structlog.get_logger().info("partition.assigned", topic="in", partition=3)

    (line,) = _lines(stream)
    assert line.pop("time")
    assert {
        "event": "partition.assigned",
        "level": "info",
        "worker": "w-1",
        "topic": "in",
        "partition": 3,
    } == line


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    configure_logging("warning", "json", stream)

    structlog.get_logger().info("batch.scored")

    assert "" == stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_foreign_exception_shows_its_type_and_place_and_none_of_its_words(stream: io.StringIO, form: str) -> None:
    configure_logging("info", "json" if form == "json" else "console", stream)
    try:
        _fail_with(MARKER)
    except ValueError:
        structlog.get_logger().exception("batch.failed")

    assert MARKER not in stream.getvalue()
    assert "builtins.ValueError" in stream.getvalue()
    assert "_fail_with" in stream.getvalue()


def test_an_exception_given_as_a_value_is_reduced_too(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)

    structlog.get_logger().warning("broker.lost", error=ValueError(MARKER))

    (line,) = _lines(stream)
    assert {"type": "builtins.ValueError", "frames": []} == line["error"]


def test_our_own_error_keeps_its_message_and_its_cause_loses_it(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)
    try:
        try:
            _fail_with(MARKER)
        except ValueError as cause:
            raise ConfigError("kafka.group_id is missing") from cause
    except ConfigError:
        structlog.get_logger().exception("worker.failed")

    assert MARKER not in stream.getvalue()
    exception = _lines(stream)[0]["exception"]
    assert isinstance(exception, dict)
    assert ("worker.errors.ConfigError", "kafka.group_id is missing") == (exception["type"], exception["message"])
    assert ["builtins.ValueError"] == [cause["type"] for cause in exception["causes"]]


def test_a_value_that_json_does_not_know_shows_its_type_only(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)

    structlog.get_logger().info("record.seen", record=MARKER.encode())

    assert "<bytes>" == _lines(stream)[0]["record"]


def test_a_library_is_heard_from_warning_up_without_what_it_was_handed(stream: io.StringIO) -> None:
    configure_logging("debug", "json", stream)
    library = logging.getLogger("some_library.module")

    library.info("below")
    library.warning("cannot use %s", MARKER)
    library.warning(f"cannot use {MARKER}")

    assert MARKER not in stream.getvalue()
    assert ["cannot use %s", "withheld"] == [line["message"] for line in _lines(stream)]
    assert {("library.logged", "warning", "some_library.module")} == {
        (line["event"], line["level"], line["library"]) for line in _lines(stream)
    }


def test_a_library_that_sees_no_texts_is_heard_in_full(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)

    logging.getLogger("huggingface_hub.download").warning("%s is not there", "model.safetensors")

    assert "model.safetensors is not there" == _lines(stream)[0]["message"]


def test_configuring_twice_writes_every_line_once(stream: io.StringIO) -> None:
    configure_logging("info", "json", io.StringIO())
    configure_logging("info", "json", stream)

    logging.getLogger("jgo").warning("once")

    assert 1 == len(_lines(stream))


def test_what_goes_wrong_with_spans_is_no_error_of_ours(stream: io.StringIO) -> None:
    configure_logging("info", "json", stream)

    logging.getLogger("opentelemetry.exporter.some").error("Failed to export")
    logging.getLogger("some_library.module").error("cannot go on")

    assert ["warning", "error"] == [line["level"] for line in _lines(stream)]
