"""`worker demo` as a command: what it prints and how it exits."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner, Result

from worker.cli import demo
from worker.demo.play import Audience, DemoSettings
from worker.demo.tally import Summary

COMPLETE = Summary(
    input=2,
    predictions=1,
    dead_letters=1,
    distinct=2,
    codes={"json_invalid": 1},
    versions={"support-intent": (1,)},
    broker="kafka",
    delivery="exactly_once",
    engine="fake",
    precision="float32",
    seconds=1.0,
    start_seconds={},
)
Answer = Callable[..., Result]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Runs the command with a demo that goes as told."""

    def run(summary: Summary, *arguments: str) -> Result:
        def played(settings: DemoSettings, audience: Audience) -> Summary:
            audience.warn(f"{settings.messages} on {settings.broker} by {settings.engine}")
            return summary

        monkeypatch.setattr("worker.demo.play.run_demo", played)
        monkeypatch.setattr("worker.observability.logging.configure_logging", lambda level: None)
        app = typer.Typer()
        demo.register(app)
        before = signal.getsignal(signal.SIGTERM)
        try:
            return CliRunner().invoke(app, arguments)
        finally:
            signal.signal(signal.SIGTERM, before)

    return run


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_exits_1_when_input_is_not_predictions_and_dead_letters(answer: Answer, arguments: list[str]) -> None:
    assert 0 == answer(COMPLETE, *arguments).exit_code
    assert 1 == answer(replace(COMPLETE, predictions=0, distinct=1), *arguments).exit_code


def test_json_is_one_object_and_nothing_else(answer: Answer) -> None:
    result = answer(COMPLETE, "--json")

    assert COMPLETE.as_json() == json.loads(result.stdout)
    assert 1 == len(result.stdout.splitlines())


def test_what_is_other_than_asked_for_goes_to_standard_error(answer: Answer) -> None:
    result = answer(COMPLETE, "--messages", "7", "--broker", "mock", "--engine", "fake", "--json")

    assert "demo: 7 on mock by fake\n" == result.stderr


@pytest.mark.parametrize("arguments", [["--messages", "0"], ["--broker", "pigeons"]])
def test_what_cannot_be_asked_for_is_a_usage_error(answer: Answer, arguments: list[str]) -> None:
    assert 2 == answer(COMPLETE, *arguments).exit_code
