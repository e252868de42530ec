"""`worker check` on a real broker."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.conftest import LogEvents, TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.guarded import allow, open_kafka
from tests.support.worker import NOTHING, Changes, run_to_end, set_up
from worker.assembler import Assembler
from worker.checks import created, findings
from worker.clock import SystemClock
from worker.config import load_config
from worker.kafka.clients import producer_settings
from worker.kafka.rights import Right

pytestmark = pytest.mark.kafka


@pytest.fixture
def guarded_kafka(kafka: BrokerUnderTest) -> Iterator[BrokerUnderTest]:
    """A broker of our own that has an authorizer; whoever knows `kafka` can have one."""
    with open_kafka() as broker:
        yield broker


def found(
    kafka: BrokerUnderTest, topics: TopicsFactory, folder: Path, changes: Changes = NOTHING
) -> list[tuple[str, str, str]]:
    setup = set_up(folder, kafka, topics("checked", partitions=2), changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 2))
    seen = findings(Assembler(load_config(setup.path), SystemClock()))
    return [(each.verdict, each.subject.replace(setup.inputs[0], "in"), each.message) for each in seen]


def test_what_would_run_is_told_with_replicas_and_a_transaction_that_was_tried(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    seen = found(kafka, topics, tmp_path)
    assert [] == [each for each in seen if each[0] == "failed"]
    assert ("ok", "transactions", "an empty one was opened and given up") in seen
    assert any("the broker's maximum is 900000 ms" in message for _, _, message in seen)
    for topic in ("in.predictions", "in.dlq", "__consumer_offsets", "__transaction_state"):
        assert any(
            (verdict, subject) == ("warning", topic) and "replication factor 1" in message
            for verdict, subject, message in seen
        )


def test_a_transaction_that_the_broker_refuses_is_told_with_its_fix(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    changes = {"kafka": {"transaction_timeout_ms": 901_000, "instance_id": "one"}}
    seen = [each for each in found(kafka, topics, tmp_path, changes) if each[0] == "failed"]
    assert ["transactions", "transactions"] == [subject for _, subject, _ in seen]
    assert "INVALID_TRANSACTION_TIMEOUT" in seen[0][2]
    assert all("lower kafka.transaction_timeout_ms" in message for _, _, message in seen)


def test_no_transaction_is_tried_where_none_is_used(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    seen = found(kafka, topics, tmp_path, {"delivery": "at_least_once"})
    assert {"transactions", "__transaction_state"}.isdisjoint(subject for _, subject, _ in seen)
    assert "transactions" not in json.dumps(seen)


def test_every_missing_right_is_named(guarded_kafka: BrokerUnderTest, tmp_path: Path) -> None:
    kafka = guarded_kafka
    setup = set_up(tmp_path, kafka, ["in"], {"kafka": {"group_id": "guarded"}})
    kafka.create_topics(dict.fromkeys([*setup.inputs, *setup.outputs], 1))
    allow(
        kafka,
        Right("TOPIC", "in.dlq", "WRITE"),
        Right("GROUP", "guarded", "READ"),
        Right("TRANSACTIONAL_ID", "guarded.check", "WRITE"),
        user="else",
    )
    failed = [each for each in findings(Assembler(load_config(setup.path), SystemClock())) if each.verdict == "failed"]
    told = {each.subject: each.message for each in failed if "does not exist" not in each.message}
    assert {"in.dlq", "group guarded", "transactions"} == set(told)
    assert "grant Write and Describe on this topic" in told["in.dlq"]
    assert "grant Read and Describe on this group" in told["group guarded"]
    assert "grant Write and Describe on the transactional id guarded.check" in told["transactions"]


def test_a_cluster_on_which_nobody_has_done_anything_yet_is_nothing_to_fail_of(
    guarded_kafka: BrokerUnderTest, tmp_path: Path
) -> None:
    """Kafka's own topics come with their first use; what is not there yet has no replicas to warn of."""
    config = load_config(set_up(tmp_path, guarded_kafka, ["in"], {"kafka": {"group_id": "first"}}).path)
    guarded_kafka.create_topics(dict.fromkeys(["in", "in.predictions", "in.dlq"], 1))
    assert [] == [each for each in findings(Assembler(config, SystemClock())) if each.verdict == "failed"]


