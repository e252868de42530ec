"""What goes past the tool: what is written to the label topic by hand, and label schemas that only others use."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.labelled import Fleet, document
from tests.support.wait import wait_until
from tests.support.worker import running, set_up
from worker.clock import SystemClock
from worker.config import load_config
from worker.kafka.label_writer import LabelDesk
from worker.labels.registry import LabelRegistry
from worker.labels.schema import canonical_json
from worker.labels.snapshot import Verdict
from worker.types import JsonValue

pytestmark = pytest.mark.kafka

ANEW = "digest: expected that under which it was applied; the document was written anew"
BACK = "the pointer: expected at least 3; versions rise, and a rollback writes a new one"


@pytest.fixture
def fleet(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> Fleet:
    inputs = topics("labelled")
    label_topic = f"labels-{inputs[0]}"
    setup = set_up(tmp_path, kafka, inputs, {"schemas": {"topic": label_topic, "create": True}, "http": {"port": 0}})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    return Fleet(kafka, tmp_path, setup, label_topic)


def told(verdict: Verdict) -> tuple[Any, ...]:
    held = verdict.in_force
    return (
        None if held is None else held.digest,
        sorted(verdict.valid),
        verdict.refused,
        verdict.pointed,
        verdict.reason,
    )


def of_whoever_comes_later(fleet: Fleet) -> Verdict:
    """What a reader makes of a topic that has only what compaction keeps: the last record under each key."""
    entries = fleet.kafka.read_committed(fleet.label_topic)
    last = {entry.key(): entry for entry in entries}
    kept = [{"key": e.key(), "value": e.value()} for e in entries if last[e.key()] is e and e.value() is not None]
    copy = f"{fleet.label_topic}-{len(entries)}"
    fleet.kafka.create_topics({copy: 1}, {"cleanup.policy": "compact"})
    fleet.kafka.produce(copy, kept)
    config = load_config(fleet.setup.path)
    with LabelDesk(config.kafka, config.schemas.model_copy(update={"topic": copy}), SystemClock()) as desk:
        labels = LabelRegistry(config.limits)
        labels.publish({"kinds": desk.read().of("kinds")})
    return labels.verdict("kinds")


def test_who_saw_a_document_before_it_was_written_anew_and_who_comes_later_refuse_it_alike(fleet: Fleet) -> None:
    for version in (1, 2, 3):
        fleet.apply(version)
    with running(fleet.setup) as early:
        wait_until(lambda: fleet.in_force(early) == 3, 60)
        anew: list[JsonValue] = [dict(document(version, top_k=1)) for version in (2, 3)]
        records = [{"key": f"kinds@{n}", "value": canonical_json(each)} for n, each in zip((2, 3), anew, strict=True)]
        fleet.kafka.produce(fleet.label_topic, records)
        wait_until(lambda: early.labels.verdict("kinds").reason == ANEW, 60)
        assert 1 == fleet.in_force(early)
        assert told(of_whoever_comes_later(fleet)) == told(early.labels.verdict("kinds"))
        assert f"refused  topic: kinds@3: {ANEW}\n" in fleet.schemas("list").output
        assert f"refused: {ANEW}" in fleet.schemas("history", "kinds").output
        fleet.apply(4)
        assert [1, 4] == sorted(early.labels.verdict("kinds").valid)
        assert told(of_whoever_comes_later(fleet)) == told(early.labels.verdict("kinds"))


def test_a_pointer_that_is_moved_back_by_hand_is_refused_by_all_and_a_rollback_puts_it_right(fleet: Fleet) -> None:
    for version in (1, 2, 3):
        fleet.apply(version)
    with running(fleet.setup) as early:
        wait_until(lambda: fleet.in_force(early) == 3, 60)
        fleet.kafka.produce(fleet.label_topic, [{"key": "kinds", "value": b'{"version": 1}'}])
        wait_until(lambda: early.labels.verdict("kinds").reason == BACK, 60)
        assert 3 == fleet.in_force(early)
        assert told(of_whoever_comes_later(fleet)) == told(early.labels.verdict("kinds"))
        wait_until(lambda: f"holds version 3, version 1 refused: {BACK}" in fleet.schemas("list").output)
        wait_until(lambda: "accepted" in fleet.schemas("rollback", "kinds", "--yes").output)
        assert (4, None) == (early.labels.verdict("kinds").pointed, early.labels.verdict("kinds").reason)


def test_what_an_aborted_transaction_wrote_is_passed_over(fleet: Fleet) -> None:
    fleet.apply(1)
    with running(fleet.setup) as worker:
        wait_until(lambda: fleet.in_force(worker) == 1, 60)
        producer = Producer({"bootstrap.servers": fleet.kafka.bootstrap_servers, "transactional.id": fleet.label_topic})
        producer.init_transactions(60)
        producer.begin_transaction()
        for key, value in (("kinds@2", canonical_json(document(2))), ("kinds", b'{"version": 2}')):
            producer.produce(fleet.label_topic, value, key)
        producer.flush(60)
        producer.abort_transaction(60)
        wrote = [message.key() for message in fleet.kafka.read_uncommitted(fleet.label_topic)]
        assert b"kinds@2" in wrote, "it stands in the log"
        fleet.apply(3)
        wait_until(lambda: fleet.in_force(worker) == 3, 60)
        assert (1, 3) == worker.labels.versions("kinds")
    config = load_config(fleet.setup.path)
    with LabelDesk(config.kafka, config.schemas, SystemClock()) as desk:
        assert {1, 3} == set(desk.read().of("kinds").documents)


@pytest.mark.parametrize("group", ["same", "other"])
def test_a_schema_that_only_a_running_worker_uses_is_not_deleted_unseen(fleet: Fleet, group: str) -> None:
    fleet.apply(1)
    config = json.loads(fleet.setup.path.read_text())
    config["topics"] = [{"input": fleet.topic}]
    if group == "other":
        config["kafka"]["group_id"] += "-other"
    path = fleet.setup.path.with_name("newer.yaml")
    path.write_text(json.dumps(config))
    newer = Fleet(fleet.kafka, fleet.folder, replace(fleet.setup, path=path), fleet.label_topic)
    with running(fleet.setup):
        wait_until(lambda: '"used": true' in fleet.schemas("list", "--json").output, 60)
        told = newer.schemas("delete", "kinds", answer="n\n")
        if group == "same":
            assert re.search(
                r"^kinds: the running worker group-\S+ uses it; change the label_schema", str(told.exception)
            )
        else:
            assert re.search(r"^  note: used by group-\S+, which is of another group", told.output, re.MULTILINE)
            assert "  note: configurations of which no worker has answered are not seen" in told.output
    assert 0 == newer.schemas("delete", "kinds", "--yes").exit_code, "it has stopped"
