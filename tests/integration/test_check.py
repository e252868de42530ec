"""`worker check` on a real broker."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.guarded import Right, allow, open_kafka
from tests.support.worker import NOTHING, Changes, set_up
from worker.assembler import Assembler
from worker.checks import findings
from worker.clock import SystemClock
from worker.config import load_config

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
    for topic in ("in.predictions", "in.dlq"):
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
    assert "transactions" not in json.dumps(found(kafka, topics, tmp_path, {"delivery": "at_least_once"}))


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
