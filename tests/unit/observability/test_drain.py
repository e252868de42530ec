"""Seconds to drain: what waits, by the pace of the last minute."""

import math

from worker.observability.drain import WINDOW_SECONDS, DrainEstimate


def test_what_waits_is_divided_by_the_pace() -> None:
    drain = DrainEstimate()
    drain.note(100.0, 0, 1000)
    assert 80.0 == drain.note(110.0, 100, 800)


def test_nothing_waiting_takes_no_time_whatever_the_pace() -> None:
    assert 0.0 == DrainEstimate().note(100.0, 0, 0)


def test_what_waits_while_nothing_moves_takes_for_ever() -> None:
    drain = DrainEstimate()
    assert math.inf == drain.note(100.0, 5, 10)
    assert math.inf == drain.note(102.0, 5, 10)


def test_the_pace_is_that_of_the_last_minute() -> None:
    drain = DrainEstimate()
    for second in range(0, 601, 2):
        # Fast at first, then ten records a second.
        seconds = drain.note(float(second), 1000 * min(second, 300) + 10 * max(0, second - 300), 100)
    assert 10.0 == seconds


def test_no_more_is_kept_than_the_window_holds() -> None:
    drain = DrainEstimate()
    for second in range(0, 10_000, 2):
        drain.note(float(second), second, 1)
    assert WINDOW_SECONDS / 2 + 1 >= len(drain._seen)
