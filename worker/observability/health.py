"""Whether the worker lives, whether it is ready, and the port where that can be asked."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from worker.clock import Clock
from worker.types import JsonValue


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How long ago a thread was last heard of, and how long it may be silent."""

    age_seconds: float
    limit_seconds: float

    @property
    def is_overdue(self) -> bool:
        """Whether it has been silent for too long."""
        return self.age_seconds > self.limit_seconds


@dataclass(frozen=True, slots=True)
class StageAge:
    """How long a stage has been at its present piece of work, or how long ago it ended its last one."""

    is_busy: bool
    seconds: float


class Heartbeats:
    """When each of our own threads was last heard of. Any thread may call it."""

    def __init__(self, clock: Clock) -> None:
        """Ages are read from `clock`."""
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._limits: dict[str, float] = {}
        self._thread_ids: dict[str, int] = {}
        self._stages: dict[str, tuple[bool, float]] = {}

    def register(self, name: str, limit_seconds: float) -> None:
        """Expect a beat of `name` at least every `limit_seconds`, counted from now."""
        with self._lock:
            self._limits[name] = limit_seconds
            self._last[name] = self._clock.monotonic()

    def release(self, name: str) -> None:
        """Expect nothing more of `name`: it has ended in order."""
        with self._lock:
            self._limits.pop(name, None)
            self._last.pop(name, None)
            self._thread_ids.pop(name, None)

    def beat(self, name: str) -> None:
        """Say that `name` is alive; without effect once it is released."""
        with self._lock:
            if name in self._limits:
                self._last[name] = self._clock.monotonic()
                self._thread_ids[name] = threading.get_ident()

    def thread_id(self, name: str) -> int | None:
        """The thread that beat for `name` last; None before its first beat."""
        with self._lock:
            return self._thread_ids.get(name)

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Note that `stage` is at work until the end of the block."""
        self._note_stage(stage, is_busy=True)
        try:
            yield
        finally:
            self._note_stage(stage, is_busy=False)

    def stages(self) -> dict[str, StageAge]:
        """Every stage that has been at work, and since when it is, or is no longer."""
        with self._lock:
            now = self._clock.monotonic()
            return {stage: StageAge(is_busy, now - since) for stage, (is_busy, since) in self._stages.items()}

    def ages(self) -> dict[str, Heartbeat]:
        """Every expected thread with its age and limit."""
        with self._lock:
            now = self._clock.monotonic()
            return {name: Heartbeat(now - last, self._limits[name]) for name, last in self._last.items()}

    def overdue(self) -> tuple[str, ...]:
        """The threads that have been silent for too long."""
        return tuple(name for name, heartbeat in self.ages().items() if heartbeat.is_overdue)

    def _note_stage(self, stage: str, *, is_busy: bool) -> None:
        with self._lock:
            self._stages[stage] = (is_busy, self._clock.monotonic())


class Readiness:
    """Why the worker is not ready, each reason under the name of who gave it. Any thread may call it."""

    def __init__(self) -> None:
        """Ready, until somebody blocks it."""
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._remarks: dict[str, str] = {}

    def block(self, name: str, reason: str) -> None:
        """Not ready, because of `reason`, until `name` is cleared; a later reason of `name` replaces it."""
        with self._lock:
            self._reasons[name] = reason

    def clear(self, name: str) -> None:
        """Take back the reason of `name`, if there is one."""
        with self._lock:
            self._reasons.pop(name, None)

    def remark(self, name: str, text: str | None) -> None:
        """What is worth knowing of a worker that is ready all the same; None takes it back."""
        with self._lock:
            self._remarks.pop(name, None)
            if text is not None:
                self._remarks[name] = text

    def reasons(self) -> tuple[str, ...]:
        """Every reason as `name: reason`, by name; empty means ready."""
        return self._told(self._reasons)

    def remarks(self) -> tuple[str, ...]:
        """Every remark as `name: text`, by name."""
        return self._told(self._remarks)

    def _told(self, texts: Mapping[str, str]) -> tuple[str, ...]:
        with self._lock:
            return tuple(f"{name}: {text}" for name, text in sorted(texts.items()))


@dataclass(frozen=True, slots=True)
class Probes:
    """Where the answers come from; each is called on a thread of the server and must not block."""

    ages: Callable[[], Mapping[str, Heartbeat]]
    reasons: Callable[[], Sequence[str]]
    metrics: Callable[[], bytes]
    schemas: Callable[[], JsonValue]
    stages: Callable[[], Mapping[str, StageAge]] = dict
    remarks: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True, slots=True)
class Answer:
    """One response: a status, what its body is, and the body."""

    status: int
    body: bytes
    content_type: str = "application/json"


OK = 200
NOT_FOUND = 404
UNAVAILABLE = 503


def answer(path: str, probes: Probes, metrics_content_type: str) -> Answer:
    """What `GET path` says."""
    match path:
        case "/livez":
            return _live(probes.ages(), probes.stages())
        case "/readyz":
            reasons = unready(probes)
            told: dict[str, JsonValue] = {"ready": not reasons, "reasons": [*reasons], "remarks": [*probes.remarks()]}
            return as_json(UNAVAILABLE if reasons else OK, told)
        case "/metrics":
            return Answer(OK, probes.metrics(), metrics_content_type)
        case "/schemas":
            return as_json(OK, probes.schemas())
        case _:
            return as_json(NOT_FOUND, {"error": "not_found", "paths": ["/livez", "/readyz", "/metrics", "/schemas"]})


def unready(probes: Probes) -> list[str]:
    """Why the worker is not ready; empty means ready."""
    # Whoever tells why nothing moves may be who is stuck.
    return [*probes.reasons(), *_silent(probes.ages())]


def as_json(status: int, value: JsonValue) -> Answer:
    """`value` as a JSON response."""
    return Answer(status, json.dumps(value, ensure_ascii=False).encode())


def as_values(stages: Mapping[str, StageAge]) -> dict[str, JsonValue]:
    """The ages of stages as they stand in `/livez` and in the log."""
    return {name: {"busy": age.is_busy, "seconds": round(age.seconds, 3)} for name, age in sorted(stages.items())}


def _silent(ages: Mapping[str, Heartbeat]) -> list[str]:
    return [
        f"{name}: the thread has not been heard of for {heartbeat.age_seconds:.0f} s"
        for name, heartbeat in sorted(ages.items())
        if heartbeat.is_overdue
    ]


def _live(ages: Mapping[str, Heartbeat], stages: Mapping[str, StageAge]) -> Answer:
    alive = not any(heartbeat.is_overdue for heartbeat in ages.values())
    threads: dict[str, JsonValue] = {
        name: {"age_seconds": round(heartbeat.age_seconds, 3), "limit_seconds": heartbeat.limit_seconds}
        for name, heartbeat in ages.items()
    }
    return as_json(OK if alive else UNAVAILABLE, {"alive": alive, "threads": threads, "stages": as_values(stages)})
