"""Several worker processes under one parent, on a real broker."""

import json
import os
import re
import signal
import uuid
from pathlib import Path

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from tests.support.worker import END_SECONDS, Setup, get, set_up, wait_ready, worker_process

pytestmark = pytest.mark.kafka
MESSAGES = 200


def events(first: int) -> list[bytes]:
    return [json.dumps({"id": str(n), "text": f"text number {n}"}).encode() for n in range(first, first + MESSAGES)]


def ids(kafka: BrokerUnderTest, topic: str) -> list[str]:
    return sorted(
        json.loads(message.value() or b"{}")["id"] for message in kafka.read_committed(f"{topic}.predictions")
    )


def child_pids(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return sorted(int(pid) for pid in listed)


def restarts(setup: Setup) -> int:
    found = re.search(rb"^worker_process_restarts_total (\S+)", get(setup, "/metrics")[1], re.MULTILINE)
    return int(float(found.group(1))) if found else -1


def processes(setup: Setup) -> set[bytes]:
    return set(re.findall(rb'worker_records_consumed_total\{.*process="([^"]+)"', get(setup, "/metrics")[1]))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are found in /proc")
def test_a_killed_process_is_restarted_and_a_stop_drains_all(tmp_path: Path, kafka: BrokerUnderTest) -> None:
    """Nothing is lost or doubled by the death of one process, and the parent speaks for all on one port."""
    fleet = f"fleet-{uuid.uuid4().hex[:8]}"
    kafka.create_topics(dict.fromkeys((fleet, f"{fleet}.predictions", f"{fleet}.dlq"), 4))
    setup = set_up(tmp_path, kafka, [fleet], {"kafka": {"instance_id": "node"}})
    with worker_process(setup, "--workers", "2") as parent:
        wait_ready(setup)
        before = child_pids(parent.pid)
        assert 2 == len(before)
        kafka.produce(fleet, events(0))
        wait_until(lambda: len(ids(kafka, fleet)) == MESSAGES, END_SECONDS)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: restarts(setup) == 1, END_SECONDS)
        kafka.produce(fleet, events(MESSAGES))
        wait_until(lambda: len(ids(kafka, fleet)) == 2 * MESSAGES, END_SECONDS)
        wait_ready(setup)
        after = child_pids(parent.pid)
        assert 2 == len(after)
        assert [before[1]] == [pid for pid in after if pid in before]
        wait_until(lambda: processes(setup) <= {b"worker-1", b"worker-2"} and processes(setup) != set(), END_SECONDS)
        kafka.produce(fleet, events(2 * MESSAGES))
        parent.send_signal(signal.SIGTERM)
        assert 0 == parent.wait(END_SECONDS)
    assert not any(Path(f"/proc/{pid}").exists() for pid in after)
    found = ids(kafka, fleet)
    assert len(found) == len(set(found))
    # What was still there at the stop is read by whoever comes next; nothing committed is missing from the outputs.
    committed = sum(kafka.committed_offsets(f"group-{fleet}", fleet).values())
    assert committed == len(found)
