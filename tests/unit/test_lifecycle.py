"""A thread that dies ends the worker, whatever else has broken."""

import os
import signal
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog

from worker.lifecycle import Lifecycle, _obey


def die() -> None:
    raise OSError("the disk is gone")


def run(lifecycle: Lifecycle) -> None:
    thread = lifecycle.thread(die, "labels")
    thread.start()
    thread.join()


def test_a_thread_that_dies_ends_the_worker_and_is_told(
    log_events: list[MutableMapping[str, Any]], expected_errors: set[str]
) -> None:
    expected_errors.add("thread.died")
    lifecycle = Lifecycle()
    run(lifecycle)
    assert lifecycle.is_stopping
    assert isinstance(lifecycle.failure, OSError)
    assert [("labels", "OSError")] == [(event["thread"], event["error"]) for event in log_events]


def test_a_log_that_cannot_be_written_hides_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the log may have gone: then the thread's last word fails, too."""

    def fail(*_: object) -> None:
        raise ValueError("I/O operation on closed file")

    structlog.configure(processors=[fail])  # type: ignore[list-item]  # it fails whatever it is given
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    lifecycle = Lifecycle()
    run(lifecycle)
    assert lifecycle.is_stopping
    assert isinstance(lifecycle.failure, OSError)


def test_the_first_signal_asks_to_stop_and_the_second_to_leave() -> None:
    """Others have a number in the pipe too, once somebody handles them."""
    reader, writer = os.pipe()
    os.write(writer, bytes([signal.SIGCHLD, signal.SIGINT, signal.SIGCHLD, signal.SIGTERM]))
    os.close(writer)
    told: list[str] = []
    _obey(reader, lambda: told.append("stop"), lambda: told.append("leave"))
    os.close(reader)
    assert ["stop", "leave"] == told
