"""The log tells of a thread that is stuck: which, where, and how old the work of each stage is."""

import threading

from tests.conftest import LogEvents
from worker.clock import ManualClock
from worker.observability.health import Heartbeats
from worker.observability.liveness import LivenessWatch, stack_of


def test_a_silent_thread_is_told_once_with_its_stack_and_the_age_of_every_stage(
    log_events: LogEvents, expected_errors: set[str]
) -> None:
    expected_errors.add("thread.overdue")
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    watch = LivenessWatch(heartbeats)
    heartbeats.register("poll", 60.0)
    heartbeats.register("engine", 5.0)
    heartbeats.beat("engine")
    with heartbeats.busy("score"):
        clock.advance(5.0)
        watch.look()
        assert [] == log_events
        clock.advance(1.0)
        watch.look()
        watch.look()
    (event,) = log_events
    assert ("thread.overdue", "engine", 6.0) == (event["event"], event["thread"], event["age_seconds"])
    assert {"engine": 6.0, "poll": 6.0} == event["threads"]
    assert {"score": {"busy": True, "seconds": 6.0}} == event["stages"]
    assert any(":test_a_silent_thread_is_told_once" in line for line in event["stack"])


def test_a_thread_that_is_heard_of_again_is_told_too(log_events: LogEvents, expected_errors: set[str]) -> None:
    expected_errors.add("thread.overdue")
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    watch = LivenessWatch(heartbeats)
    heartbeats.register("poll", 5.0)
    clock.advance(6.0)
    watch.look()
    heartbeats.beat("poll")
    watch.look()
    assert ["thread.overdue", "thread.recovered"] == [event["event"] for event in log_events]


def test_the_watch_looks_until_it_is_told_to_stop(log_events: LogEvents, expected_errors: set[str]) -> None:
    expected_errors.add("thread.overdue")
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.register("poll", 7.0)

    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        return bool(log_events)

    LivenessWatch(heartbeats).run(wait)
    assert ["thread.overdue"] == [event["event"] for event in log_events]


def test_a_thread_that_was_never_heard_of_has_no_stack() -> None:
    assert [] == stack_of(None)
    assert stack_of(threading.get_ident())
