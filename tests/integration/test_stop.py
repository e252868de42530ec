"""Asked to end while no broker answers: there is nothing to wait for."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.network import network
from tests.support.wait import wait_until
from tests.support.worker import Setup, get, set_up, worker_process
from worker.kafka.embedded_storage import free_port

START_SECONDS = 120.0
PROMPT_SECONDS = 20.0
"""Two as it is meant, the rest for a machine that has other things to do: less than the client's own waits."""
EXIT_INTERRUPTED = 130


@contextmanager
def silence(kind: str) -> Iterator[int]:
    """A port where no broker answers: nobody listens, or somebody does and says nothing."""
    if kind == "nobody":
        yield free_port()
        return
    with network() as made:
        made.swallow()
        yield made.port


@contextmanager
def lonely(folder: Path, kind: str) -> Iterator[Setup]:
    with silence(kind) as port:
        broker = cast("BrokerUnderTest", SimpleNamespace(bootstrap_servers=f"127.0.0.1:{port}"))
        yield set_up(folder, broker, ["tickets"])


def has_looked(setup: Setup) -> bool:
    return b'"broker.unreachable"' in setup.path.with_suffix(".log").read_bytes()


silent = pytest.mark.parametrize("kind", ["nobody", "mute"])


@silent
@pytest.mark.parametrize(("phase", "number"), [("first look", signal.SIGINT), ("afterwards", signal.SIGTERM)])
def test_a_worker_without_a_broker_ends_soon_after_it_is_asked_to(
    tmp_path: Path, kind: str, phase: str, number: signal.Signals
) -> None:
    with lonely(tmp_path, kind) as setup, worker_process(setup) as process:
        wait_until(lambda: b"not been looked up" in get(setup, "/readyz")[1], START_SECONDS)
        if phase == "afterwards":
            wait_until(lambda: has_looked(setup), START_SECONDS)
        asked_at = time.monotonic()
        process.send_signal(number)
        assert 0 == process.wait(START_SECONDS)
    assert time.monotonic() - asked_at < PROMPT_SECONDS


@silent
def test_a_second_signal_leaves_at_once(tmp_path: Path, kind: str) -> None:
    with lonely(tmp_path, kind) as setup, worker_process(setup) as process:
        wait_until(lambda: b"not been looked up" in get(setup, "/readyz")[1], START_SECONDS)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert EXIT_INTERRUPTED == process.wait(START_SECONDS)
