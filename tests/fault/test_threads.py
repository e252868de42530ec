"""Threads of our own that never come back from what they do."""

import json
import signal
from dataclasses import replace
from typing import Any

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import DELIVERY, STEADY, Stream, of_transactions
from tests.support.chaos_worker import Faults
from tests.support.wait import wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 4.0
"""Of liveness; readiness, which looks at what comes out, has half of it."""
PUBLISHING = "during_commit" if DELIVERY == "exactly_once" else "after_flush"
STUCK = {
    "poll": Faults(phase="after_poll", at=250, signal="hang", patience_seconds=PATIENCE_SECONDS),
    "delivery": Faults(phase=PUBLISHING, signal="hang", patience_seconds=PATIENCE_SECONDS),
}
STAGES = {"poll": "intake", "delivery": "publish"}
REASONS = {"poll": "poll: the thread has not been heard of for", "delivery": "progress: nothing has moved for"}


def told(attacked: Stream) -> dict[str, Any]:
    """What `/livez` says, with whatever status."""
    return dict(json.loads(get(attacked.setup, "/livez")[1] or b"{}"))


def overdue(threads: dict[str, dict[str, float]]) -> list[str]:
    """The names of those that are silent for too long."""
    return [name for name, each in threads.items() if each["age_seconds"] > each["limit_seconds"]]


@pytest.mark.parametrize("thread", STUCK)
def test_a_thread_that_hangs_is_named_by_liveness_and_what_it_had_in_hand_is_done_by_the_next_worker(
    stream: StreamFactory, verdict: Verdict, thread: str
) -> None:
    attacked = stream(400)
    with attacked.worker(STUCK[thread]) as process:
        wait_until(lambda: REASONS[thread].encode() in get(attacked.setup, "/readyz")[1], 60)
        assert 503 == get(attacked.setup, "/readyz")[0]
        wait_until(lambda: overdue(told(attacked).get("threads", {})) == [thread], 60)
        assert 503 == get(attacked.setup, "/livez")[0]
        wait_until(lambda: told(attacked)["stages"][STAGES[thread]]["seconds"] > PATIENCE_SECONDS, 60)
        assert told(attacked)["stages"][STAGES[thread]]["busy"]
        wait_until(lambda: '"thread.overdue"' in attacked.log(), 10)
        assert process.poll() is None
    lines = [json.loads(line) for line in attacked.log().splitlines() if '"thread.overdue"' in line]
    (line,) = [line for line in lines if line["thread"] == thread]
    assert line["stages"][STAGES[thread]]["busy"]
    assert any("chaos_worker:pass_by" in frame or "__main__:pass_by" in frame for frame in line["stack"])
    seconds = attacked.run_to_end()
    assert verdict(attacked, f"its {thread} thread hangs, killed by its probe", seconds).is_perfect


@pytest.mark.soak
@of_transactions
def test_offsets_that_are_sent_for_ever_cost_no_restart(stream: StreamFactory, verdict: Verdict) -> None:
    """The client's call does not come back, whatever its timeout says: it is left behind with its producer."""
    attacked = stream(800)
    with attacked.worker(replace(STEADY, phase="after_send_offsets", signal="hang")) as process:
        wait_until(lambda: '"producer.replaced"' in attacked.log(), 60)
        seconds = attacked.await_progress(100)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    name = "a call of its client never comes back"
    assert verdict(attacked, name, seconds, phase="after send offsets").is_perfect
