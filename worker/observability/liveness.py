"""Says in the log which of our own threads is stuck, where it stands, and how old the work of each stage is."""

import sys
from collections.abc import Callable
from types import FrameType

import structlog

from worker.observability.health import Heartbeats, as_values

LOOK_SECONDS = 5.0
"""How soon after its limit a silent thread is noticed at the latest."""
MOST_FRAMES = 12

log = structlog.get_logger(__name__)


class LivenessWatch:
    """Looks at the heartbeats as `/livez` does, so that the log has the story also where nobody asks the port."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        """All threads are taken to be alive before the first look."""
        self._heartbeats = heartbeats
        self._overdue: frozenset[str] = frozenset()

    def run(self, wait_for_stop: Callable[[float], bool]) -> None:
        """Look until `wait_for_stop(seconds)` says so."""
        while not wait_for_stop(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """Log each thread that has become overdue, and each that is heard of again."""
        ages = self._heartbeats.ages()
        overdue = frozenset(name for name, heartbeat in ages.items() if heartbeat.is_overdue)
        for name in sorted(overdue - self._overdue):
            log.error(
                "thread.overdue",
                thread=name,
                age_seconds=round(ages[name].age_seconds, 3),
                limit_seconds=ages[name].limit_seconds,
                threads={each: round(heartbeat.age_seconds, 3) for each, heartbeat in sorted(ages.items())},
                stages=as_values(self._heartbeats.stages()),
                stack=stack_of(self._heartbeats.thread_id(name)),
            )
        for name in sorted(self._overdue - overdue):
            log.warning("thread.recovered", thread=name)
        self._overdue = overdue


def stack_of(thread_id: int | None) -> list[str]:
    """Where a thread stands, innermost first, as `module:function:line`: names of code only, never a value."""
    frame: FrameType | None = sys._current_frames().get(thread_id or 0)  # noqa: SLF001  the one way to ask
    stack: list[str] = []
    while frame is not None and len(stack) < MOST_FRAMES:
        module = frame.f_globals.get("__name__", "?")
        stack.append(f"{module}:{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return stack
