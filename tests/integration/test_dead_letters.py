"""Dead letters can be looked at, and replayed exactly once, on a real broker with the worker."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from confluent_kafka import Message
from typer.testing import CliRunner, Result

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.chaos_worker import ENVIRONMENT
from tests.support.worker import LABELS, Setup, run_to_end, set_up
from worker.cli.main import build_app
from worker.clock import SystemClock
from worker.config import load_config
from worker.dead_letters.desk import LetterDesk
from worker.dead_letters.selection import Tally, Wanted
from worker.errors import FatalError

pytestmark = pytest.mark.kafka

BROKEN = b"zebrafinch {"


@pytest.fixture
def setup(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> Setup:
    made = set_up(tmp_path, kafka, topics("letters", partitions=3))
    kafka.create_topics(dict.fromkeys(made.outputs, 3))
    return made


def invoke(setup: Setup, name: str, *arguments: str) -> Result:
    """What the command does in this process, whose log it leaves as it was."""
    before = structlog.get_config()
    try:
        return CliRunner().invoke(build_app(), ["dead-letters", name, "-c", str(setup.path), *arguments])
    finally:
        structlog.configure(**before)


def command(setup: Setup, name: str, *arguments: str) -> str:
    result = invoke(setup, name, *arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def summary(setup: Setup, *arguments: str) -> dict[str, Any]:
    return objects(command(setup, "replay", "--json", *arguments))[-1]


def letters(kafka: BrokerUnderTest, setup: Setup) -> list[Message]:
    return kafka.read_committed(f"{setup.inputs[0]}.dlq")


def attempts(messages: Sequence[Message]) -> list[bytes | None]:
    return [dict(headers_of(message))["nli-attempts"] for message in messages]


def record(value: bytes, partition: int, **more: object) -> dict[str, object]:
    return {"value": value, "partition": partition, **more}


def test_a_broken_record_makes_its_rounds_until_it_was_tried_often_enough(kafka: BrokerUnderTest, setup: Setup) -> None:
    topic, headers = setup.inputs[0], [("trace", b"\xfe"), ("trace", None)]
    kafka.produce(topic, [record(BROKEN, 2, key=b"\xff", headers=headers, timestamp=1_700_000_000_123)])
    for round_ in (1, 2, 3):
        run_to_end(setup)
        assert [str(n).encode() for n in range(1, round_ + 1)] == attempts(letters(kafka, setup))
        expected = {"sent": 1, "codes": {"json_invalid": 1}} if round_ < 3 else {"sent": 0, "codes": {}}
        told = summary(setup, "--yes")
        assert expected == {key: told[key] for key in expected}
    assert {"attempts_exhausted": 1} == told["left_out"]
    inputs = kafka.read_committed(topic)
    assert [(b"\xff", BROKEN, 2, 1_700_000_000_123)] * 3 == [
        (m.key(), m.value(), m.partition(), m.timestamp()[1]) for m in inputs
    ]
    assert [*headers, ("nli-attempts", b"2")] == headers_of(inputs[1])
    assert 1 == summary(setup, "--yes", "--max-attempts", "4")["sent"]
    assert b"4" == attempts(kafka.read_committed(topic)[-1:])[0]


def test_a_record_is_predicted_once_its_label_schema_is_there_and_it_is_replayed(
    kafka: BrokerUnderTest, setup: Setup
) -> None:
    topic = setup.inputs[0]
    wanting = json.dumps({"id": "w", "text": "hello", "label_schema": "later"}).encode()
    kafka.produce(topic, [record(BROKEN, 0), record(wanting, 0), record(BROKEN, 1), record(wanting, 1)])
    run_to_end(setup)
    assert {"json_invalid": 2, "schema_unknown": 2} == summary(setup)["codes"]
    (setup.path.parent / "schemas" / "later.yaml").write_text(LABELS.replace("kinds", "later"))
    assert {"schema_unknown": 2} == summary(setup, "--code", "schema_unknown", "--yes")["codes"]
    run_to_end(setup)
    predictions = kafka.read_committed(f"{topic}.predictions")
    assert [("w", "later", 0), ("w", "later", 1)] == [
        (told["id"], told["schema"]["name"], message.partition())
        for message in predictions
        for told in [json.loads(message.value() or b"")]
    ]
    assert 4 == len(letters(kafka, setup))


def test_no_dead_letter_is_sent_twice_whatever_a_filter_left_behind(kafka: BrokerUnderTest, setup: Setup) -> None:
    topic = setup.inputs[0]
    empty = b'{"text": ""}'
    kafka.produce(topic, [record((BROKEN, empty)[i % 2], i % 3) for i in range(60)])
    run_to_end(setup)
    assert 30 == summary(setup, "--code", "text_empty", "--yes")["sent"]
    again = summary(setup, "--code", "text_empty", "--yes")
    # One of the three partitions begins with a replayed one: its position could move past that.
    assert (0, {"filtered": 30, "replayed_before": 29}) == (again["sent"], again["left_out"])
    assert 30 == summary(setup, "--yes")["sent"]
    assert (0, {}) == tuple(summary(setup, "--yes")[key] for key in ("sent", "left_out"))
    sent = [message.value() for message in kafka.read_committed(topic)]
    assert [60, 60] == [sent.count(BROKEN), sent.count(empty)]


def test_a_rehearsal_writes_nothing(kafka: BrokerUnderTest, setup: Setup) -> None:
    kafka.produce(setup.inputs[0], [record(BROKEN, 0)])
    run_to_end(setup)
    for _ in range(2):
        printed = command(setup, "replay")
        assert "would be sent: 1 (json_invalid 1)" in printed
        assert "add --yes" in printed
    assert 1 == len(kafka.read_uncommitted(setup.inputs[0]))
    assert {} == kafka.committed_offsets(f"group-{setup.inputs[0]}.dead-letters-replay", f"{setup.inputs[0]}.dlq")


def test_a_second_replay_shuts_the_first_one_out_and_nothing_is_sent_twice(
    kafka: BrokerUnderTest, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.produce(setup.inputs[0], [record(BROKEN, i % 3) for i in range(30)])
    run_to_end(setup)
    monkeypatch.setattr("worker.dead_letters.desk.BATCH_RECORDS", 10)
    desk = LetterDesk(load_config(setup.path), SystemClock())
    topics, rules = desk.topics(None), desk.rules(Wanted(), 3)
    first = desk.replay(topics, rules, Tally())
    next(first)
    assert 20 == summary(setup, "--yes")["sent"]
    with pytest.raises(FatalError, match="another replay"):
        list(first)
    assert 60 == len(kafka.read_committed(setup.inputs[0]))


@pytest.mark.parametrize(("phase", "left"), [("after_produce", 30), ("after_send_offsets", 30), ("after_commit", 0)])
def test_a_replay_that_is_killed_has_sent_all_or_nothing_and_the_next_one_sends_the_rest(
    kafka: BrokerUnderTest, setup: Setup, phase: str, left: int
) -> None:
    values = [BROKEN + str(number).encode() for number in range(30)]
    kafka.produce(setup.inputs[0], [record(value, number % 3) for number, value in enumerate(values)])
    run_to_end(setup)
    command = [sys.executable, "-m", "tests.support.chaos_worker", "dead-letters", "replay", "-c", str(setup.path)]
    fault = {ENVIRONMENT: json.dumps({"phase": phase, "at": 1})}
    killed = subprocess.run([*command, "--yes"], env={**os.environ, **fault}, capture_output=True, check=False)
    assert -signal.SIGKILL == killed.returncode, killed.stderr.decode()
    assert left == summary(setup, "--yes")["sent"]
    assert 0 == summary(setup, "--yes")["sent"]
    sent = Counter(message.value() for message in kafka.read_committed(setup.inputs[0]))
    assert dict.fromkeys(values, 2) == sent


def test_what_has_lost_its_value_or_is_no_dead_letter_is_left_out_and_counted(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, kafka, topics("large", partitions=1))
    kafka.create_topics({f"{setup.inputs[0]}.predictions": 1})
    kafka.create_topics({f"{setup.inputs[0]}.dlq": 1}, {"max.message.bytes": "2000"})
    kafka.produce(setup.inputs[0], [BROKEN + b"x" * 5000, BROKEN])
    run_to_end(setup)
    kafka.produce(f"{setup.inputs[0]}.dlq", [b"from elsewhere"])
    told = summary(setup, "--yes")
    assert (1, {"value_dropped": 1, "not_ours": 1}) == (told["sent"], told["left_out"])
    listed = objects(command(setup, "list", "--json"))
    assert [(5012, True), (12, False)] == [(each["value_bytes"], each["value_dropped"]) for each in listed]


def test_dead_letters_are_listed_by_code_topic_and_time_without_a_word_of_them(
    kafka: BrokerUnderTest, setup: Setup
) -> None:
    topic = setup.inputs[0]
    kafka.produce(
        topic,
        [
            record(BROKEN, 0, timestamp=1_700_000_000_000),
            record(b'{"text": " ", "zebrafinch": 1}', 0, timestamp=1_700_000_060_000, headers=[("zebrafinch", b"1")]),
        ],
    )
    run_to_end(setup)
    table = command(setup, "list")
    assert "dead letters: 2 (json_invalid 1, text_empty 1)" in table
    assert f"{topic}.dlq/0/0" in table
    assert "zebrafinch" not in table
    asked = {
        ("--code", "text_empty"): ["text_empty"],
        ("--topic", topic): ["json_invalid", "text_empty"],
        ("--topic", f"{topic}.dlq"): ["json_invalid", "text_empty"],
        ("--since", "2023-11-14T22:14:00Z"): ["text_empty"],
        ("--until", "2023-11-14T22:14:00Z"): ["json_invalid"],
        ("--since", "1h"): [],
    }
    for arguments, expected in asked.items():
        assert expected == [each["code"] for each in objects(command(setup, "list", "--json", *arguments))]


def test_a_dead_letter_is_shown_with_its_text_only_where_asked(kafka: BrokerUnderTest, setup: Setup) -> None:
    topic = setup.inputs[0]
    kafka.produce(topic, [record(BROKEN, 1, key=b"zebrafinch", headers=[("h", b"zebrafinch")])])
    run_to_end(setup)
    position = f"{topic}.dlq/1/0"
    for as_json in ((), ("--json",)):
        plain = command(setup, "show", position, *as_json)
        assert "zebrafinch" not in plain
        assert "nli-error-code" in plain
        assert 3 == command(setup, "show", position, "--show-text", *as_json).count("zebrafinch")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["list", "--code", "no_such"], "--code: expected one of"),
        (["list", "--topic", "elsewhere"], "--topic: expected an input topic"),
        (["replay", "--since", "soon"], "--since: expected a time"),
        (["show", "nowhere"], "topic/partition/offset"),
        (["show", "{topic}.dlq/0/77"], "there is no record at this position"),
        (["show", "{topic}.dlq/9/0"], "there is no record at this position"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(setup: Setup, arguments: list[str], expected: str) -> None:
    filled = [argument.replace("{topic}", setup.inputs[0]) for argument in arguments]
    assert expected in str(invoke(setup, *filled).exception)
