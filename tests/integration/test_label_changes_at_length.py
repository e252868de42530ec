"""A version every second under load, workers coming and going: `uv run pytest -m soak tests/integration`."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.labelled import Fleet, assert_whole_and_never_back, document, event, is_pinned, load
from tests.support.wait import conclusive, wait_until
from tests.support.worker import run_to_end, set_up, worker_process
from worker.labels.schema import canonical_json
from worker.types import JsonValue

pytestmark = [pytest.mark.kafka, pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("LABEL_CHANGES_SECONDS", "300"))
"""How long versions are written, one every second."""
BAD_EVERY = 7
"""Every so many versions one is refused by the workers; each time of another kind."""
DEATH_EVERY = 45
"""Every so many versions a worker is killed and another one started."""


def bad_documents(version: int) -> list[bytes]:
    """One of every kind, as it would stand under `version`."""
    twice: list[JsonValue] = [{"name": "billing"}, {"name": "billing"}]
    good = document(version)
    return [
        canonical_json(good)[:-1],  # no JSON
        canonical_json({**good, "label": []}),
        canonical_json({**good, "labels": twice}),
        canonical_json({**good, "hypothesis_templates": ["It is so."]}),
        canonical_json(document(1)),  # a version that does not rise
        canonical_json({**good, "requires_model": "sha256:" + "0" * 64}),
        canonical_json({**good, "labels": []}),
    ]


@pytest.fixture
def fleet(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> Fleet:
    inputs = topics("changing")
    label_topic = f"labels-{inputs[0]}"
    librdkafka = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    changes = {
        "kafka": {"librdkafka": librdkafka},
        "schemas": {"topic": label_topic, "create": True},
        "http": {"port": 0},
    }
    setup = set_up(tmp_path, kafka, inputs, changes)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    return Fleet(kafka, tmp_path, setup, label_topic)


def test_a_version_every_second_is_never_half_applied_and_never_goes_back(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.apply(1)
    applied, bad, deaths, pace = {1}, set[int](), 0, threading.Event()
    with contextlib.ExitStack() as first, contextlib.ExitStack() as others:
        doomed = first.enter_context(worker_process(fleet.setup))
        for _ in range(2):
            others.enter_context(worker_process(fleet.setup))
        written = first.enter_context(load(fleet, pause_seconds=0.1))
        wait_until(lambda: fleet.kafka.members(fleet.group) == 3, 60)
        version, until = 1, time.monotonic() + SECONDS
        while time.monotonic() < until:
            version, next_at = version + 1, time.monotonic() + 1.0
            if version % BAD_EVERY == 0:
                kinds = bad_documents(version)
                fleet.write_bytes(version, kinds[len(bad) % len(kinds)])
                bad.add(version)
            else:
                assert fleet.apply(version, "--no-wait")["written"]
                applied.add(version)
            if version % DEATH_EVERY == 0:
                doomed.send_signal(signal.SIGKILL)
                doomed = others.enter_context(worker_process(fleet.setup))
                deaths += 1
            pace.wait(max(0.0, next_at - time.monotonic()))
    # Whoever is given these has read the label topic to its end.
    total = written[0] + 40
    fleet.kafka.produce(fleet.topic, [event(number) for number in range(written[0], total)])
    run_to_end(fleet.setup)
    found = fleet.predictions()
    versions = {seen.version for seen in found}
    with capsys.disabled():
        print(f"\n{len(found)} predictions, {version} versions ({len(bad)} bad), {len(versions)} seen, {deaths} kills")  # noqa: T201
    assert list(range(total)) == sorted(seen.number for seen in found)
    assert_whole_and_never_back(found)
    assert versions <= applied, "a bad one never takes hold"
    assert {max(applied)} == {
        seen.version for seen in found if seen.number >= written[0] and not is_pinned(seen.number)
    }
    conclusive(len(applied) + len(bad) >= SECONDS / 4, "the machine was too slow to write a version a second")
    assert len(versions) >= len(applied) / 3, "applied versions take hold while they are the newest"
    assert [] == fleet.kafka.read_committed(f"{fleet.topic}.dlq")
