"""`worker broker` is what a newcomer starts first."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.broker import BrokerUnderTest

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka")]


def test_it_runs_until_it_is_asked_to_stop_and_then_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker", "broker", "--port", "0", "--json", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        client = BrokerUnderTest(ready["bootstrap_servers"], ready["cluster_id"])
        client.produce("made-by-writing-to-it", [b"first"])

        read = [message.value() for message in client.read_committed("made-by-writing-to-it")]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)

    assert [b"first"] == read
    assert (0, b"") == (process.returncode, errors)


def test_three_nodes_keep_every_record_three_times() -> None:
    command = [sys.executable, "-m", "worker", "broker", "--port", "0", "--nodes", "3", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        client = BrokerUnderTest(ready["bootstrap_servers"], ready["cluster_id"])
        client.produce("on-three-nodes", [b"first"])
        found = client.admin().list_topics("on-three-nodes", timeout=30).topics["on-three-nodes"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)

    assert 3 == len(ready["bootstrap_servers"].split(","))
    assert {3} == {len(partition.replicas) for partition in found.partitions.values()}
    assert (0, b"") == (process.returncode, errors)


def test_a_taken_port_is_said_in_one_line(kafka: BrokerUnderTest) -> None:
    port = kafka.bootstrap_servers.rpartition(":")[2]

    result = subprocess.run(
        [sys.executable, "-m", "worker", "broker", "--port", port], capture_output=True, check=False, timeout=60
    )

    assert 2 == result.returncode
    assert b"" == result.stdout
    assert [f"worker: port {port} of 127.0.0.1 is taken: name another one, or let a free one be chosen"] == (
        result.stderr.decode().splitlines()
    )
