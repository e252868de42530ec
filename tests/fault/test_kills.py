"""SIGKILL at every phase of a record's way."""

import signal

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos_worker import Faults

pytestmark = pytest.mark.kafka

PHASES = {
    "after poll": Faults(phase="after_poll", at=250),
    "while scoring": Faults(phase="while_scoring", at=30),
    "after produce": Faults(phase="after_produce"),
    "after send_offsets": Faults(phase="after_send_offsets"),
    "during commit": Faults(phase="during_commit"),
    "after commit": Faults(phase="after_commit"),
    "during abort": Faults(phase="during_abort", at=1, refuse_commits=1),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_at_any_phase_loses_and_doubles_nothing(
    stream: StreamFactory, verdict: Verdict, phase: str
) -> None:
    attacked = stream(400)
    with attacked.worker(PHASES[phase]) as process:
        assert -signal.SIGKILL == process.wait(60)
    assert verdict(attacked, f"SIGKILL {phase}", attacked.run_to_end()).is_perfect
