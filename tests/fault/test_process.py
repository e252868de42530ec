"""Signals: asked to end, told to end, stopped and woken."""

import signal
import time
from dataclasses import replace

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import HAS_PROC, SOON, STEADY, is_stopped
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, stays, wait_until

pytestmark = pytest.mark.kafka

SLOW = Faults(engine_seconds=0.2)
EXIT_INTERRUPTED = 130
SOON_OUT = {**SOON, "max.poll.interval.ms": 2500}
"""Who does not poll is out as soon as who does not answer; the default is five minutes."""
SLEPT_SECONDS = 4.5
"""Longer than session (2 s), poll interval (2.5 s) and transaction (4 s)."""
TRANSACTION_ENDED_SECONDS = 7.0
"""Its time-out (4 s), how often the broker looks (1 s), and some."""


def test_a_sigterm_in_the_midst_of_a_batch_drains_and_ends_in_order(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(SLOW) as process:
        attacked.await_progress(1)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(90)
    conclusive(attacked.position() < attacked.total, "nothing was left: the signal met no batch")
    assert '"worker.drain_unfinished"' not in attacked.log()
    assert verdict(attacked, "SIGTERM mid-batch", attacked.run_to_end()).is_perfect


def test_a_second_signal_leaves_at_once_and_is_still_safe(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="hang", at=20)) as process:
        wait_until(lambda: attacked.position() > 0, 60)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: '"worker.draining"' in attacked.log(), 30)
        process.send_signal(signal.SIGTERM)
        assert EXIT_INTERRUPTED == process.wait(30)
    assert verdict(attacked, "second SIGTERM while the engine hangs", attacked.run_to_end()).is_perfect


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
@pytest.mark.parametrize(
    "phase", ["while_scoring", pytest.param("after_produce", marks=pytest.mark.soak), "after_send_offsets"]
)
def test_a_worker_that_sleeps_past_its_session_and_its_transaction_wakes_up_safe(
    stream: StreamFactory, verdict: Verdict, phase: str
) -> None:
    attacked = stream(400, {"kafka": {"librdkafka": SOON_OUT}})
    with attacked.worker(Faults(phase=phase, at=4, signal="SIGSTOP")) as sleeper:
        wait_until(lambda: is_stopped(sleeper), 60)
        stopped = time.monotonic()
        with attacked.worker(environment={"WORKER_KAFKA__INSTANCE_ID": "pod-1", "WORKER_HTTP__PORT": "0"}) as other:
            done = 2 * attacked.count
            wait_until(lambda: attacked.position() == done, 90)  # longer than session, poll interval and transaction
            attacked.feed(100)
            conclusive(time.monotonic() - stopped > SLEPT_SECONDS, "it slept too short")
            sleeper.send_signal(signal.SIGCONT)
            seconds = attacked.await_end()
            assert sleeper.poll() is None
            for process in (sleeper, other):
                process.send_signal(signal.SIGTERM)
            assert [0, 0] == [process.wait(90) for process in (sleeper, other)]
    assert verdict(attacked, "SIGSTOP past the session, SIGCONT", seconds, phase=phase).is_perfect


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
def test_a_worker_that_wakes_up_after_another_one_took_its_name_is_fenced_and_goes_on(
    stream: StreamFactory, verdict: Verdict
) -> None:
    """Its transaction was open, and the other one ended it by taking its transactional id."""
    attacked = stream(400, {"kafka": {"librdkafka": SOON_OUT}})
    with attacked.worker(Faults(phase="after_send_offsets", at=4, signal="SIGSTOP")) as sleeper:
        wait_until(lambda: is_stopped(sleeper), 60)
        attacked.run_to_end(environment={"WORKER_HTTP__PORT": "0"})
        attacked.feed(100)
        sleeper.send_signal(signal.SIGCONT)
        seconds = attacked.await_end()
        assert sleeper.poll() is None
        assert '"producer.replaced"' in attacked.log()
        sleeper.send_signal(signal.SIGTERM)
        assert 0 == sleeper.wait(90)
    fault = "SIGSTOP, another takes its transactional id, SIGCONT"
    assert verdict(attacked, fault, seconds, phase="after send offsets").is_perfect


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
@pytest.mark.parametrize("phase", [pytest.param("after_produce", marks=pytest.mark.soak), "after_send_offsets"])
def test_a_transaction_that_the_broker_has_ended_is_made_again(
    stream: StreamFactory, verdict: Verdict, phase: str
) -> None:
    """The worker sleeps past its transaction, not past its session: nobody else takes its partitions."""
    attacked = stream(600, {"kafka": {"librdkafka": {"session.timeout.ms": 60_000}}})
    with attacked.worker(replace(STEADY, phase=phase, at=4, signal="SIGSTOP")) as sleeper:
        wait_until(lambda: is_stopped(sleeper), 60)
        stays(lambda: is_stopped(sleeper), TRANSACTION_ENDED_SECONDS)
        sleeper.send_signal(signal.SIGCONT)
        seconds = attacked.await_progress(200)
        assert sleeper.poll() is None
        sleeper.send_signal(signal.SIGTERM)
        assert 0 == sleeper.wait(90)
    assert '"producer.replaced"' in attacked.log()
    assert 1 == attacked.log().count('"partition.assigned"')
    attacked.run_to_end()
    assert verdict(attacked, "transaction ended by the broker", seconds, phase=phase).is_perfect
