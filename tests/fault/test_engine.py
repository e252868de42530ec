"""Engines that answer nonsense, or nothing, or run out of memory, or are out of order for a while."""

import json
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import metric
from tests.support.chaos_worker import Faults
from tests.support.wait import wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

RETRY: Mapping[str, Any] = {"engine_retry_seconds": 2}
PATIENT: Mapping[str, Any] = {"engine_retry_seconds": 600}
OUT_OF_ORDER = b"the engine fails whatever it is given (RuntimeError)"


@pytest.mark.parametrize("fault", ["poison", "nan", "shape"])
def test_only_the_record_that_the_engine_cannot_score_is_a_dead_letter(
    stream: StreamFactory, verdict: Verdict, fault: str
) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine=fault), "--until-end") as process:
        assert 0 == process.wait(270)
    assert verdict(attacked, f"engine: {fault} for one record in 15").is_perfect


def test_an_engine_that_fails_for_everything_ends_the_worker_with_nothing_of_it_committed(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(400, RETRY)
    with attacked.worker(Faults(engine="dead", at=10)) as process:
        assert 1 == process.wait(180)
    assert "the engine fails whatever it is given" in attacked.log()
    assert verdict(attacked, "engine: dead, then a healthy worker", attacked.run_to_end()).is_perfect


def test_an_engine_that_comes_back_costs_no_message_its_prediction_and_no_restart(
    stream: StreamFactory, verdict: Verdict
) -> None:
    """Out of order for some calls, a few of every attempt: back-off makes seconds of it."""
    attacked = stream(400, PATIENT)
    with attacked.worker(Faults(engine="dead", at=10, engine_calls=30), "--until-end") as process:
        wait_until(lambda: OUT_OF_ORDER in get(attacked.setup, "/readyz")[1], 60)
        assert 200 == get(attacked.setup, "/livez")[0]
        assert 0 == process.wait(270)
    assert '"engine.recovered"' in attacked.log()
    assert verdict(attacked, "engine: out of order for a while").is_perfect


def test_a_stop_while_the_engine_is_out_of_order_is_heard_at_once(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400, PATIENT)
    with attacked.worker(Faults(engine="dead", at=10)) as process:
        wait_until(lambda: OUT_OF_ORDER in get(attacked.setup, "/readyz")[1], 60)
        process.send_signal(signal.SIGTERM)
        assert 1 == process.wait(45)
    assert verdict(attacked, "engine: out of order, SIGTERM meanwhile", attacked.run_to_end()).is_perfect


def test_an_engine_that_runs_out_of_memory_goes_on_with_smaller_batches(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="memory", at=3)) as process:
        wait_until(lambda: attacked.position() == 2 * attacked.count, 60)
        assert 0 < metric(attacked, 'worker_engine_failures_total{kind="out_of_memory"}') < 50
        assert 0 < metric(attacked, "worker_batch_tokens_allowed ")
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(90)
    assert verdict(attacked, "engine: no memory for more than four pairs").is_perfect


def test_an_engine_thread_that_dies_ends_the_worker(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="thread", at=10)) as process:
        assert 1 == process.wait(180)
    assert '"thread.died"' in attacked.log()
    assert verdict(attacked, "engine: its thread dies", attacked.run_to_end()).is_perfect


def test_an_engine_that_hangs_is_told_by_readiness_then_by_liveness_with_the_age_of_each_stage(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="hang", at=10, patience_seconds=4.0)):
        wait_until(lambda: b"nothing has moved" in get(attacked.setup, "/readyz")[1], 60)
        wait_until(lambda: get(attacked.setup, "/livez")[0] == 503, 60)
        told = json.loads(get(attacked.setup, "/livez")[1])
        wait_until(lambda: '"thread.overdue"' in attacked.log(), 10)
    assert ["engine"] == [name for name, each in told["threads"].items() if each["age_seconds"] > each["limit_seconds"]]
    assert told["stages"]["score"]["busy"]
    assert told["stages"]["score"]["seconds"] > 4.0
    assert told["stages"].keys() >= {"poll", "intake", "score", "publish"}
    (overdue,) = [json.loads(line) for line in attacked.log().splitlines() if '"thread.overdue"' in line]
    assert ("engine", True) == (overdue["thread"], overdue["stages"]["score"]["busy"])
    assert any("chaos_worker:score" in frame or "__main__:score" in frame for frame in overdue["stack"])
    assert verdict(attacked, "engine: hangs, killed by its probe", attacked.run_to_end()).is_perfect
