"""Signals: asked to end, told to end, stopped and woken."""

import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import HAS_PROC, SOON, STEADY, events, is_stopped
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, stays, wait_until
from tests.support.worker import Changes

pytestmark = pytest.mark.kafka

SLOW = Faults(engine_seconds=0.2)
EXIT_INTERRUPTED = 130
NEXT_OWNER = {"WORKER_KAFKA__INSTANCE_ID": "pod-1", "WORKER_HTTP__PORT": "0"}
SOON_OUT = {**SOON, "max.poll.interval.ms": 2500}
"""Who does not poll is out as soon as who does not answer; the default is five minutes."""
LONG_DRAIN_SECONDS = 600
"""How long the worker would stay, if it were for its engine."""
SLEPT_SECONDS = 4.5
"""Longer than session (2 s), poll interval (2.5 s) and transaction (4 s)."""
TRANSACTION_ENDED_SECONDS = 7.0
"""Its time-out (4 s), how often the broker looks (1 s), and some."""


def soon_out(protocol: str) -> Changes:
    """What to change for a group protocol, so that a member that does nothing is out soon."""
    # Under KIP-848 the session is the broker's, and the client takes no poll interval that is shorter than its own.
    librdkafka = SOON_OUT if protocol == "classic" else {"max.poll.interval.ms": 45_000}
    return {"kafka": {"group_protocol": protocol, "librdkafka": librdkafka}}


def test_a_sigterm_in_the_midst_of_a_batch_drains_and_ends_in_order(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(SLOW) as process:
        attacked.await_progress(1)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(90)
    conclusive(attacked.position() < attacked.total, "nothing was left: the signal met no batch")
    assert '"worker.drain_unfinished"' not in attacked.log()
    assert verdict(attacked, "SIGTERM mid-batch", attacked.run_to_end()).is_perfect


def test_a_second_signal_does_not_wait_for_the_drain_and_is_still_safe(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400, {"drain_seconds": LONG_DRAIN_SECONDS})
    with attacked.worker(Faults(engine="hang", at=20)) as process:
        wait_until(lambda: attacked.position() > 0, 60)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: '"worker.draining"' in attacked.log(), 30)
        process.send_signal(signal.SIGTERM)
        assert EXIT_INTERRUPTED == process.wait(LONG_DRAIN_SECONDS / 6)
    assert verdict(attacked, "second SIGTERM while the engine hangs", attacked.run_to_end()).is_perfect


@pytest.mark.skipif(not HAS_PROC, reason="the state of a process is read from /proc")
@pytest.mark.parametrize(
    ("phase", "protocol"),
    [
        ("while_scoring", "classic"),
        pytest.param("after_produce", "classic", marks=pytest.mark.soak),
        ("after_send_offsets", "classic"),
        pytest.param("after_send_offsets", "consumer", marks=pytest.mark.soak),
    ],
)
def test_a_worker_that_sleeps_past_its_session_and_its_transaction_wakes_up_safe(
    stream: StreamFactory, verdict: Verdict, phase: str, protocol: str
) -> None:
    attacked = stream(400, soon_out(protocol))
    with attacked.worker(Faults(phase=phase, at=4, signal="SIGSTOP")) as sleeper:
        wait_until(lambda: is_stopped(sleeper), 60)
        stopped = time.monotonic()
        with attacked.worker(environment=NEXT_OWNER) as other:
            done = 2 * attacked.count
            wait_until(lambda: attacked.position() == done, 90)  # longer than session, poll interval and transaction
            attacked.feed(100)
            stays(lambda: is_stopped(sleeper), SLEPT_SECONDS - (time.monotonic() - stopped), "its sleep")
            sleeper.send_signal(signal.SIGCONT)
            seconds = attacked.await_end()
            assert sleeper.poll() is None
            for process in (sleeper, other):
                process.send_signal(signal.SIGTERM)
            assert [0, 0] == [process.wait(90) for process in (sleeper, other)]
    assert verdict(attacked, f"SIGSTOP past the session, SIGCONT ({protocol})", seconds, phase=phase).is_perfect


@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.soak)])
def test_a_worker_that_does_not_poll_in_time_while_its_client_lives_gives_all_away_and_comes_back(
    stream: StreamFactory, verdict: Verdict, tmp_path: Path, protocol: str
) -> None:
    """Its client beats all the while and leaves the group by itself; what it had in hand is then another one's."""
    attacked = stream(400, soon_out(protocol))
    held = tmp_path / "held"
    held.touch()
    with attacked.worker(Faults(phase="after_poll", at=250, signal="hold", held_by=str(held))) as sleeper:
        wait_until(lambda: '"trap.held"' in attacked.log(), 60)
        with attacked.worker(environment=NEXT_OWNER) as other:
            wait_until(lambda: attacked.position() == attacked.total, 90)
            attacked.feed(100)
            held.unlink()
            seconds = attacked.await_end()
            wait_until(lambda: attacked.kafka.members(attacked.group) == 2, 90, "its return to the group", 0.5)
            assert (None, None) == (sleeper.poll(), other.poll())
            for process in (sleeper, other):
                process.send_signal(signal.SIGTERM)
            assert [0, 0] == [process.wait(90) for process in (sleeper, other)]
    assert ["_MAX_POLL_EXCEEDED"] == [each["reason"] for each in events(attacked, "consumer.error_reported")]
    name = f"its poll thread sleeps past the poll interval, its client lives ({protocol})"
    assert verdict(attacked, name, seconds).is_perfect


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
