"""The demo as its first user meets it: on a real broker, and on the mock one."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from worker.bundled.demo import demo_events
from worker.cli.demo import Quiet
from worker.demo.play import DemoSettings, run_demo
from worker.demo.tally import Outcome, Scene
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_jars import BrokerUnavailableError
from worker.types import Record

ONE_ROUND = 350
COMMAND = [sys.executable, "-m", "worker", "demo", "--engine", "fake"]


class Witness:
    """An audience that remembers."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.scenes: list[Scene] = []
        self.records: list[tuple[Record, Outcome]] = []

    def say(self, step: str) -> None:
        self.steps.append(step)

    def warn(self, line: str) -> None:
        self.warnings.append(line)

    def show(self, scene: Scene) -> None:
        self.scenes.append(scene)

    def note(self, record: Record, outcome: Outcome) -> None:
        self.records.append((record, outcome))


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the demo answered, its output in a pipe."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False)


def codes_of(count: int) -> dict[str, int]:
    """The dead letters that the first events ask for."""
    return dict(Counter(event.breaks for event in demo_events(count) if event.breaks is not None))


def check_summary(summary: dict[str, Any], count: int) -> None:
    """What holds of every demo."""
    codes = codes_of(count)
    assert (count, count - sum(codes.values()), sum(codes.values())) == (
        summary["input"],
        summary["predictions"],
        summary["dead_letters"],
    )
    assert codes == summary["dead_letter_codes"]
    assert [1, 2] == summary["label_schema_versions"]["support-intent"]
    assert [1] == summary["label_schema_versions"]["post-tags"]
    assert summary["messages_per_second"] > 0


@pytest.mark.kafka
def test_on_a_real_broker_every_event_becomes_a_prediction_or_the_dead_letter_it_asks_for(
    kafka: BrokerUnderTest,
) -> None:
    result = run_command("--messages", "120", "--json")

    assert (0, "") == (result.returncode, result.stderr)
    summary = json.loads(result.stdout)
    check_summary(summary, 120)
    assert ("kafka", "exactly_once", "fake") == (summary["broker"], summary["delivery"], summary["engine"])


def test_on_the_mock_broker_too_and_it_says_at_least_once() -> None:
    result = run_command("--messages", "120", "--json", "--broker", "mock")

    assert (0, "") == (result.returncode, result.stderr)
    summary = json.loads(result.stdout)
    check_summary(summary, 120)
    assert ("mock", "at_least_once") == (summary["broker"], summary["delivery"])


def test_in_a_pipe_only_the_summary_is_printed() -> None:
    result = run_command("--messages", "40", "--broker", "mock")

    assert (0, "") == (result.returncode, result.stderr)
    predictions, dead_letters = 40 - sum(codes_of(40).values()), sum(codes_of(40).values())
    assert (
        f"40 events in, {predictions} predictions + {dead_letters} dead letters out: each event exactly once"
        == result.stdout.splitlines()[0]
    )
    assert "at least once" in result.stdout
    assert "\x1b" not in result.stdout


def test_every_dead_letter_is_a_broken_event_with_its_code_and_its_own_bytes() -> None:
    witness = Witness()

    summary = run_demo(DemoSettings(ONE_ROUND, "mock", "fake"), witness)

    expected = Counter((e.topic, e.key, e.value, e.breaks) for e in demo_events(ONE_ROUND) if e.breaks is not None)
    found = Counter((o.source[0], r.key, r.value, o.code) for r, o in witness.records if o.code is not None)
    assert expected == found
    assert summary.is_complete
    assert summary.distinct == ONE_ROUND


def test_the_label_set_changes_while_the_worker_runs_and_the_scenes_show_it() -> None:
    witness = Witness()

    run_demo(DemoSettings(100, "mock", "fake"), witness)

    in_force = [scene.in_force["support-intent"] for scene in witness.scenes]
    assert sorted(in_force) == in_force
    assert {1, 2} == set(in_force)
    changed = next(scene for scene in witness.scenes if scene.in_force["support-intent"] == 2)
    assert 50 <= changed.predictions + changed.dead_letters
    assert changed.sent < 100
    assert witness.scenes[-1].sent == 100


def test_without_a_real_broker_it_goes_on_with_the_mock_one_and_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_self: object) -> None:
        raise BrokerUnavailableError("the jars cannot be had:\nno network")

    monkeypatch.setattr(EmbeddedKafka, "start", refuse)

    summary = run_demo(DemoSettings(20, "kafka", "fake"), Quiet())

    assert ("mock", "at_least_once", True) == (summary.broker, summary.delivery, summary.is_complete)
    said = capsys.readouterr()
    assert "" == said.out
    reason = "the jars cannot be had: no network"
    expected = f"demo: no real Kafka: {reason}; going on with librdkafka's mock cluster, at least once"
    assert [expected] == said.err.splitlines()


def test_an_interrupt_stops_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [*COMMAND, "--broker", "mock", "--messages", "1000000"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            _wait_for_folder(tmp_path, process)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=180)
        finally:
            process.kill()

    assert (130, b"", b"") == (process.returncode, output, errors)
    assert [] == list(tmp_path.iterdir())


def _wait_for_folder(folder: Path, process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: process.poll() is not None or any(folder.glob("*/label-schemas/*")), 60, "a running demo")


def test_an_engine_that_the_bundled_model_has_not_is_said_in_one_line() -> None:
    command = [sys.executable, "-m", "worker", "demo", "--broker", "mock", "--engine", "pytorch"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    assert (2, "") == (result.returncode, result.stdout)
    assert ["worker: engine: expected 'auto' or 'openvino' with `model: bundled`"] == result.stderr.splitlines()
