"""Inputs that are patterns: topics come while the worker runs, and none of its own is ever read."""

import json
from pathlib import Path

import pytest

from tests.conftest import LogEvents, TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from tests.support.worker import Setup, get, run_to_end, running, set_up, wait_ready
from worker.assembler import Assembler
from worker.checks import findings
from worker.clock import SystemClock
from worker.config import load_config
from worker.dead_letters.desk import LetterDesk

pytestmark = pytest.mark.kafka


def events(stem: str, count: int, first: int = 0) -> list[bytes]:
    """Numbered records; every fifth is broken."""
    return [
        f"broken {stem}-{i}".encode() if i % 5 == 0 else json.dumps({"id": f"{stem}-{i}", "text": "t"}).encode()
        for i in range(first, first + count)
    ]


def set_up_pattern(folder: Path, kafka: BrokerUnderTest, family: str, **kafka_settings: object) -> Setup:
    changes = {
        "kafka": {"group_id": family, "create_topics": True, **kafka_settings},
        "topics": [{"input": f"^{family}\\.", "label_schema": "kinds"}],
    }
    return set_up(folder, kafka, [family], changes)


def assert_all_predicted(kafka: BrokerUnderTest, topic: str, count: int) -> None:
    stem = topic.rsplit(".", 1)[1]
    predicted = [json.loads(message.value() or b"")["id"] for message in kafka.read_committed(f"{topic}.predictions")]
    assert sorted(f"{stem}-{i}" for i in range(count) if i % 5) == sorted(predicted)
    letters = [message.value() for message in kafka.read_committed(f"{topic}.dlq")]
    assert sorted(f"broken {stem}-{i}".encode() for i in range(0, count, 5)) == sorted(each or b"" for each in letters)


def done(kafka: BrokerUnderTest, group: str, topic: str) -> int:
    return sum(kafka.committed_offsets(group, topic).values())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_topic_that_comes_while_the_worker_runs_is_read_from_its_beginning(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, protocol: str
) -> None:
    family = topics("family", partitions=1)[0]
    setup = set_up_pattern(tmp_path, kafka, family, group_protocol=protocol)
    kafka.create_topics({f"{family}.a": 2})
    with running(setup):
        wait_ready(setup)
        kafka.produce(f"{family}.a", events("a", 100))
        wait_until(lambda: done(kafka, family, f"{family}.a") == 100, 60)
        kafka.create_topics({f"{family}.b": 3})
        kafka.produce(f"{family}.b", events("b", 50))
        wait_until(lambda: done(kafka, family, f"{family}.b") == 50, 60)
        kafka.produce(f"{family}.a", events("a", 20, first=100))
        wait_until(lambda: done(kafka, family, f"{family}.a") == 120, 60)
        assert 200 == get(setup, "/readyz")[0]
        metrics = get(setup, "/metrics")[1].decode()
    assert f'worker_records_consumed_total{{topic="{family}.b"}} 50.0' in metrics
    assert_all_predicted(kafka, f"{family}.a", 120)
    assert_all_predicted(kafka, f"{family}.b", 50)
    metadata = kafka.admin().list_topics(timeout=30).topics
    assert 3 == len(metadata[f"{family}.b.predictions"].partitions)


def test_what_is_written_for_a_pattern_is_never_read_although_it_matches(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, log_events: LogEvents
) -> None:
    family = topics("loop", partitions=1)[0]
    setup = set_up_pattern(tmp_path, kafka, family)
    kafka.create_topics({f"{family}.a": 2})
    kafka.produce(f"{family}.a", events("a", 100))
    for _ in range(3):  # each finds what the one before it has written
        run_to_end(setup)
    mine = {topic for topic in kafka.admin().list_topics(timeout=30).topics if topic.startswith(f"{family}.")}
    assert {f"{family}.a", f"{family}.a.predictions", f"{family}.a.dlq"} == mine
    assert_all_predicted(kafka, f"{family}.a", 100)
    assigned = {t for event in log_events if event["event"] == "partition.assigned" for t in event["partitions"]}
    assert {f"{family}.a"} == assigned


def test_check_and_dead_letters_follow_what_a_pattern_matches(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    family = topics("seen", partitions=1)[0]
    setup = set_up_pattern(tmp_path, kafka, family)
    config = load_config(setup.path)
    found = [(each.verdict, each.subject, each.message) for each in findings(Assembler(config, SystemClock()))]
    pattern = f"^{family}\\."
    assert ("warning", pattern, "no topic matches yet; those that come are read from their beginning") in found
    kafka.create_topics({f"{family}.a": 2})
    found = [(each.verdict, each.subject, each.message) for each in findings(Assembler(config, SystemClock()))]
    assert ("ok", pattern, f"1 topics match: {family}.a") in found
    assert ("ok", f"{family}.a.dlq", "would be created with 2 partitions") in found
    assert (f"{family}.a.dlq",) == LetterDesk(config, SystemClock()).topics(f"{family}.a")
