"""How long it takes to deliver what waits."""

import math
from collections import deque

WINDOW_SECONDS = 60.0
"""The pace is that of the last minute: long enough for several transactions, short enough to follow a change."""


class DrainEstimate:
    """Seconds until all that waits now is delivered, at the pace of late. To be told every few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_seconds: float, delivered: int, waiting: int) -> float:
        """`delivered` counts records since the start, `waiting` those still to come; infinite while nothing moves."""
        self._seen.append((now_seconds, delivered))
        while len(self._seen) > 1 and self._seen[1][0] <= now_seconds - WINDOW_SECONDS:
            self._seen.popleft()
        if waiting <= 0:
            return 0.0
        started, before = self._seen[0]
        moved = delivered - before
        return math.inf if moved <= 0 else waiting * (now_seconds - started) / moved
