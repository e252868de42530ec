"""Waiting for what another thread or process does, with a deadline and never with a blind sleep."""

import threading
import time
from collections.abc import Callable

_LOOK_SECONDS = 0.02
_STAY_SECONDS = 0.25


def wait_until(
    predicate: Callable[[], bool],
    deadline_seconds: float = 30.0,
    what: str = "the condition",
    look_seconds: float = _LOOK_SECONDS,
) -> None:
    """Return once `predicate` holds, looked at every `look_seconds`; AssertionError after `deadline_seconds`."""
    deadline = time.monotonic() + deadline_seconds
    never = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not hold within {deadline_seconds} s")
        never.wait(look_seconds)


def stays(predicate: Callable[[], bool], seconds: float, what: str = "the condition") -> None:
    """Return after `seconds` in which `predicate` always held; AssertionError as soon as it does not."""
    end = time.monotonic() + seconds
    never = threading.Event()
    while time.monotonic() < end:
        assert predicate(), f"{what} ended {end - time.monotonic():.1f} s too soon"
        never.wait(_STAY_SECONDS)
