"""`worker bench scale-out`: what several processes of a worker on one machine do that one does not."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Final

from worker.bench.arena import Arena, Route, Run, open_arena, partitions_for
from worker.bench.engine_bench import Say
from worker.bench.figures import alternating, median, median_ratio, report_of
from worker.bench.first_look import all_run, first_look, lasting
from worker.bench.machine import Usage, describe_machine, watched
from worker.bench.pipeline_bench import describe_workload, usage_of
from worker.bench.subject import Subject, routed, running_worker
from worker.bench.workloads import Recipe, label_names, marked
from worker.engines.load import EngineChoice
from worker.errors import ConfigError
from worker.kafka.embedded_jars import KAFKA_VERSION

LEAST_COUNTS: Final = 2

Measured = tuple[Run, Usage]


@dataclass(frozen=True, slots=True)
class ScaleOutBench:
    """What to measure."""

    choice: EngineChoice
    recipe: Recipe
    workers: tuple[int, ...] = (1, 2)
    """Numbers of processes that are compared; the first is what the others are held against."""
    seconds: float = 20.0
    """About how long a run takes."""
    rounds: int = 5

    def quickly(self) -> "ScaleOutBench":
        """The same in under two minutes."""
        return replace(self, seconds=min(self.seconds, 8.0), rounds=min(self.rounds, 3))


def run_scale_out_bench(bench: ScaleOutBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for minutes.

    All workers are started first, each with a group and topics of its own, and take turns with the same texts: the one
    whose turn it is not waits for records and costs next to nothing. To start each of them anew for its turn would
    measure cold engines, and put minutes between the two runs of which a ratio is made.

    Raises:
        ConfigError: there are no two different numbers of processes to compare.
        WorkerError: the broker or a worker cannot be used.
    """
    if len(set(bench.workers)) != len(bench.workers) or len(bench.workers) < LEAST_COUNTS:
        raise ConfigError("--workers: expected two or more different numbers of processes, each its own --workers N")
    machine = describe_machine()
    with open_arena(say) as arena, ExitStack() as stack:
        labels, partitions = label_names(bench.recipe.labels), partitions_for(bench.workers)
        contestants: dict[int, tuple[Route, Subject]] = {}
        for count in bench.workers:
            say(f"starting a worker of {count} processes")
            route, bindings = routed(f"of-{count}", labels, partitions=partitions)
            arena.add(route)
            contestants[count] = route, stack.enter_context(running_worker(arena, bindings, bench.choice, count))
        return report_of({"machine": machine, **_measured(bench, arena, contestants, say)})


def rows_of(found: Mapping[int, Sequence[Measured]]) -> list[dict[str, object]]:
    """A row for each number of processes; its ratio is to the first one, of the same rounds."""
    rates = {count: [run.messages_per_second for run, _ in runs] for count, runs in found.items()}
    first = next(iter(rates.values()))
    return [
        {
            "processes": count,
            "messages_per_second": median(rates[count]),
            "median_ratio": median_ratio(rates[count], first),
            "cpu_cores": median([usage.cpu_seconds / run.seconds for run, usage in runs]),
            "cpu_ms_per_message": median([1000 * usage.cpu_seconds / run.messages for run, usage in runs]),
            "peak_rss_mib": max((usage.peak_rss_mib or 0.0 for _, usage in runs), default=None),
        }
        for count, runs in found.items()
    ]


def _measured(
    bench: ScaleOutBench, arena: Arena, contestants: Mapping[int, tuple[Route, Subject]], say: Say
) -> dict[str, object]:
    check = all_run([subject for _, subject in contestants.values()])
    say("a first look at each")
    rate = max(first_look(arena, route, bench.recipe, check) for route, _ in contestants.values())
    made = lasting(bench.recipe, rate, bench.seconds)
    found: dict[int, list[Measured]] = {count: [] for count in contestants}
    for number, count in alternating(bench.workers, bench.rounds):
        say(f"round {number + 1} of {bench.rounds}: {count} processes")
        route, subject = contestants[count]
        with watched(subject.pid) as usage:
            run = arena.saturate(route, marked(made.texts, number), check)
        found[count].append((run, usage))
    return {
        "bench": "scale-out",
        "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
        "choice": asdict(bench.choice),
        "workload": describe_workload(made),
        "workers": bench.workers,
        "partitions": partitions_for(bench.workers),
        "rounds": bench.rounds,
        "processes": rows_of(found),
        "runs": [
            {
                "processes": count,
                "round": number,
                "messages_per_second": run.messages_per_second,
                **usage_of(run, usage),
            }
            for count, runs in found.items()
            for number, (run, usage) in enumerate(runs, start=1)
        ],
    }
