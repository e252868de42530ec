"""The whole worker on a real broker: every input once, in order, whatever is in it."""

import json
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka import Message

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import conclusive, found_in_time, wait_until
from tests.support.worker import NOTHING, Changes, Setup, get, run_to_end, running, set_up, wait_ready, worker_process

pytestmark = pytest.mark.kafka


def created(
    kafka: BrokerUnderTest, folder: Path, topics: TopicsFactory, *stems: str, changes: Changes = NOTHING
) -> Setup:
    inputs = topics(*stems)
    setup = set_up(folder, kafka, inputs, changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    return setup


def events(stem: str, count: int) -> list[dict[str, object]]:
    """Numbered records over 4 partitions; every 20th is broken."""
    return [
        {
            "value": f"broken {stem}-{i}" if i % 20 == 0 else json.dumps({"id": f"{stem}-{i}", "text": f"text {i}"}),
            "key": f"key-{i % 7}",
            "partition": i % 4,
        }
        for i in range(count)
    ]


def number_of(message: Message) -> int:
    value = message.value() or b""
    identity = value.decode() if value.startswith(b"broken") else json.loads(value)["id"]
    return int(identity.rsplit("-", 1)[1])


def assert_each_once_and_in_order(kafka: BrokerUnderTest, setup: Setup, count: int) -> None:
    for topic in setup.inputs:
        seen = kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq")
        assert sorted(range(count)) == sorted(number_of(message) for message in seen)
        lanes = defaultdict(list)
        for message in seen:
            assert number_of(message) % 4 == message.partition()
            lanes[message.topic(), message.partition()].append(number_of(message))
        for lane in lanes.values():
            assert sorted(lane) == lane


def test_every_record_of_two_topics_gives_one_result_in_its_partition_and_order(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = created(kafka, tmp_path, topics, "a", "b")
    for topic in setup.inputs:
        kafka.produce(topic, events(topic, 1000))
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 1000)
    for topic in setup.inputs:
        assert dict.fromkeys(range(4), 250) == kafka.committed_offsets(f"group-{setup.inputs[0]}", topic)


def test_at_least_once_loses_nothing_and_keeps_order(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = created(kafka, tmp_path, topics, "least", changes={"delivery": "at_least_once"})
    kafka.produce(setup.inputs[0], events("least", 400))
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 400)
    assert dict.fromkeys(range(4), 100) == kafka.committed_offsets(f"group-{setup.inputs[0]}", setup.inputs[0])


def test_a_worker_stopped_in_the_middle_and_started_again_loses_and_doubles_nothing(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = created(kafka, tmp_path, topics, "stop", changes={"limits": {"in_flight_records": 50}})
    kafka.produce(setup.inputs[0], events("stop", 6000))
    with worker_process(setup) as process:
        wait_until(lambda: len(kafka.committed_offsets(f"group-{setup.inputs[0]}", setup.inputs[0])) > 0, 60)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    done = sum(kafka.committed_offsets(f"group-{setup.inputs[0]}", setup.inputs[0]).values())
    conclusive(0 < done < 6000, f"not stopped in the middle: {done} were done")
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 6000)


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    instance = {"group_id": "killed", "instance_id": "pod-0", "librdkafka": {"session.timeout.ms": 6000}}
    changes = {"kafka": instance, "limits": {"in_flight_records": 50}}
    setup = created(kafka, tmp_path, topics, "kill", changes=changes)
    kafka.produce(setup.inputs[0], events("kill", 6000))
    done = [0]

    def has_moved() -> bool:
        position = sum(kafka.committed_offsets("killed", setup.inputs[0]).values())
        moved = position > done[-1]
        done.append(position)
        return moved

    for _ in range(2):
        with worker_process(setup) as process:
            # Its successor ends the transaction that a kill leaves open: until then nobody can ask how far it came.
            wait_until(has_moved, 60)
            process.kill()
    conclusive(done[-1] < 6000, "killed after the end")
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 6000)


def test_workers_that_join_and_leave_lose_and_double_nothing(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = created(kafka, tmp_path, topics, "join", changes={"limits": {"in_flight_records": 20}, "http": {"port": 0}})
    topic, group = setup.inputs[0], "group-"
    kafka.produce(topic, events("join", 4000))

    def committed() -> int:
        return sum(kafka.committed_offsets(f"{group}{topic}", topic).values())

    with worker_process(setup) as first:
        wait_until(lambda: committed() > 200, 60)
        with worker_process(setup) as second:
            wait_until(lambda: kafka.members(f"{group}{topic}") == 2, 60)
            before = committed()
            wait_until(lambda: committed() > min(before + 400, 3900), 60)
            second.send_signal(signal.SIGTERM)
            assert 0 == second.wait(180)
        before = committed()
        wait_until(lambda: committed() > min(before + 200, 3999), 60)
        first.send_signal(signal.SIGTERM)
        assert 0 == first.wait(180)
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 4000)


