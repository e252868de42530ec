"""Waiting for what another thread or process does, with a deadline and never with a blind sleep."""

import threading
import time
from collections.abc import Callable

_PATIENCE = 4.0
"""How often a deadline is waited for: each is meant for a machine that does nothing else."""
_LOOK_SECONDS = 0.02
_STAY_SECONDS = 0.25


class DeadlineError(AssertionError):
    """What was waited for did not come: a hang, or a machine that stood still.

    The two look alike, so the test is run again, and a rerun is told at the end: a hang is one that comes back.
    """


class InconclusiveError(AssertionError):
    """What a test is about did not happen in it: it has shown nothing, and is run again (see `pyproject.toml`)."""


def conclusive(condition: object, why_not: str) -> None:
    """InconclusiveError with `why_not` unless `condition` holds: for how a trial went, never for what came of it."""
    if not condition:
        raise InconclusiveError(why_not)


def wait_until(
    predicate: Callable[[], bool],
    deadline_seconds: float = 30.0,
    what: str = "the condition",
    look_seconds: float = _LOOK_SECONDS,
) -> None:
    """Return once `predicate` holds, looked at every `look_seconds`.

    DeadlineError when it did not within `deadline_seconds`, and not within several times as many either. For what has
    to be there before a test can say anything; for what it is about there is `found_in_time`.
    """
    if not _came(predicate, deadline_seconds, look_seconds):
        raise DeadlineError(f"{what} did not hold within {_PATIENCE:.0f} times {deadline_seconds} s")


def found_in_time(results: Callable[[], bool], deadline_seconds: float = 30.0) -> None:
    """Return once `results` are there. Where they are not in time, something may be lost: that is not tried again."""
    assert _came(results, deadline_seconds, _LOOK_SECONDS), (
        f"not there within {_PATIENCE:.0f} times {deadline_seconds} s"
    )


def _came(predicate: Callable[[], bool], deadline_seconds: float, look_seconds: float) -> bool:
    deadline = time.monotonic() + deadline_seconds * _PATIENCE
    never = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            return False
        never.wait(look_seconds)
    return True


def stays(predicate: Callable[[], bool], seconds: float, what: str = "the condition") -> None:
    """Return after `seconds` in which `predicate` always held; AssertionError as soon as it does not."""
    end = time.monotonic() + seconds
    never = threading.Event()
    while time.monotonic() < end:
        assert predicate(), f"{what} ended {end - time.monotonic():.1f} s too soon"
        never.wait(_STAY_SECONDS)
