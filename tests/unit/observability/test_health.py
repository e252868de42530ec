"""Liveness is about our own threads, readiness about everything else."""

import json

from worker.clock import ManualClock
from worker.observability.health import Heartbeats, Probes, Readiness, answer


def _probes(heartbeats: Heartbeats | None = None, readiness: Readiness | None = None) -> Probes:
    readiness = readiness or Readiness()
    return Probes(
        ages=(heartbeats or Heartbeats(ManualClock())).ages,
        reasons=readiness.reasons,
        remarks=readiness.remarks,
        metrics=lambda: b"worker_up 1\n",
        schemas=lambda: {"intent": 3},
        stages=(heartbeats or Heartbeats(ManualClock())).stages,
    )


def test_a_thread_is_overdue_only_after_its_limit() -> None:
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.register("poll", 30.0)
    heartbeats.register("engine", 60.0)

    clock.advance(30.0)
    assert () == heartbeats.overdue()
    clock.advance(0.5)
    assert ("poll",) == heartbeats.overdue()
    heartbeats.beat("poll")
    assert () == heartbeats.overdue()
    assert {"poll": 0.0, "engine": 30.5} == {name: beat.age_seconds for name, beat in heartbeats.ages().items()}


def test_a_released_thread_is_not_expected_and_cannot_come_back_by_a_late_beat() -> None:
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.register("poll", 1.0)

    heartbeats.release("poll")
    heartbeats.beat("poll")
    clock.advance(5.0)

    assert {} == heartbeats.ages()


def test_readiness_is_off_until_every_reason_is_cleared() -> None:
    readiness = Readiness()
    readiness.block("topic", "out is missing")
    readiness.block("broker", "out of reach")
    readiness.block("broker", "still out of reach")

    assert ("broker: still out of reach", "topic: out is missing") == readiness.reasons()
    readiness.clear("broker")
    readiness.clear("never-given")
    assert ("topic: out is missing",) == readiness.reasons()
    readiness.clear("topic")
    assert () == readiness.reasons()


def test_livez_fails_with_the_ages_when_a_thread_is_silent() -> None:
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.register("poll", 10.0)
    with heartbeats.busy("intake"):
        clock.advance(2.0)
    good = answer("/livez", _probes(heartbeats), "text/plain")
    with heartbeats.busy("score"):
        clock.advance(9.0)
        bad = answer("/livez", _probes(heartbeats), "text/plain")

    assert 200 == good.status
    assert 503 == bad.status
    assert {
        "alive": False,
        "threads": {"poll": {"age_seconds": 11.0, "limit_seconds": 10.0}},
        "stages": {"intake": {"busy": False, "seconds": 9.0}, "score": {"busy": True, "seconds": 9.0}},
    } == json.loads(bad.body)


def test_readyz_says_why_not() -> None:
    readiness = Readiness()
    assert (200, {"ready": True, "reasons": [], "remarks": []}) == _status_and_body(
        "/readyz", _probes(readiness=readiness)
    )

    readiness.block("broker", "out of reach")

    expected = (503, {"ready": False, "reasons": ["broker: out of reach"], "remarks": []})
    assert expected == _status_and_body("/readyz", _probes(readiness=readiness))


def test_a_remark_is_told_and_makes_nobody_unready() -> None:
    readiness = Readiness()
    readiness.remark("backpressure", "paused")

    expected = (200, {"ready": True, "reasons": [], "remarks": ["backpressure: paused"]})
    assert expected == _status_and_body("/readyz", _probes(readiness=readiness))

    readiness.remark("backpressure", None)

    assert (200, {"ready": True, "reasons": [], "remarks": []}) == _status_and_body(
        "/readyz", _probes(readiness=readiness)
    )


def test_readyz_names_a_thread_that_is_stuck_for_it_may_be_the_one_that_gives_the_reasons() -> None:
    clock, readiness = ManualClock(), Readiness()
    heartbeats = Heartbeats(clock)
    heartbeats.register("poll", 10.0)
    heartbeats.register("engine", 20.0)
    readiness.block("broker", "out of reach")

    clock.advance(12.0)

    reasons = ["broker: out of reach", "poll: the thread has not been heard of for 12 s"]
    expected = (503, {"ready": False, "reasons": reasons, "remarks": []})
    assert expected == _status_and_body("/readyz", _probes(heartbeats, readiness))


def test_schemas_and_metrics_are_passed_on() -> None:
    assert (200, {"intent": 3}) == _status_and_body("/schemas", _probes())
    assert b"worker_up 1\n" == answer("/metrics", _probes(), "text/plain").body


def test_any_other_path_is_not_found_and_not_quoted() -> None:
    status, body = _status_and_body("/secret-path", _probes())

    assert 404 == status
    assert "secret-path" not in json.dumps(body)


def _status_and_body(path: str, probes: Probes) -> tuple[int, object]:
    reply = answer(path, probes, "text/plain")
    return reply.status, json.loads(reply.body)
