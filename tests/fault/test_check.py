"""Tests of the test: the check finds what is lost, doubled and out of order."""

import signal

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import DELIVERY
from tests.support.chaos_worker import Faults

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(DELIVERY != "exactly_once", reason="compares one way to deliver with the other"),
]


def test_at_least_once_doubles_what_was_sent_before_a_crash_and_loses_nothing(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(400, {"delivery": "at_least_once"})
    with attacked.worker(Faults(phase="after_flush")) as process:
        assert -signal.SIGKILL == process.wait(180)
    attacked.run_to_end()
    tally = verdict(attacked, "at_least_once: SIGKILL after the acknowledgement")
    assert 0 == tally.lost
    assert 0 < tally.doubled
    assert 0 == tally.misplaced


def test_a_build_that_commits_offsets_before_outputs_is_caught(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(phase="after_commit", broken=True)) as process:
        assert -signal.SIGKILL == process.wait(180)
    attacked.run_to_end()
    assert 0 < verdict(attacked, "broken build: offsets before outputs, SIGKILL between").lost
