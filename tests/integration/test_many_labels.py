"""A thousand labels through a running worker: every message with all of them, in bounded memory."""

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import found_in_time
from tests.support.worker import set_up, wait_ready, worker_process

pytestmark = pytest.mark.kafka

LABELS = 1000
MESSAGES = 300
WORDS = 200
MOST_MEGABYTES = 150
"""What a worker may grow by: 23 were measured (2026-11-22). The token ids alone of all pairs at once would be 458."""


def _megabytes(process: int, of: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = [each for each in lines if each.startswith(of)]
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_thousand_labels_pass_through_a_running_worker_in_bounded_memory(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("many")
    setup = set_up(tmp_path, kafka, inputs, {"batching": {"cache_bytes": 0}})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    names = [f"label {number}" for number in range(LABELS)]
    schema = {"name": "kinds", "version": 1, "labels": [{"name": name} for name in names]}
    (tmp_path / "schemas" / "kinds.yaml").write_text(json.dumps(schema))
    output, group = f"{inputs[0]}.predictions", f"group-{inputs[0]}"
    with worker_process(setup) as process:
        wait_ready(setup)
        before = _megabytes(process.pid, "VmRSS")
        values = [json.dumps({"id": str(n), "text": f"{'word ' * WORDS}{n}"}) for n in range(MESSAGES)]
        kafka.produce(inputs[0], [{"value": value, "partition": n % 4} for n, value in enumerate(values)])
        found_in_time(lambda: sum(kafka.committed_offsets(group, inputs[0]).values()) >= MESSAGES, 300)
        most = _megabytes(process.pid, "VmHWM")
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    found = [json.loads(message.value() or b"") for message in kafka.read_committed(output)]
    assert sorted(map(str, range(MESSAGES))) == sorted(each["id"] for each in found)
    assert {LABELS} == {each["pairs"]["scored"] for each in found}
    assert all(sorted(names) == sorted(score["label"] for score in each["scores"]) for each in found)
    at_once = MESSAGES * LABELS * WORDS * 2 * 4 / 2**20  # token ids and type ids, four bytes each
    assert most - before < MOST_MEGABYTES < at_once, f"{before:.0f} MB before, {most:.0f} MB at most"
