"""SIGKILL at every phase of a record's way."""

import contextlib
import random
import signal
import subprocess
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest

from tests.fault.conftest import Measured, StreamFactory, Verdict
from tests.support.chaos import STEADY, Stream, events
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, wait_until

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
KILLS = 30
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
def test_thirty_kills_at_random_under_load_lose_and_double_nothing(
    stream: StreamFactory, verdict: Verdict, measured: Measured
) -> None:
    attacked, dice, met = stream(200), random.Random(4), Counter[str]()
    for _ in range(KILLS):
        attacked.feed(500)  # more than is done until the kill
        phase = dice.choice(list(PHASES))
        fault = replace(PHASES[phase], pair_seconds=STEADY.pair_seconds)
        if not fault.refuse_commits:  # one abort is all that there is
            fault = replace(fault, at=dice.randint(1, 8))
        with attacked.worker(fault) as process:
            # From here on: a kill that meets a worker at its imports attacks nothing.
            wait_until(partial(has_begun, attacked, process), 60, "its first transaction", 0.2)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0.1, 8))  # where the phase does not come, it is killed at any moment
            met["at any moment" if process.poll() is None else phase] += 1
        assert process.returncode in KILLED
    told = ", ".join(f"{phase} {count}" for phase, count in sorted(met.items()))
    measured(f"{KILLS} kills of workers that were at work met: {told}")
    assert verdict(attacked, f"{KILLS} SIGKILLs in a row", attacked.run_to_end(300)).is_perfect


def has_begun(attacked: Stream, process: subprocess.Popen[bytes]) -> bool:
    """Whether it has sent the offsets of a transaction; or is dead already."""
    told = events(attacked, "transaction.told")
    return process.poll() is not None or any(each["process"] == process.pid for each in told)
