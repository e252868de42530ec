"""SIGKILL at every phase of a record's way."""

import contextlib
import random
import signal
import subprocess
from dataclasses import replace

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import STEADY
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive

pytestmark = pytest.mark.kafka

PHASES = {
    "after poll": Faults(phase="after_poll", at=250),
    "while scoring": Faults(phase="while_scoring", at=30),
    "after produce": Faults(phase="after_produce"),
    "after send_offsets": Faults(phase="after_send_offsets"),
    "during commit": Faults(phase="during_commit", at=6),  # by then it is known how long one takes
    "after commit": Faults(phase="after_commit"),
    "during abort": Faults(phase="during_abort", at=1, refuse_commits=1),
}
KILLED = {-signal.SIGKILL, -signal.SIGALRM}


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_at_any_phase_loses_and_doubles_nothing(
    stream: StreamFactory, verdict: Verdict, phase: str
) -> None:
    attacked = stream(400)
    with attacked.worker(PHASES[phase]) as process:
        assert process.wait(180) in KILLED
    conclusive("trap.missed" not in attacked.log(), "the kill came after what it was to interrupt")
    assert verdict(attacked, "SIGKILL", attacked.run_to_end(), phase=phase).is_perfect


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_thirty_kills_at_random_under_load_lose_and_double_nothing(stream: StreamFactory, verdict: Verdict) -> None:
    attacked, dice = stream(200), random.Random(4)
    for _ in range(30):
        attacked.feed(500)  # more than is done until the kill
        fault = replace(dice.choice(list(PHASES.values())), pair_seconds=STEADY.pair_seconds)
        if not fault.refuse_commits:  # one abort is all that there is
            fault = replace(fault, at=dice.randint(1, 8))
        with attacked.worker(fault) as process, contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(dice.uniform(4, 12))  # where the phase does not come, it is killed at any moment
        assert process.returncode in KILLED
    assert verdict(attacked, "30 SIGKILLs in a row", attacked.run_to_end(300)).is_perfect
