"""The broker dies, and somebody else takes our transactional id."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HAS_PROC, PARTITIONS, SOON, STEADY, Stream, is_stopped, of_transactions
from tests.support.wait import stays, wait_until
from tests.support.worker import NOTHING, Changes, get
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.publishing import FULL_QUEUE_SECONDS

pytestmark = pytest.mark.kafka


@pytest.fixture
def own_kafka(kafka: BrokerUnderTest) -> Iterator[BrokerUnderTest]:
    """A broker that this test may kill."""
    if kafka.embedded is None:
        pytest.skip("the broker is not ours to kill")
    with EmbeddedKafka() as embedded:
        yield BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)


def stream_on(
    kafka: BrokerUnderTest, folder: Path, count: int, changes: Changes = NOTHING
) -> tuple[Stream, EmbeddedKafka]:
    """A stream, and the broker that it is on."""
    inputs = ["a", "b"]
    kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
    attacked = Stream(kafka, folder, inputs, changes)
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


def freeze(broker: EmbeddedKafka, attacked: Stream, process: subprocess.Popen[bytes], seconds: float) -> None:
    """For `seconds` the broker does nothing at all, and its connections stand; the worker lives through it."""
    frozen = broker._server
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(frozen), 10)
        stays(lambda: process.poll() is None and get(attacked.setup, "/livez")[0] == 200, seconds)
    finally:
        frozen.send_signal(signal.SIGCONT)


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
@pytest.mark.parametrize(
    ("seconds", "times"), [(1.0, 3), (6.0, 1), pytest.param(6.0, 5, marks=pytest.mark.soak)], ids=str
)
def test_a_broker_that_stops_to_think_again_and_again_costs_nothing_but_time(
    own_kafka: BrokerUnderTest, tmp_path: Path, verdict: Verdict, seconds: float, times: int
) -> None:
    """For less than the session (2 s) and the transaction (4 s) last, and for longer than both."""
    attacked, broker = stream_on(own_kafka, tmp_path, 500 + 500 * times)
    with attacked.worker(STEADY) as process:
        attacked.await_progress(50)
        recoveries = []
        for _ in range(times):
            freeze(broker, attacked, process, seconds)
            recoveries.append(attacked.await_progress(50, 90))
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    name = f"broker: SIGSTOP for {seconds:.0f} s, SIGCONT, {'once' if times == 1 else f'{times} times'}"
    assert verdict(attacked, name, max(recoveries)).is_perfect


@pytest.mark.soak
@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
def test_a_local_queue_that_stays_full_because_the_broker_thinks_costs_nothing_but_time(
    own_kafka: BrokerUnderTest, tmp_path: Path, verdict: Verdict
) -> None:
    """For longer than the worker waits for room in it."""
    small = {"kafka": {"librdkafka": {**SOON, "queue.buffering.max.messages": 10}}}
    attacked, broker = stream_on(own_kafka, tmp_path, 1500, small)
    with attacked.worker(STEADY) as process:
        attacked.await_progress(50)
        freeze(broker, attacked, process, FULL_QUEUE_SECONDS + 10)
        seconds = attacked.await_progress(50, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert '"queue.found_full"' in attacked.log()
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    name = f"broker: SIGSTOP for {FULL_QUEUE_SECONDS + 10:.0f} s, a local queue of 10 records"
    assert verdict(attacked, name, seconds).is_perfect


@of_transactions
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
