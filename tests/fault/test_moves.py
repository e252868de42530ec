"""Partitions that move away while records of them are in hand: within which time, and who finishes those."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import DELIVERY, PARTITIONS, Stream, events, metric, moment, of_transactions, under
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, found_in_time, wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

NEXT_OWNER = {"WORKER_KAFKA__INSTANCE_ID": "pod-1", "WORKER_HTTP__PORT": "0"}
BUDGET_SECONDS = 1.0
"""Of a rebalance, for these workers; what ships has ten."""
CLOCK_SECONDS = 0.05
"""By how much the time of day may differ from what a wait goes by."""
BUSY_SECONDS = 2 * BUDGET_SECONDS
PUBLISHING = "during_commit" if DELIVERY == "exactly_once" else "after_flush"
MOST_SECONDS = 5 * BUDGET_SECONDS
"""What a wait of that length takes on a machine that has far too much to do, and half of the budget that ships."""
SLOWER = "its engine is sixty times slower than that"
MOVE_SECONDS = 30 * BUDGET_SECONDS
"""Half of what such an engine takes for one batch: who waited for it would take longer, on any machine."""
HANGING: Mapping[str, tuple[str, Faults]] = {
    SLOWER: ("score", Faults(engine_seconds=60 * BUDGET_SECONDS, revoke_seconds=BUDGET_SECONDS)),
    "its engine hangs": ("score", Faults(engine="hang", at=10, revoke_seconds=BUDGET_SECONDS)),
    "its publication hangs": ("publish", Faults(phase=PUBLISHING, signal="hang", revoke_seconds=BUDGET_SECONDS)),
}


def moved(attacked: Stream) -> dict[str, list[int]]:
    """The partitions that the first worker gave away, by topic."""
    revoked, *_ = events(attacked, "partition.revoked")
    return dict(revoked["partitions"])


def is_done(attacked: Stream, partitions: Mapping[str, list[int]]) -> bool:
    """Whether the group has committed all that was fed to these."""
    committed = {topic: attacked.kafka.committed_offsets(attacked.group, topic) for topic in partitions}
    goal = attacked.count // PARTITIONS
    return all(committed[topic].get(number, 0) == goal for topic, numbers in partitions.items() for number in numbers)


def is_stuck(attacked: Stream, stage: str) -> bool:
    """Whether the worker has been at one and the same piece of work for longer than the budget of a rebalance."""
    ages = json.loads(get(attacked.setup, "/livez")[1] or b"{}").get("stages", {})
    return stage in ages and ages[stage]["busy"] and ages[stage]["seconds"] > BUSY_SECONDS


def await_move(attacked: Stream) -> float:
    """Until what the first worker had to give away is another one's; how many seconds that took."""

    def taken() -> list[dict[str, Any]]:
        return [each for each in events(attacked, "partition.assigned") if each["partitions"]][1:]

    wait_until(lambda: bool(taken()), 90)
    given = events(attacked, "partition.revoked")
    conclusive(given, "the first worker lost its partitions before there was another one")
    assert given[0]["partitions"] == taken()[0]["partitions"]
    return moment(taken()[0]) - moment(given[0])


@pytest.mark.parametrize(
    "what", ["its engine hangs", "its publication hangs", pytest.param(SLOWER, marks=pytest.mark.soak)]
)
def test_a_rebalance_waits_no_longer_than_its_budget_for_a_worker_that_does_not_come_to_an_end(
    stream: StreamFactory, verdict: Verdict, what: str
) -> None:
    """Its partitions are another worker's, and done, while it still has records of them in hand."""
    attacked = stream(400)
    stage, faults = HANGING[what]
    with attacked.worker(faults) as stuck:
        wait_until(lambda: is_stuck(attacked, stage), 90)
        with attacked.worker(environment=NEXT_OWNER) as other:
            seconds = await_move(attacked)
            found_in_time(lambda: is_done(attacked, moved(attacked)), 60)
            assert [None, None] == [stuck.poll(), other.poll()]
            assert attacked.position() < attacked.total
    assert seconds < MOVE_SECONDS
    if stage == "publish":  # nothing else keeps it from committing what is finished
        (given_up,) = events(attacked, "partition.revoked_uncommitted")
        assert BUDGET_SECONDS == given_up["budget_seconds"]
        waited_seconds = moment(given_up) - moment(events(attacked, "partition.revoked")[0])
        assert BUDGET_SECONDS <= waited_seconds + CLOCK_SECONDS < MOST_SECONDS
    attacked.run_to_end()
    name = f"rebalance (budget {BUDGET_SECONDS:.0f} s) while {what}, killed by its probe"
    assert verdict(attacked, name, seconds).is_perfect


@of_transactions
@pytest.mark.parametrize(
    ("build", "protocol"),
    [
        ("broken build", "classic"),
        ("the worker", "classic"),
        pytest.param("broken build", "consumer", marks=pytest.mark.soak),
        pytest.param("the worker", "consumer", marks=pytest.mark.soak),
    ],
)
def test_what_is_in_flight_when_its_partition_moves_is_published_twice_but_for_the_filter(
    stream: StreamFactory, verdict: Verdict, tmp_path: Path, build: str, protocol: str
) -> None:
    """The broker takes outputs and offsets for a partition that the member no longer owns."""
    attacked = stream(400, {**under(protocol), "limits": {"in_flight_records": 1000}})
    hold = tmp_path / "hold"
    hold.touch()
    with attacked.worker(Faults(held_by=str(hold), unfiltered=build != "the worker")) as former:
        wait_until(lambda: metric(attacked, "worker_records_in_flight ") + attacked.position() == attacked.total, 90)
        with attacked.worker(environment=NEXT_OWNER) as latter:
            seconds = await_move(attacked)
            gone = moved(attacked)
            found_in_time(lambda: is_done(attacked, gone), 60)
            hold.unlink()
            kept = {topic: sorted({*range(PARTITIONS)} - {*gone.get(topic, [])}) for topic in attacked.setup.inputs}
            wait_until(lambda: is_done(attacked, kept), 60)
            assert [None, None] == [former.poll(), latter.poll()]
    attacked.run_to_end()
    if build == "the worker":
        assert verdict(attacked, f"partitions move while their records are scored ({protocol})", seconds).is_perfect
        return
    tally = verdict(attacked, f"broken build: no filter when partitions move ({protocol})", seconds)
    assert 0 == tally.lost
    assert 0 < tally.doubled
