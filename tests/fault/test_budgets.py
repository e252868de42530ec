"""Ends and rebalances that have less time than the work takes, and a redo that must not score again."""

import signal
from typing import Any

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import STEADY, Stream, events, kind_of, metric, moment, of_transactions
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, wait_until

pytestmark = pytest.mark.kafka

LABELS = 2
DRAIN_SECONDS = 1
CLOCK_SECONDS = 0.05
"""By how much the time of day may differ from what a wait goes by."""
UNFINISHED = Faults(pair_seconds=0.1)
"""What is in flight takes some seconds: longer than the drain may."""


def commits(attacked: Stream, process: int) -> list[dict[str, Any]]:
    """Those that this worker was told of as done."""
    told = events(attacked, "transaction.told")
    return [e for e in told if (e["call"], e["outcome"], e["process"]) == ("committed", "done", process)]


def test_a_drain_that_takes_too_long_is_cut_short_in_its_time_and_leaves_the_rest_to_the_next_worker(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(300, {"drain_seconds": DRAIN_SECONDS})
    with attacked.worker(UNFINISHED) as process:
        attacked.await_progress(1)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    (draining,), (unfinished,) = events(attacked, "worker.draining"), events(attacked, "worker.drain_unfinished")
    rest_seconds = draining["records"] * LABELS * UNFINISHED.pair_seconds
    conclusive(rest_seconds > 4 * DRAIN_SECONDS, "there was little to drain")
    assert DRAIN_SECONDS <= moment(unfinished) - moment(draining) + CLOCK_SECONDS < rest_seconds / 2
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
            # As the next owner told it: nobody can read the group's position while the slow one has a transaction open.
            wait_until(lambda: bool(commits(attacked, other.pid)), 60)
            seconds = moment(commits(attacked, other.pid)[0]) - moment(events(attacked, "partition.revoked")[0])
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
