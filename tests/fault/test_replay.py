"""Dead letters that are sent again while the broker dies."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HAS_PROC, is_stopped
from tests.support.chaos_worker import ENVIRONMENT
from tests.support.wait import wait_until
from tests.support.worker import Setup, run_to_end, set_up
from worker.kafka.embedded import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")]

COUNT = 30
TRANSACTION_MS = 4000


@contextmanager
def replaying(setup: Setup, phase: str = "never") -> Iterator[subprocess.Popen[bytes]]:
    """`worker dead-letters replay`, which stops itself at `phase`; killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.support.chaos_worker", "dead-letters", "replay", "-c", str(setup.path)]
    fault = {ENVIRONMENT: json.dumps({"phase": phase, "at": 1, "signal": "SIGSTOP"})}
    process = subprocess.Popen([*command, "--yes", "--json"], env={**os.environ, **fault}, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("phase", ["after_produce", pytest.param("after_send_offsets", marks=pytest.mark.soak)])
def test_a_replay_whose_coordinator_is_lost_ends_and_the_next_one_sends_the_rest(
    kafka: BrokerUnderTest, tmp_path: Path, phase: str
) -> None:
    """The client's own wait for a coordinator that is away may never end; the command's has to."""
    if kafka.embedded is None:
        pytest.skip("the broker is not ours to kill")
    with EmbeddedKafka() as broker:
        own = BrokerUnderTest(broker.bootstrap_servers, broker.cluster_id, broker)
        own.create_topics({"in": 3})
        setup = set_up(tmp_path, own, ["in"], {"kafka": {"transaction_timeout_ms": TRANSACTION_MS}})
        own.create_topics(dict.fromkeys(setup.outputs, 3))
        values = [f"broken {number}".encode() for number in range(COUNT)]
        own.produce("in", [{"value": value, "partition": number % 3} for number, value in enumerate(values)])
        run_to_end(setup)
        with replaying(setup, phase) as process:
            wait_until(lambda: is_stopped(process), 60)
            broker.kill()
            process.send_signal(signal.SIGCONT)
            assert 1 == process.wait(120)
        broker.start()
        own.admin().list_topics(timeout=REQUEST_SECONDS)
        with replaying(setup) as process:
            told, _ = process.communicate(timeout=240)
            assert 0 == process.returncode
        assert COUNT == json.loads(told.splitlines()[-1])["sent"]
        assert dict.fromkeys(values, 2) == Counter(message.value() for message in own.read_committed("in"))