def test_kafkas_own_topics_that_may_not_be_seen_are_passed_over(guarded_kafka: BrokerUnderTest, tmp_path: Path) -> None:
    config = load_config(set_up(tmp_path, guarded_kafka, ["in"], {"kafka": {"group_id": "blind"}}).path)
    guarded_kafka.create_topics(dict.fromkeys(["in", "in.predictions", "in.dlq"], 1))
    own = ("__consumer_offsets", "__transaction_state")
    allow(guarded_kafka, *(Right("TOPIC", topic, "DESCRIBE") for topic in own), user="else")
    seen = list(findings(Assembler(config, SystemClock())))
    assert [] == [each for each in seen if each.verdict == "failed" or each.subject in own]


def test_topics_that_are_missing_are_created_where_that_is_asked_for(kafka: BrokerUnderTest, tmp_path: Path) -> None:
    name = f"first-{uuid.uuid4().hex[:12]}"
    changes = {"schemas": {"directory": "schemas", "topic": f"{name}.labels"}}
    config = load_config(set_up(tmp_path, kafka, [name], changes).path)
    before = [each for each in findings(Assembler(config, SystemClock())) if each.verdict == "failed"]
    assert {name, f"{name}.labels", f"{name}.labels.status"} == {each.subject for each in before}
    assert all("`worker check --create-topics` creates it" in each.message for each in before)

    made = {each.subject: each for each in created(Assembler(config, SystemClock()), 3)}
    assert {"ok"} == {each.verdict for each in made.values()}
    written = (f"{name}.predictions", f"{name}.dlq")
    assert {name, *written, f"{name}.labels", f"{name}.labels.status"} == set(made)
    assert "created, 3 partitions" == made[written[0]].message
    assert "created, 1 partitions" == made[f"{name}.labels"].message

    assert [] == [each for each in findings(Assembler(config, SystemClock())) if each.verdict == "failed"]
    assert [] == list(created(Assembler(config, SystemClock()), 3)), "what is there is left alone"


def test_a_run_says_once_what_it_loaded_and_that_it_ended(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, log_events: LogEvents
) -> None:
    setup = set_up(tmp_path, kafka, topics("logged", partitions=1))
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    run_to_end(setup)
    events = [each["event"] for each in log_events]
    assert ("worker.started", "worker.stopped") == (events[0], events[-1])
    assert 1 == events.count("engine.loaded")
    assert "done" == log_events[-1]["outcome"]


@pytest.mark.parametrize(
    ("forbidden", "expected"),
    [
        ("pod-0", ("failed", "grant Write and Describe on the transactional id literal.pod-0")),
        ("check", ("ok", "the transactional id literal.pod-0 may be used")),
    ],
)
def test_the_right_to_a_transactional_id_is_that_to_the_workers_own(
    guarded_kafka: BrokerUnderTest, tmp_path: Path, forbidden: str, expected: tuple[str, str]
) -> None:
    setup = set_up(tmp_path, guarded_kafka, ["in"], {"kafka": {"group_id": "literal", "instance_id": "pod-0"}})
    guarded_kafka.create_topics(dict.fromkeys([*setup.inputs, *setup.outputs], 1))
    allow(guarded_kafka, Right("TRANSACTIONAL_ID", f"literal.{forbidden}", "WRITE"), user="else")
    seen = findings(Assembler(load_config(setup.path), SystemClock()))
    verdict, told = next((each.verdict, each.message) for each in seen if each.subject == "transactions")
    assert expected[0] == verdict
    assert expected[1] in told


def test_a_worker_that_runs_under_the_transactional_id_is_not_disturbed(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, kafka, topics("busy", partitions=2), {"kafka": {"instance_id": "pod-0"}})
    kafka.create_topics(dict.fromkeys(setup.outputs, 2))
    config = load_config(setup.path)
    producer = Producer(producer_settings(config.kafka, "pod-0", transactional=True))
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(setup.outputs[0], b"before")
    assert [] == [each for each in findings(Assembler(config, SystemClock())) if each.verdict == "failed"]
    producer.commit_transaction(30)
    assert [b"before"] == [message.value() for message in kafka.read_committed(setup.outputs[0])]


def test_an_output_that_takes_less_than_its_input_is_a_warning_with_both_sizes(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, kafka, topics("wide", partitions=2))
    predictions, letters = setup.outputs
    kafka.create_topics({predictions: 2}, {"max.message.bytes": "2500"})
    kafka.create_topics({letters: 2})
    seen = [each for each in findings(Assembler(load_config(setup.path), SystemClock())) if "2500" in each.message]
    told = f"max.message.bytes is 2500, that of {setup.inputs[0]} 1048588: large events go out without their event"
    assert [("warning", predictions, told)] == [(each.verdict, each.subject, each.message) for each in seen]
