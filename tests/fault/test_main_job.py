"""The main job at length, on demand: `uv run pytest -m soak tests/fault/test_main_job.py`."""

import json
import signal
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.fault.conftest import Noted
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import Tally
from tests.support.wait import wait_until
from tests.support.worker import set_up, worker_process

EVENTS = 20_000
WORDS = ("the app crashes on start", "I was charged twice", "how do I change my address", "great service, thank you")


@pytest.mark.soak
@pytest.mark.kafka
@pytest.mark.timeout(3600)
def test_twenty_thousand_events_with_the_bundled_model_and_a_stop_in_the_middle(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, noted: Noted
) -> None:
    setup = set_up(tmp_path, kafka, topics("a", "b"), {"engine": "auto"})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    group = f"group-{setup.inputs[0]}"
    for topic in setup.inputs:
        kafka.produce(
            topic,
            [
                {
                    "value": f"broken {i}"
                    if i % 50 == 0
                    else json.dumps({"id": str(i), "text": f"{WORDS[i % 4]} {i}"}),
                    "partition": i % 4,
                }
                for i in range(EVENTS // 2)
            ],
        )

    def done() -> int:
        return sum(sum(kafka.committed_offsets(group, topic).values()) for topic in setup.inputs)

    with worker_process(setup) as process:
        wait_until(lambda: done() > EVENTS // 3, 900)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert EVENTS // 3 < done() < EVENTS
    with worker_process(setup, "--until-end") as process:
        assert 0 == process.wait(900)
    total: Counter[str] = Counter()
    for topic in setup.inputs:
        lanes = defaultdict(list)
        for message in kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq"):
            value = message.value() or b""
            number = int(value.split()[1]) if value.startswith(b"broken") else int(json.loads(value)["id"])
            lanes[message.topic(), message.partition()].append(number)
        times = Counter(number for lane in lanes.values() for number in lane)
        total += Counter(
            results=times.total(),
            lost=len(set(range(EVENTS // 2)) - times.keys()),
            doubled=times.total() - len(times),
            reordered=sum(later < earlier for lane in lanes.values() for earlier, later in pairwise(lane)),
        )
    tally = Tally.of(total)
    noted("SIGTERM in the midst of 20,000 events, the bundled model", tally, None)
    assert Tally(EVENTS, lost=0, doubled=0, reordered=0, misplaced=0) == tally
