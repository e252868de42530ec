"""Static membership: a worker that comes back under its name, and two that have the same one."""

import signal
import time

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import HEALTHY, STEADY, Stream, under
from tests.support.wait import conclusive, wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

SESSION_MS = 20_000
"""Longer than a worker takes to start."""


def killed_and_back(attacked: Stream) -> float:
    """A worker that is killed under load and started again at once; seconds until it commits."""
    with attacked.worker(STEADY) as first:
        attacked.await_progress(100)
        first.kill()
        first.wait()
    with attacked.worker(STEADY) as second:
        seconds = attacked.await_progress(100, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert second.poll() is None
        second.send_signal(signal.SIGTERM)
        assert 0 == second.wait(180)
    return seconds


@pytest.mark.soak
def test_a_static_member_that_was_killed_is_back_at_once(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(1200, {"kafka": {"static_membership": True}})
    seconds = killed_and_back(attacked)
    attacked.run_to_end()
    assert verdict(attacked, "static member: SIGKILL, back at once (classic)", seconds).is_perfect


def test_under_kip_848_it_waits_in_its_process_until_its_old_session_has_ended(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(1200, under("consumer", static_membership=True))
    kafka.shorten_sessions(attacked.group, SESSION_MS)
    with attacked.worker(STEADY) as first:
        attacked.await_progress(100)
        first.kill()
        first.wait()
    started = time.monotonic()
    assigned = '"partition.assigned"'
    assignments = attacked.log().count(assigned)
    with attacked.worker(STEADY) as second:
        readiness = b""

        def waits_or_works() -> bool:
            nonlocal readiness
            readiness = get(attacked.setup, "/readyz")[1]
            return b"kafka.instance_id" in readiness or attacked.log().count(assigned) > assignments

        wait_until(waits_or_works, 60)
        conclusive(b"kafka.instance_id" in readiness, "the old session ended before the worker was back")
        assert 200 == get(attacked.setup, "/livez")[0]
        attacked.await_progress(1, 90)
        seconds = time.monotonic() - started
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert second.poll() is None
        second.send_signal(signal.SIGTERM)
        assert 0 == second.wait(180)
    attacked.run_to_end()
    name = f"static member: SIGKILL, back at once (consumer, session {SESSION_MS // 1000} s)"
    assert verdict(attacked, name, seconds).is_perfect


@pytest.mark.soak
def test_of_two_with_one_name_the_elder_ends_and_names_the_fix(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(1200, {"kafka": {"static_membership": True}})
    with attacked.worker(STEADY) as first:
        attacked.await_progress(100)
        with attacked.worker(STEADY, environment={"WORKER_HTTP__PORT": "0"}) as second:
            assert 1 == first.wait(180)
            attacked.await_progress(100)
            assert second.poll() is None
    assert "another worker has joined as kafka.instance_id pod-0: give every worker its own" in attacked.log()
    attacked.run_to_end()
    assert verdict(attacked, "two static members with one name (classic)").is_perfect


@pytest.mark.soak
def test_under_kip_848_the_younger_waits_and_names_the_fix(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(1200, under("consumer", static_membership=True))
    kafka.shorten_sessions(attacked.group, SESSION_MS)
    with attacked.worker(STEADY, environment={"WORKER_HTTP__PORT": "0"}) as first:
        attacked.await_progress(100)
        with attacked.worker(HEALTHY) as second:
            wait_until(lambda: b"give every worker its own" in get(attacked.setup, "/readyz")[1], 60)
            attacked.await_progress(200, 90)
            assert (None, None) == (first.poll(), second.poll())
            first.send_signal(signal.SIGTERM)
            assert 0 == first.wait(180)
            attacked.await_progress(100, 90)
    attacked.run_to_end()
    assert verdict(attacked, "two static members with one name (consumer)").is_perfect
