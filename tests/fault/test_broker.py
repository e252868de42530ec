"""The broker dies, and somebody else takes our transactional id."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HAS_PROC, PARTITIONS, STEADY, Stream, is_stopped
from tests.support.wait import wait_until
from worker.kafka.embedded import EmbeddedKafka

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_kafka(kafka: BrokerUnderTest) -> Iterator[BrokerUnderTest]:
    """A broker that this test may kill."""
    if kafka.embedded is None:
        pytest.skip("the broker is not ours to kill")
    with EmbeddedKafka() as embedded:
        yield BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)


def stream_on(kafka: BrokerUnderTest, folder: Path, count: int) -> tuple[Stream, EmbeddedKafka]:
    """A stream, and the broker that it is on."""
    inputs = ["a", "b"]
    kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
    attacked = Stream(kafka, folder, inputs)
    attacked.feed(count)
    assert kafka.embedded is not None
    return attacked, kafka.embedded


def test_a_broker_that_is_killed_and_comes_back_costs_nothing_but_time(
    own_kafka: BrokerUnderTest, tmp_path: Path, verdict: Verdict
) -> None:
    attacked, broker = stream_on(own_kafka, tmp_path, 1500)
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        broker.kill()
        assert process.poll() is None
        broker.start()
        own_kafka.admin().list_topics(timeout=REQUEST_SECONDS)
        seconds = attacked.await_progress(200, 90)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    assert verdict(attacked, "broker: kill -9 and restart", seconds).is_perfect


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
@pytest.mark.parametrize("phase", ["after_produce", pytest.param("after_send_offsets", marks=pytest.mark.soak)])
def test_a_broker_that_is_killed_within_a_transaction_costs_nothing_but_time(
    own_kafka: BrokerUnderTest, tmp_path: Path, verdict: Verdict, phase: str
) -> None:
    """The client's own waits for a coordinator that is away do not all end by themselves."""
    attacked, broker = stream_on(own_kafka, tmp_path, 1500)
    with attacked.worker(replace(STEADY, phase=phase, signal="SIGSTOP")) as process:
        wait_until(lambda: is_stopped(process), 60)
        broker.kill()
        process.send_signal(signal.SIGCONT)
        broker.start()
        own_kafka.admin().list_topics(timeout=REQUEST_SECONDS)
        seconds = attacked.await_progress(100, 120)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    assert verdict(attacked, "broker: kill -9 and restart", seconds, phase=phase.replace("_", " ")).is_perfect


def test_two_workers_with_one_transactional_id_find_out_and_one_names_it(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(1500)
    with attacked.worker(STEADY) as first:
        attacked.await_progress(100)
        with attacked.worker(STEADY, environment={"WORKER_HTTP__PORT": "0"}) as second:
            wait_until(lambda: first.poll() is not None or second.poll() is not None, 90)
            assert 1 in {first.poll(), second.poll()}
    assert f"another process uses the transactional id {attacked.group}.pod-0" in attacked.log()
    assert verdict(attacked, "two workers with one transactional id", attacked.run_to_end()).is_perfect
