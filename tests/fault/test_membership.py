"""A worker that the group has thrown out, and does not take back for a while."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HAS_PROC, STEADY, Stream, is_stopped
from tests.support.wait import conclusive, found_in_time, stays, wait_until
from tests.support.worker import get

pytestmark = [pytest.mark.kafka, pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")]

LOST = b"the group has taken the partitions away"
HELD_SECONDS = 3.0
HOLDUP = """
import signal, sys
from confluent_kafka import Consumer

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
servers, group, *topics = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": servers,
    "group.id": group,
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 300_000,
    "enable.auto.commit": False,
})
consumer.subscribe(topics)
try:
    while True:
        consumer.poll(0.05)
        consumer.pause(consumer.assignment())
finally:
    consumer.close()
"""
"""A member that reads nothing. While it sleeps the group waits for it in every rebalance, and everyone else does."""


@contextmanager
def holdup(kafka: BrokerUnderTest, attacked: Stream) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDUP, kafka.bootstrap_servers, attacked.group, *attacked.setup.inputs]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def put_to_sleep(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_stopped(process), 30)


def joined(kafka: BrokerUnderTest, group: str) -> int:
    """How many members the group has, with or without partitions."""
    admin = kafka.admin()  # alive until its futures are done
    return len(admin.describe_consumer_groups([group])[group].result(REQUEST_SECONDS).members)


def test_a_worker_that_lost_its_partitions_says_so_until_the_group_has_taken_it_back(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    """It has no lag then, and nothing that stands still: only its membership says that it does nothing."""
    attacked = stream(1200)
    with attacked.worker(STEADY) as worker:
        attacked.await_progress(50)
        with holdup(kafka, attacked) as other:
            wait_until(lambda: kafka.members(attacked.group) == 2, 60)
            wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
            put_to_sleep(other)
            put_to_sleep(worker)
            wait_until(lambda: joined(kafka, attacked.group) == 1, 60)
            worker.send_signal(signal.SIGCONT)
            found_in_time(lambda: LOST in get(attacked.setup, "/readyz")[1], 30)
            stays(lambda: get(attacked.setup, "/readyz")[0] == 503, HELD_SECONDS, "being unready")
            assert 200 == get(attacked.setup, "/livez")[0]
            other.send_signal(signal.SIGCONT)
            found_in_time(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
            conclusive(attacked.position() < attacked.total, "all was done before it was thrown out")
            other.send_signal(signal.SIGTERM)
            assert 0 == other.wait(90)
        seconds = attacked.await_progress(10)
        assert worker.poll() is None
    attacked.run_to_end()
    assert verdict(attacked, "thrown out of the group, taken back late", seconds).is_perfect
