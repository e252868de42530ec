"""Label schemas in a topic, changed while workers run: by the real commands, on a real broker."""

import json
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer
from typer.testing import CliRunner

from tests.conftest import LogEvents, TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.labelled import Fleet, assert_whole_and_never_back, document, load
from tests.support.wait import wait_until
from tests.support.worker import get, running, set_up, wait_ready, worker_process
from worker.cli.main import build_app
from worker.clock import SystemClock
from worker.config import load_config
from worker.kafka.clients import connection
from worker.kafka.label_writer import Change, LabelDesk, MovedError
from worker.kafka.offsets import Assignment
from worker.kafka.topics import TopicDirectory
from worker.label_sets import topic_follower
from worker.labels.changes import NewVersion
from worker.labels.registry import LabelRegistry
from worker.labels.schema import canonical_json
from worker.observability.health import Heartbeats, Readiness
from worker.types import TopicPartition

pytestmark = pytest.mark.kafka


@pytest.fixture
def fleet(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> Fleet:
    inputs = topics("labelled")
    label_topic = f"labels-{inputs[0]}"
    changes = {"schemas": {"topic": label_topic, "create": True}, "http": {"port": 0}}
    setup = set_up(tmp_path, kafka, inputs, changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    return Fleet(kafka, tmp_path, setup, label_topic)


def test_versions_applied_under_load_never_go_back_in_a_partition_and_are_never_half_applied(fleet: Fleet) -> None:
    fleet.apply(1)
    with load(fleet) as written, worker_process(fleet.setup):
        wait_until(lambda: len(fleet.predictions()) > 0, 60)
        assert 1 == len(fleet.apply(2)["accepted"])
        with worker_process(fleet.setup):
            desk = LabelDesk(*_parts(fleet), SystemClock())
            wait_until(lambda: len(desk.live_workers()) == 2, 60)
            for version in range(3, 9):
                if version == 6:
                    bad = fleet.schemas("apply", fleet.file(6, labels=[]), "--yes")
                    assert "labels: expected at least 1" in str(bad.exception)
                    fleet.write(6, labels=[])
                    continue
                assert 2 == len(fleet.apply(version)["accepted"])
            wait_until(lambda: 8 in {each.version for each in fleet.predictions()}, 60)
        # Both are killed: whoever reads on knows what they knew.
        assert fleet.apply(9, "--no-wait")["written"]
        total = written
    with running(fleet.setup):
        wait_until(lambda: len(fleet.predictions()) >= total[0], 120)
    found = fleet.predictions()
    assert list(range(total[0])) == sorted(each.number for each in found)
    assert_whole_and_never_back(found)
    assert {1, 8} <= {each.version for each in found} <= set(range(1, 10)) - {6}


def test_a_bad_version_never_takes_hold_and_a_worker_started_later_decides_alike(
    fleet: Fleet, log_events: LogEvents
) -> None:
    fleet.apply(1)
    with running(fleet.setup) as early:
        fleet.apply(3)
        fleet.write(5, labels=[])
        wait_until(lambda: early.labels.verdict("kinds").pointed == 5, 60)
        assert 3 == fleet.in_force(early)
        with urllib.request.urlopen(f"http://127.0.0.1:{early.http.port}/metrics") as answer:
            assert 'worker_label_schema_refusals_total{name="kinds"} 1.0' in answer.read().decode()
        with urllib.request.urlopen(f"http://127.0.0.1:{early.http.port}/schemas") as answer:
            told = json.loads(answer.read())
        refusal = {"origin": "topic: kinds@5", "reason": "labels: expected at least 1, not 0"}
        assert ([3], [{"name": "kinds", **refusal}]) == (
            [each["version"] for each in told["schemas"]],
            told["refusals"],
        )
        wait_until(lambda: [refusal] == _rejected(log_events), what="a line of the log")
        with running(fleet.setup) as late:
            assert late.follower is not None
            assert late.follower.wait_until_read(lambda: late.lifecycle.is_stopping)
            assert early.labels.verdict("kinds").refusals == late.labels.verdict("kinds").refusals
            assert 3 == fleet.in_force(late)
            wait_until(lambda: len(json.loads(fleet.schemas("list", "--json").output)["schemas"][0]["workers"]) == 2)
            listed = json.loads(fleet.schemas("list", "--json").output)
        (schema,) = listed["schemas"]
        assert (3, 5, "topic") == (schema["version"], schema["pointer"], schema["source"])
        assert [("refused", 5, 3)] * 2 == [(w["state"], w["version"], w["in_force"]) for w in schema["workers"]]
        assert ["labels: expected at least 1, not 0"] == [refusal["reason"] for refusal in listed["refusals"]]


@pytest.mark.parametrize("has_topic", [False, True])
def test_a_worker_starts_beside_a_file_that_it_refuses_and_tells_of_it(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, log_events: LogEvents, has_topic: bool
) -> None:
    inputs = topics("beside")
    label_topic = f"labels-{inputs[0]}"
    sources = {"directory": "schemas", **({"topic": label_topic, "create": True} if has_topic else {})}
    setup = set_up(tmp_path, kafka, inputs, {"schemas": sources})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    file = tmp_path / "schemas" / ("kinds.yaml" if has_topic else "newer.yaml")  # the only one, or a second one
    file.write_text("name: kinds\nversion: 2\nlabel: [{name: a}]\n")
    kafka.produce(inputs[0], [b'{"text": "hello"}'])
    fleet = Fleet(kafka, tmp_path, setup, label_topic)
    if has_topic:
        fleet.apply(7)
    with running(setup):
        wait_until(lambda: len(fleet.predictions()) == 1, 60)
        refusals = json.loads(get(setup, "/schemas")[1])["refusals"]
    reason = "label: expected no such key; did you mean `labels`?"
    assert [{"name": "kinds", "origin": str(file), "reason": reason}] == refusals
    assert [{"origin": str(file), "reason": reason}] == _rejected(log_events)
    assert [7 if has_topic else 1] == [each.version for each in fleet.predictions()]


def test_list_shows_which_source_holds(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> None:
    inputs = topics("both")
    label_topic = f"labels-{inputs[0]}"
    setup = set_up(tmp_path, kafka, inputs, {"schemas": {"directory": "schemas", "topic": label_topic, "create": True}})
    (tmp_path / "schemas" / "other.json").write_text(json.dumps({**document(9), "name": "other"}))
    fleet = Fleet(kafka, tmp_path, setup, label_topic)
    assert "kinds  version 1  directory\nother  version 9  directory\n" == fleet.schemas("list").output
    fleet.apply(5, "--no-wait")
    assert "kinds  version 5  topic\nother  version 9  directory\n" == fleet.schemas("list").output
    listed = json.loads(fleet.schemas("list", "--json").output)["schemas"]
    assert [("kinds", "topic", 5, [1, 5]), ("other", "directory", 9, [9])] == [
        (each["name"], each["source"], each["version"], each["versions"]) for each in listed
    ]


def test_a_change_that_is_not_wanted_is_not_written(fleet: Fleet) -> None:
    fleet.apply(1)
    with LabelDesk(*_parts(fleet), SystemClock()) as desk:
        before = desk.read().entries
        said_no = fleet.schemas("apply", fleet.file(2), answer="n\n")
        assert (1, True) == (said_no.exit_code, "+ label v2" in said_no.output)
        assert before == desk.read().entries
        assert "Write this? [y/N]" in fleet.schemas("apply", fleet.file(2), answer="y\n").output
        assert {1, 2} == set(desk.read().of("kinds").documents)


def test_a_former_version_comes_back_as_a_new_one(fleet: Fleet) -> None:
    fleet.apply(1, description="first")
    fleet.apply(2)
    with running(fleet.setup) as worker:
        _wait_live(fleet, 1)
        result = fleet.schemas("rollback", "kinds", "--yes", "--json")
        assert 0 == result.exit_code, result.exception
        assert (3, 1) == (json.loads(result.output)["version"], len(json.loads(result.output)["accepted"]))
        held = worker.labels.current("kinds")
        assert held is not None
        assert (3, "first") == (held.version, held.description)
    versions = json.loads(fleet.schemas("history", "kinds", "--json").output)["versions"]
    assert [(1, False, None), (2, False, None), (3, True, "1")] == [
        (each["version"], each["is_in_force"], each["rollback_of"]) for each in versions
    ]
    shown = fleet.schemas("diff", "kinds@2", "kinds@3").output
    assert "+ label v1\n" in shown
    assert "- label v2\n" in shown


def test_after_versions_that_only_a_worker_can_refuse_list_and_rollback_go_by_what_it_holds(fleet: Fleet) -> None:
    """Two of them in a row: whoever has no model would take the first for a version to go back to."""

    def shown(*arguments: str) -> Any:  # noqa: ANN401  what a command printed as JSON
        return json.loads(fleet.schemas(*arguments, "--json").output)

    fleet.apply(1)
    with running(fleet.setup):
        _wait_live(fleet, 1)
        fleet.apply(2)
        for version in (3, 4):
            file = fleet.file(version, requires_model="sha256:" + str(version) * 64)
            assert 1 == fleet.schemas("apply", file, "--yes").exit_code
        [schema] = shown("list")["schemas"]
        assert (2, 4) == (schema["version"], schema["pointer"])
        assert [2] == [each["version"] for each in shown("history", "kinds")["versions"] if each["is_in_force"]]
        back = fleet.schemas("rollback", "kinds", "--yes")
        assert 0 == back.exit_code, back.output
        [schema] = shown("list")["schemas"]
        assert [("accepted", 5, 5)] == [(w["state"], w["version"], w["in_force"]) for w in schema["workers"]]
        [rolled_back] = [each for each in shown("history", "kinds")["versions"] if each["is_in_force"]]
        assert (5, "2") == (rolled_back["version"], rolled_back["rollback_of"])


def test_apply_names_the_worker_that_is_silent_and_the_one_that_refuses(fleet: Fleet) -> None:
    fleet.apply(1)
    silent = Consumer(
        {
            "bootstrap.servers": fleet.kafka.bootstrap_servers,
            "group.id": fleet.group,
            "client.id": "silent-one",
            "partition.assignment.strategy": "cooperative-sticky",
        }
    )
    silent.subscribe([fleet.topic])
    try:
        with running(fleet.setup):

            def both_are_in() -> bool:
                silent.poll(0.1)
                return len(LabelDesk(*_parts(fleet), SystemClock()).live_workers()) == 2

            wait_until(both_are_in, 60)
            file = fleet.file(2, requires_model="sha256:" + "0" * 64)
            result = fleet.schemas("apply", file, "--yes", "--timeout", "3")
            assert 1 == result.exit_code
            assert "silent    silent-one\n" in result.output
            assert f"refused   {fleet.group}." in result.output
            assert "requires_model: expected the model of this worker" in result.output
    finally:
        silent.close()


def test_a_schema_that_a_binding_uses_cannot_be_deleted_and_another_one_can(fleet: Fleet) -> None:
    fleet.apply(1)
    refused = fleet.schemas("delete", "kinds", "--yes")
    assert f"kinds: the binding of {fleet.topic} uses it" in str(refused.exception)
    other = fleet.folder / "other.json"
    other.write_text(json.dumps({**document(4), "name": "other"}))
    assert 0 == fleet.schemas("apply", other, "--yes").exit_code
    assert 0 == fleet.schemas("delete", "other", "--yes").exit_code
    assert ["kinds"] == [
        each["name"]
        for each in json.loads(fleet.schemas("list", "--json").output)["schemas"]
        if each["version"] is not None
    ]
    again = fleet.schemas("apply", other, "--yes")
    assert "version: expected at least 5" in str(again.exception)


def test_a_version_that_does_not_rise_is_refused_and_the_same_one_again_is_no_change(fleet: Fleet) -> None:
    fleet.apply(2)
    for version, more in ((1, {}), (2, {"top_k": 1})):
        result = fleet.schemas("apply", fleet.file(version, **more), "--yes")
        assert "version: expected at least 3" in str(result.exception)
    assert not fleet.apply(2)["written"]


def test_a_change_decided_by_a_pointer_that_has_moved_is_not_written(fleet: Fleet) -> None:
    fleet.apply(1)
    with LabelDesk(*_parts(fleet), SystemClock()) as desk:
        seen = desk.read().of("kinds").pointer
        fleet.apply(2)
        stale = Change("kinds", NewVersion(3, canonical_json(document(3))), seen)
        with pytest.raises(MovedError):
            desk.write(stale)
        assert {1, 2} == set(desk.read().of("kinds").documents)


def test_without_a_label_topic_nothing_can_be_applied(kafka: BrokerUnderTest, tmp_path: Path) -> None:
    setup = set_up(tmp_path, kafka, ["any"])
    for command in (["apply", str(setup.path)], ["rollback", "kinds"], ["delete", "kinds"], ["history", "kinds"]):
        result = CliRunner().invoke(build_app(), ["schemas", *command, "-c", str(setup.path)])
        assert "schemas.topic: expected a topic" in str(result.exception)


def test_a_worker_waits_for_its_label_topic_and_says_so(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("waits")
    label_topic = f"labels-{inputs[0]}"
    setup = set_up(tmp_path, kafka, inputs, {"schemas": {"topic": label_topic}})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    fleet = Fleet(kafka, tmp_path, setup, label_topic)
    kafka.produce(inputs[0], [b'{"text": "hello"}'])
    with running(setup):
        wait_until(lambda: f"topic {label_topic} is not there" in get(setup, "/readyz")[1].decode(), 60)
        assert () == LabelDesk(*_parts(fleet), SystemClock()).live_workers()
        kafka.create_topics({label_topic: 1, f"{label_topic}.status": 1}, {"cleanup.policy": "compact"})
        fleet.apply(1)
        wait_until(lambda: len(fleet.predictions()) == 1, 60)
        wait_ready(setup)
        # Unbound: its records wait, those that follow too, until there are labels again.
        kafka.produce(label_topic, [{"key": "kinds", "value": None}])
        wait_until(lambda: "its label schema kinds is not there" in get(setup, "/readyz")[1].decode(), 60)
        kafka.produce(inputs[0], [b'{"text": "later"}'])
        fleet.apply(2)
        wait_until(lambda: len(fleet.predictions()) == 2, 60)
    assert [1, 2] == sorted(each.version for each in fleet.predictions())


def test_a_partition_waits_until_the_topic_is_read_to_the_end_seen_after_its_assignment(
    fleet: Fleet, topics: TopicsFactory
) -> None:
    """Whatever version the former owner used, the next one knows: without it versions go back at a rebalance."""
    partition = TopicPartition(fleet.topic, 0)
    config = load_config(fleet.setup.path)
    assignment, labels, clock = Assignment(), LabelRegistry(), SystemClock()
    directory = TopicDirectory(connection(config.kafka, "gate"))
    readiness, stop = Readiness(), threading.Event()
    surroundings = (directory, readiness, Heartbeats(clock), clock)
    follower = topic_follower(config, "gate", labels, assignment, surroundings)
    assert follower is not None
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    try:
        assert follower.wait_until_read(lambda: False)
        for version in range(10):
            fleet.write(version)
            assignment.assign([partition])
            assert follower.is_behind(partition)
            wait_until(lambda: not follower.is_behind(partition))
            held = labels.current("kinds")
            assert held is not None
            assert version == held.version
        assert () == readiness.reasons()
    finally:
        stop.set()
        thread.join()


def test_a_dry_run_takes_the_last_records_of_the_topic(fleet: Fleet) -> None:
    fleet.apply(1)
    values = [{"value": json.dumps({"id": str(n), "text": f"text {n}"}), "partition": n % 4} for n in range(40)]
    fleet.kafka.produce(fleet.topic, values)
    result = fleet.schemas("dry-run", fleet.file(2, labels=[{"name": "only"}]), "--last", "8", "--json")
    found = json.loads(result.output)
    assert (8, 8) == (found["messages"], found["flips"])
    assert set(range(32, 40)) == {int(example["id"]) for example in found["examples"]}
    assert {} == fleet.kafka.committed_offsets(fleet.group, fleet.topic)


def test_check_reports_what_stands_in_the_label_topic(fleet: Fleet) -> None:
    fleet.apply(1)
    fleet.write(2, labels=[])
    result = CliRunner().invoke(build_app(), ["check", "-c", str(fleet.setup.path)])
    assert 0 == result.exit_code, result.output
    assert f"ok      {fleet.label_topic}: label schemas: kinds\n" in result.output
    assert "ok      label schema kinds@1: 2 labels, 2 pairs per message\n" in result.output
    assert "warning label topic: topic: kinds@2: labels: expected at least 1, not 0; what held before" in result.output


def _rejected(log_events: LogEvents) -> list[dict[str, Any]]:
    found = [event for event in log_events if event["event"] == "label_schema.rejected"]
    return [{key: event[key] for key in ("origin", "reason")} for event in found]


def _parts(fleet: Fleet) -> tuple[Any, Any]:
    config = load_config(fleet.setup.path)
    return config.kafka, config.schemas


def _wait_live(fleet: Fleet, count: int) -> None:
    desk = LabelDesk(*_parts(fleet), SystemClock())
    wait_until(lambda: len(desk.live_workers()) == count, 60)


def test_apply_waits_for_the_members_of_a_group_under_the_newer_protocol_too(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("labelled")
    label_topic = f"labels-{inputs[0]}"
    more = {"schemas": {"topic": label_topic, "create": True}, "http": {"port": 0}}
    setup = set_up(tmp_path, kafka, inputs, {**more, "kafka": {"group_protocol": "consumer"}})
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    fleet = Fleet(kafka, tmp_path, setup, label_topic)
    fleet.apply(1)
    with worker_process(setup):
        wait_until(lambda: kafka.members(fleet.group) == 1, 60)
        assert 1 == len(fleet.apply(2)["accepted"])
