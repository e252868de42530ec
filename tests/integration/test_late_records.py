"""Records older than `max_age_seconds`: predicted, marked or refused, as the binding says, and counted in any case."""

import json
import time
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.wait import found_in_time
from tests.support.worker import get, running, set_up

pytestmark = pytest.mark.kafka


def test_late_records_are_predicted_marked_or_refused_as_the_binding_says(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    names = dict(
        zip(("predict", "mark", "dead_letter"), topics("predict", "mark", "refuse", partitions=1), strict=True)
    )
    bindings = [
        {"input": name, "label_schema": "kinds", "max_age_seconds": 60, "late": late} for late, name in names.items()
    ]
    setup = set_up(tmp_path, kafka, list(names.values()), {"topics": bindings})
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    now_ms = int(time.time() * 1000)
    for name in names.values():
        for identity, age_seconds in (("late", 3600), ("punctual", 1)):
            value = json.dumps({"id": identity, "text": "a text"})
            kafka.produce(name, [{"value": value, "timestamp": now_ms - 1000 * age_seconds}])
    with running(setup):
        found_in_time(lambda: len(kafka.read_committed(*setup.outputs)) == 2 * len(names))
        told = get(setup, "/metrics")[1].decode()
    for name in names.values():
        assert f'worker_records_late_total{{topic="{name}"}} 1.0' in told
    marks = {
        (late, json.loads(message.value() or b"")["id"]): dict(headers_of(message)).get("nli-late")
        for late, name in names.items()
        for message in kafka.read_committed(f"{name}.predictions")
    }
    age = marks.pop(("mark", "late"))
    assert age is not None
    assert 3600 <= int(age) < 3700
    assert {(late, "punctual"): None for late in names} | {("predict", "late"): None} == marks
    assert [] == kafka.read_committed(f"{names['predict']}.dlq", f"{names['mark']}.dlq")
    (letter,) = kafka.read_committed(f"{names['dead_letter']}.dlq")
    assert b"expired" == dict(headers_of(letter))["nli-error-code"]
