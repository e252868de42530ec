"""Threads of our own that never come back from what they do."""

import json
from typing import Any

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import DELIVERY, Stream
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
