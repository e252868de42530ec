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
from tests.support.labelled import Fleet, assert_whole_and_never_back, load
from tests.support.wait import wait_until
from tests.support.worker import run_to_end, set_up, worker_process

pytestmark = [pytest.mark.kafka, pytest.mark.soak, pytest.mark.timeout(3600)]

SECONDS = float(os.environ.get("LABEL_CHANGES_SECONDS", "300"))
"""How long versions are written, one every second."""
BAD_EVERY = 7
"""Every so many versions one is refused by the workers."""
DEATH_EVERY = 45
"""Every so many versions a worker is killed and another one started."""


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
    bad, deaths, pace = set(), 0, threading.Event()
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
                bad.add(version)
                fleet.write(version, labels=[])
            else:
                fleet.apply(version, "--no-wait")
            if version % DEATH_EVERY == 0:
                doomed.send_signal(signal.SIGKILL)
                doomed = others.enter_context(worker_process(fleet.setup))
                deaths += 1
            pace.wait(max(0.0, next_at - time.monotonic()))
    run_to_end(fleet.setup)
    found = fleet.predictions()
    with capsys.disabled():
        versions = {seen.version for seen in found}
        print(f"\n{len(found)} predictions, {version} versions ({len(bad)} bad), {len(versions)} seen, {deaths} kills")  # noqa: T201
    assert list(range(written[0])) == sorted(seen.number for seen in found)
    assert_whole_and_never_back(found)
    assert not bad & {seen.version for seen in found}
    assert [] == fleet.kafka.read_committed(f"{fleet.topic}.dlq")
