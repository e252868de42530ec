"""Ends and rebalances that have less time than the work takes, and a redo that must not score again."""

import signal

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import STEADY, kind_of, metric, of_transactions
from tests.support.chaos_worker import Faults
from tests.support.wait import wait_until

pytestmark = pytest.mark.kafka

LABELS = 2
DRAIN_SECONDS = 1
UNFINISHED = Faults(pair_seconds=0.1)
"""What is in flight takes some seconds: longer than the drain may."""


def test_a_drain_that_takes_too_long_ends_in_time_and_leaves_the_rest_to_the_next_worker(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(300, {"drain_seconds": DRAIN_SECONDS})
    with attacked.worker(UNFINISHED) as process:
        attacked.await_progress(1)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert '"worker.drain_unfinished"' in attacked.log()
    assert attacked.position() < attacked.total
    assert verdict(attacked, "SIGTERM, drain cut short", attacked.run_to_end()).is_perfect


@of_transactions
@pytest.mark.parametrize(
    "call",
    [
        pytest.param("begin", marks=pytest.mark.soak),
        "send_offsets",
        pytest.param("commit", marks=pytest.mark.soak),
    ],
)
def test_a_transaction_that_outlasts_the_budget_of_a_rebalance_is_whole_or_void(
    stream: StreamFactory, verdict: Verdict, call: str
) -> None:
    """The partition goes while it is under way: before our own last look, before the broker's, and after both."""
    attacked = stream(2000)
    slow = Faults(slow_call=call, slow_seconds=1.5, revoke_seconds=0.2, engine_seconds=0.02)
    with attacked.worker(slow) as process:
        attacked.await_progress(1)
        environment = {"WORKER_KAFKA__INSTANCE_ID": "pod-1", "WORKER_HTTP__PORT": "0"}
        with attacked.worker(STEADY, environment=environment) as other:
            wait_until(lambda: '"partition.revoked_uncommitted"' in attacked.log(), 60)
            attacked.await_members(2)
            seconds = attacked.await_progress(100)
            assert [None, None] == [process.poll(), other.poll()]
    attacked.run_to_end()
    assert verdict(attacked, "rebalance budget overrun", seconds, phase=call).is_perfect


@of_transactions
def test_transactions_that_are_aborted_are_made_again_without_scoring_again(
    stream: StreamFactory, verdict: Verdict
) -> None:
    # Without a cache of scores: it would hide what is asked for twice.
    attacked = stream(200, {"batching": {"latency_target_ms": 20, "cache_bytes": 0}})
    with attacked.worker(Faults(at=3, refuse_commits=5)) as process:
        wait_until(lambda: attacked.position() == attacked.total, 60)
        wait_until(lambda: metric(attacked, 'worker_transactions_total{outcome="aborted"}') == 5, 10)
        scored = metric(attacked, "worker_pairs_scored_total")
        assert process.poll() is None
    numbers = [number for number in range(attacked.count) if kind_of(number) != "bad"]
    assert LABELS * len(numbers) * len(attacked.setup.inputs) == scored
    assert verdict(attacked, "five commits in a row refused").is_perfect
