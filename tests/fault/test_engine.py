"""Engines that answer nonsense, or nothing."""

import pytest

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos_worker import Faults
from tests.support.wait import wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("fault", ["poison", "nan", "shape"])
def test_only_the_record_that_the_engine_cannot_score_is_a_dead_letter(
    stream: StreamFactory, verdict: Verdict, fault: str
) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine=fault), "--until-end") as process:
        assert 0 == process.wait(90)
    assert verdict(attacked, f"engine: {fault} for one record in 20").is_perfect


def test_an_engine_that_fails_for_everything_ends_the_worker_with_nothing_of_it_committed(
    stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="dead", at=10)) as process:
        assert 1 == process.wait(60)
    assert "the engine fails whatever it is given" in attacked.log()
    assert verdict(attacked, "engine: dead, then a healthy worker", attacked.run_to_end()).is_perfect


@pytest.mark.soak
def test_an_engine_that_hangs_is_told_by_readiness_then_by_liveness(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(400)
    with attacked.worker(Faults(engine="hang", at=10)):
        wait_until(lambda: b"nothing has moved" in get(attacked.setup, "/readyz")[1], 100)
        assert 200 == get(attacked.setup, "/livez")[0]
        wait_until(lambda: get(attacked.setup, "/livez")[0] == 503, 100)
    assert verdict(attacked, "engine: hangs, killed by its probe", attacked.run_to_end()).is_perfect