def test_an_input_waits_while_its_outputs_are_missing_and_goes_on_when_they_are_there(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("wait", "other")
    setup = set_up(tmp_path, kafka, inputs)
    kafka.create_topics(dict.fromkeys([t for t in setup.outputs if t != f"{inputs[0]}.dlq"], 4))
    for topic in inputs:
        kafka.produce(topic, events(topic, 40))
    with running(setup):
        found_in_time(lambda: len(kafka.read_committed(f"{inputs[1]}.predictions", f"{inputs[1]}.dlq")) == 40, 60)
        status, body = get(setup, "/readyz")
        assert 503 == status
        assert f"waiting for {inputs[0]}.dlq" in body.decode()
        assert [] == kafka.read_committed(f"{inputs[0]}.predictions")
        kafka.create_topics({f"{inputs[0]}.dlq": 4})
        found_in_time(lambda: len(kafka.read_committed(f"{inputs[0]}.predictions", f"{inputs[0]}.dlq")) == 40, 60)
        wait_ready(setup)
    assert_each_once_and_in_order(kafka, setup, 40)


def test_missing_outputs_are_created_where_that_is_asked_for(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("create", partitions=3)
    setup = set_up(tmp_path, kafka, inputs, {"kafka": {"create_topics": True}})
    kafka.produce(inputs[0], [b'{"text": "hello"}'])
    run_to_end(setup)
    made = kafka.admin().list_topics(timeout=30).topics
    assert [3, 3] == [len(made[topic].partitions) for topic in setup.outputs]
    assert 1 == len(kafka.read_committed(f"{inputs[0]}.predictions"))


def test_a_label_schema_that_changes_while_it_runs_is_stamped_into_what_follows(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = created(kafka, tmp_path, topics, "change")
    topic = setup.inputs[0]
    with running(setup) as worker:
        kafka.produce(topic, [b'{"text": "before"}'])
        found_in_time(lambda: len(kafka.read_committed(f"{topic}.predictions")) == 1, 60)
        newer = (tmp_path / "schemas" / "kinds.yaml").read_text().replace(
            "version: 1", "version: 2"
        ) + "  - name: new\n"
        (tmp_path / "kinds.tmp").write_text(newer)
        (tmp_path / "kinds.tmp").rename(tmp_path / "schemas" / "kinds.yaml")
        wait_until(lambda: (found := worker.labels.current("kinds")) is not None and found.version == 2, 60)
        kafka.produce(topic, [b'{"text": "after"}'])
        found_in_time(lambda: len(kafka.read_committed(f"{topic}.predictions")) == 2, 60)
    values = [json.loads(message.value() or b"") for message in kafka.read_committed(f"{topic}.predictions")]
    by_version = {value["schema"]["version"]: {score["label"] for score in value["scores"]} for value in values}
    assert {1: {"billing", "bug"}, 2: {"billing", "bug", "new"}} == by_version


def test_stages_windows_and_routes_give_every_record_once_and_in_order(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    """A copy is written in the transaction of its prediction, to a topic that was waited for."""
    [queue] = topics("queue")
    routes = {"late": queue, "broken": queue, "other": queue}
    setup = created(kafka, tmp_path, topics, "staged", changes={"binding": {"routes": routes, "emit": "prediction"}})
    topic = setup.inputs[0]
    (tmp_path / "schemas" / "kinds.yaml").write_text(
        "name: kinds\nversion: 1\nlong_text: {strategy: windows}\nhierarchy: {open_above: 0.6}\n"
        "labels:\n  - name: delivery\n    children: [{name: late}, {name: broken}]\n"
        "  - name: bill\n    children: [{name: refund}]\n"
    )
    values = [json.dumps({"id": f"staged-{i}", "text": f"text {i} " * (1 + 300 * (i % 10 == 0))}) for i in range(400)]
    kafka.produce(topic, [{"value": value, "partition": i % 4} for i, value in enumerate(values)])
    run_to_end(setup)
    assert_each_once_and_in_order(kafka, setup, 400)
    predictions = [json.loads(message.value() or b"") for message in kafka.read_committed(f"{topic}.predictions")]
    assert all(each["text"]["windows"] > 1 for each in predictions if int(each["id"].split("-")[1]) % 10 == 0)
    assert {0} == {each["text"]["tokens_dropped"] for each in predictions}
    assert {2, 3, 4} == {len(each["scores"]) for each in predictions}
    # Five labels, each with a hypothesis of its own: what was not scored was left out.
    costs = [(each["pairs"]["scored"] + each["pairs"]["skipped"], each["text"]["windows"]) for each in predictions]
    assert {5} == {pairs / windows for pairs, windows in costs}
    routed = [(each["id"], each["label"]) for each in predictions if each["label"] in routes]
    copies = kafka.read_committed(queue)
    assert sorted(routed) == sorted(
        (json.loads(copy.value() or b"")["id"], _header(copy, "nli-routed")) for copy in copies
    )
    assert len(routed) > 20


def _header(message: Message, name: str) -> str:
    [header] = [header for header in message.headers() or [] if header[0] == name]
    return header[1].decode() if isinstance(header[1], bytes) else ""
