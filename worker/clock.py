"""Time as a value that is passed in, so that no test waits for it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where a component reads the time."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back: for durations and deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch: for time stamps that people read."""
        ...


class SystemClock:
    """The operating system's clocks."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()


class ManualClock:
    """A clock that moves only when told to."""

    def __init__(self, start_seconds: float = 1_000.0) -> None:
        """Start at `start_seconds` on both clocks."""
        self._now_seconds = start_seconds

    def monotonic(self) -> float:
        """Seconds since the Unix epoch, as last advanced."""
        return self._now_seconds

    def wall(self) -> float:
        """Seconds since the Unix epoch, as last advanced."""
        return self._now_seconds

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now_seconds += seconds
