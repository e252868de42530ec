"""Tells a worker that waits for nothing from one that is stuck. Pure: the caller brings the time."""

STALL_SECONDS = 60.0
"""No progress for this long although there is work: something is wrong, whatever each thread says."""


class ProgressWatch:
    """Watches a number that rises with every piece of work done."""

    def __init__(self) -> None:
        self._progress = -1
        self._since_seconds = 0.0

    def stalled_seconds(self, progress: int, now_seconds: float, *, has_work: bool) -> float | None:
        """How long `progress` has stood still although there was work all the while; None for less than the limit."""
        if progress != self._progress or not has_work:
            self._progress, self._since_seconds = progress, now_seconds
            return None
        stalled = now_seconds - self._since_seconds
        return stalled if stalled >= STALL_SECONDS else None
