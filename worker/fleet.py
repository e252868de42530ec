"""Several worker processes on one machine as one: who gets what, when one is restarted, what all say. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from worker.errors import ConfigError
from worker.observability.metrics import READY, READY_TEXT
from worker.types import JsonValue

AUTO: Final = "auto"
MOST_PER_CORE: Final = 4
"""Processes that may be asked for, for each core: more would only be in each other's way."""
CORES_PER_PROCESS: Final = 4
"""What `auto` counts for a process without a GPU: one interpreter keeps about so many cores of an engine busy."""
MOST_DEATHS: Final = 5
DEATHS_SECONDS: Final = 60.0
FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one process of the fleet gets."""

    number: int
    """From 1."""
    threads: int
    """Of the engine."""
    gpu: str | None = None
    """The one that it sees, as CUDA names it."""

    @property
    def name(self) -> str:
        """For people, logs and metrics."""
        return f"worker-{self.number}"

    def instance(self, base: str) -> str:
        """Its instance id, where the fleet's is `base`."""
        return f"{base}-{self.number}"


def shares(wanted: str, cores: int, gpus: Sequence[str]) -> list[Share]:
    """A share for each of `wanted` processes; `auto` is one per GPU, or one per four cores.

    Raises:
        ConfigError: `wanted` is neither a number above 0 nor `auto`, or more than this machine can bear.
    """
    if wanted == AUTO:
        count = len(gpus) or max(1, cores // CORES_PER_PROCESS)
    elif wanted.isdecimal() and int(wanted) > 0:
        count = int(wanted)
        most = MOST_PER_CORE * max(cores, len(gpus))
        if count > most:
            raise ConfigError(f"--workers: expected at most {most} on this machine, {MOST_PER_CORE} for each core")
    else:
        raise ConfigError(f"--workers: expected a number above 0, or {AUTO}")
    threads = max(1, cores // count)
    return [Share(number + 1, threads, gpus[number % len(gpus)] if gpus else None) for number in range(count)]


@dataclass(slots=True)
class Restarts:
    """When processes that died come back, and when that is given up."""

    _deaths: deque[float] = field(default_factory=deque)
    _in_a_row: dict[int, int] = field(default_factory=dict)

    def died(self, number: int, now_seconds: float, lived_seconds: float) -> float:
        """How long to wait before the process is started again; longer each time, unless it had lived for a minute."""
        self._deaths.append(now_seconds)
        row = 0 if lived_seconds >= DEATHS_SECONDS else self._in_a_row.get(number, 0)
        self._in_a_row[number] = row + 1
        return float(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2**row))

    def is_hopeless(self, now_seconds: float) -> bool:
        """Whether so many died within a minute that the reason is not theirs."""
        while self._deaths and now_seconds - self._deaths[0] > DEATHS_SECONDS:
            self._deaths.popleft()
        return len(self._deaths) >= MOST_DEATHS


@dataclass(frozen=True, slots=True)
class Report:
    """What a process said when it was last asked."""

    reasons: tuple[str, ...]
    """Why it is not ready; empty means ready."""
    metrics: str = ""
    schemas: JsonValue = None


STARTING: Final = Report(("it has not answered yet",))


def reasons_of(reports: Mapping[str, Report]) -> tuple[str, ...]:
    """Why the fleet is not ready: every reason of every process. Empty where all are ready."""
    return tuple(f"{name}: {reason}" for name, report in reports.items() for reason in report.reasons)


def schemas_of(reports: Mapping[str, Report]) -> JsonValue:
    """The label schemas in force as the first process that knows says; all of them follow the same source."""
    return next((report.schemas for report in reports.values() if report.schemas is not None), {})


def merged_metrics(reports: Mapping[str, Report], restarts: int) -> bytes:
    """The metrics of all processes on one page, each sample with the label `process`.

    Sums are left to who reads them: a counter that starts again would make a sum of counters fall.
    Of a process that has no metrics, because it starts or died, there is whether it is ready.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Pages(reports, restarts))
    return generate_latest(registry)


class _Pages(Collector):
    """The pages as one collector."""

    def __init__(self, reports: Mapping[str, Report], restarts: int) -> None:
        self._reports = reports
        self._restarts = restarts

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known only when the pages are read."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every metric once, with the samples of all processes."""
        merged: dict[str, Metric] = {}
        for process, report in self._reports.items():
            for family in text_string_to_metric_families(report.metrics):
                whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.add_sample(sample.name, {**sample.labels, "process": process}, sample.value)
            if not report.metrics:
                ready = merged.setdefault(READY, Metric(READY, READY_TEXT, "gauge"))
                ready.add_sample(READY, {"process": process}, float(not report.reasons))
        own = Metric(
            "worker_process_restarts",
            "Processes of this machine that died and were started again. Rising: the log says how they ended.",
            "counter",
        )
        own.add_sample("worker_process_restarts_total", {}, self._restarts)
        return [*merged.values(), own]
