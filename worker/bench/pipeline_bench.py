"""`worker bench pipeline`: the whole worker on a real broker, next to the engine by itself."""

from dataclasses import asdict, dataclass, replace
from typing import Final

from worker.bench.arena import Arena, Route, Run, open_arena, partitions_for
from worker.bench.engine_bench import Say, cost_of, seconds_of
from worker.bench.figures import alternating, median, median_ratio, percentile, report_of, seconds_in_line
from worker.bench.machine import Usage, describe_machine, watched
from worker.bench.subject import Subject, routed, running_worker
from worker.bench.tokenised import PairSet, pair_set, schema_of
from worker.bench.workloads import Recipe, Workload, marked, workload
from worker.engines.layout import filler_batch
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.kafka.embedded_jars import KAFKA_VERSION
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Batching
from worker.types import Batch

_FIRST_LOOK_TEXTS: Final = 40
_LEAST_MESSAGES: Final = 60
_MOST_PER_SECOND: Final = 1500
"""More than any worker moves: an engine that costs nothing gets no more messages than this."""
_TAIL: Final = 0.99
_WARM_UP, _AT_LOAD = 600, 500
"""Numbers from which such runs are counted, so that no two runs have the same texts."""


@dataclass(frozen=True, slots=True)
class PipelineBench:
    """What to measure."""

    choice: EngineChoice
    recipe: Recipe
    topics: int = 1
    workers: int = 1
    """Processes of the worker, under one parent."""
    seconds: float = 20.0
    """About how long a run takes."""
    rounds: int = 3
    loads: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Shares of the saturation at which the latency is measured."""
    budgets: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Of which the engine by itself gets the best."""

    def quickly(self) -> "PipelineBench":
        """The same in under two minutes."""
        return replace(self, seconds=5.0, rounds=2, loads=(0.7,), budgets=(1024, 2048))


@dataclass(frozen=True, slots=True)
class _Alone:
    """The engine by itself, on the pairs of the workload."""

    model: LoadedModel
    batches: list[Batch]
    pairs: int
    message_tokens: list[int]
    token_budget: int

    def message_seconds(self, pairs_per_second: float) -> list[float]:
        """What each message takes at that speed, told by its tokens."""
        per_token = self.pairs / pairs_per_second / sum(self.message_tokens)
        return [per_token * tokens for tokens in self.message_tokens]

    def speeds(self) -> tuple[float, float]:
        """Pairs a second, and pairs a second of CPU."""
        seconds, cpu_seconds = cost_of(self.model.engine, self.batches)
        return self.pairs / seconds, self.pairs / max(cpu_seconds, 1e-9)


@dataclass(slots=True)
class _Saturation:
    """What the runs at saturation gave."""

    runs: list[Run]
    usages: list[Usage]
    alone: list[tuple[float, float]]
    """Pairs a second, and a second of CPU, of the engine by itself, of the same rounds."""


def run_pipeline_bench(bench: PipelineBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for minutes.

    Raises:
        WorkerError: the model, the broker or the worker cannot be used.
    """
    machine = describe_machine()
    say("loading the model")
    model = load_engine(bench.choice)
    try:
        model.engine.warm_up()
        made, alone = _sized(bench, model, say)
        with open_arena(say) as arena:
            route, bindings = routed("events", made.labels, bench.topics, partitions_for((bench.workers,)))
            arena.add(route)
            say(f"{len(made.texts)} messages a run; starting the worker")
            with running_worker(arena, bindings, bench.choice, bench.workers) as subject:
                return report_of({"machine": machine, **_measured(bench, (made, alone), (arena, route, subject), say)})
    finally:
        model.engine.close()


def _measured(
    bench: PipelineBench, work: tuple[Workload, _Alone], place: tuple[Arena, Route, Subject], say: Say
) -> dict[str, object]:
    (made, alone), (arena, route, subject) = work, place
    # Nobody's first messages count.
    first = arena.saturate(route, marked(made.texts[:_FIRST_LOOK_TEXTS], _WARM_UP), subject.check)
    before = subject.metrics_after(first.messages, arena)
    found = _saturated(bench, work, place, say)
    after = subject.metrics_after(first.messages + sum(run.messages for run in found.runs), arena)
    scored = {name: value - before.get(name, 0.0) for name, value in after.items()}
    rate = median([run.messages_per_second for run in found.runs])
    costs = alone.message_seconds(median([speed for speed, _ in found.alone]))
    interval_ms = Batching().latency_target_ms / 2
    return {
        "bench": "pipeline",
        "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
        "engine": {**asdict(alone.model.engine.info.stamp), **alone.model.engine.info.details},
        "workers": bench.workers,
        "workload": {**describe_workload(made), "topics": bench.topics},
        "saturation": {
            **_throughput(made, alone, found),
            "pairs_scored_share": scored["worker_pairs_scored_total"] / (made.pairs * bench.rounds),
            "mean_batch_tokens": scored["worker_tokens_scored_total"] / max(1.0, scored["worker_batch_pairs_count"]),
            "mean_padding_ratio": scored["worker_batch_padding_ratio_sum"]
            / max(1.0, scored["worker_batch_padding_ratio_count"]),
        },
        "p99_bound_ms": 3 * (1000 * _full_batch_seconds(alone.model) + interval_ms),
        "latency": [_at_load(bench, (made, costs), place, (share, rate), say) for share in bench.loads],
    }


def describe_workload(made: Workload) -> dict[str, object]:
    """The workload for a report: no text, no label."""
    return {
        "kind": made.kind,
        "texts": len(made.texts),
        "origin": made.origin,
        "labels": len(made.labels),
        "repeated": made.repeated,
    }


def usage_of(run: Run, usage: Usage) -> dict[str, object]:
    """What a process took during a run."""
    return {
        "cpu_cores": usage.cpu_seconds / run.seconds,
        "cpu_ms_per_message": 1000 * usage.cpu_seconds / run.messages,
        "peak_rss_mib": usage.peak_rss_mib,
    }


def _sized(bench: PipelineBench, model: LoadedModel, say: Say) -> tuple[Workload, _Alone]:
    """A workload that keeps the engine busy for about the time of a run, and the engine's best way through it."""
    first = workload(replace(bench.recipe, texts=_FIRST_LOOK_TEXTS, repeated=0.0))
    say("looking for the engine's best batch")
    pairs = _pairs(model, first)
    speeds: dict[int, float] = {}
    for budget in bench.budgets:
        batches = pairs.batches(budget)
        speeds[budget] = len(first.texts) / min(seconds_of(model.engine, batches) for _ in range(2))
    best = max(speeds, key=lambda budget: speeds[budget])
    count = max(_LEAST_MESSAGES, int(min(speeds[best], _MOST_PER_SECOND) * bench.seconds))
    made = workload(replace(bench.recipe, texts=count))
    all_pairs = _pairs(model, made)
    return made, _Alone(model, all_pairs.batches(best), len(all_pairs.singles), all_pairs.tokens_of_messages(), best)


def _pairs(model: LoadedModel, made: Workload) -> PairSet:
    tokenizer = PairTokenizer(model.tokenizer_file, model.engine.info.max_pair_tokens)
    return pair_set(tokenizer, marked(made.texts, 0), schema_of("bench", made.labels))


def _saturated(
    bench: PipelineBench, work: tuple[Workload, _Alone], place: tuple[Arena, Route, Subject], say: Say
) -> _Saturation:
    (made, alone), (arena, route, subject) = work, place
    found = _Saturation([], [], [])
    for number, name in alternating(("worker", "engine"), bench.rounds):
        say(f"round {number + 1} of {bench.rounds}: the {name} at saturation")
        if name == "engine":
            found.alone.append(alone.speeds())
            continue
        with watched(subject.pid) as usage:
            found.runs.append(arena.saturate(route, marked(made.texts, number), subject.check))
        found.usages.append(usage)
    return found


def _throughput(made: Workload, alone: _Alone, found: _Saturation) -> dict[str, object]:
    labels = len(made.labels)
    pairs = [run.messages_per_second * labels for run in found.runs]
    on_clock, of_cpu = [speed for speed, _ in found.alone], [speed for _, speed in found.alone]
    messages = found.runs[0].messages
    cpu_seconds = [max(usage.cpu_seconds, 1e-9) for usage in found.usages]
    return {
        "messages_per_second": median([run.messages_per_second for run in found.runs]),
        "pairs_per_second": median(pairs),
        "engine_only_pairs_per_second": median(on_clock),
        "engine_only_pairs_per_cpu_second": median(of_cpu),
        "engine_only_token_budget": alone.token_budget,
        "share_of_engine_only": median_ratio(pairs, on_clock),
        "share_of_engine_only_by_cpu": median_ratio([messages * labels / each for each in cpu_seconds], of_cpu),
        "peak_rss_mib": max((usage.peak_rss_mib or 0.0 for usage in found.usages), default=None),
        "cpu_ms_per_message": 1000 * median(cpu_seconds) / messages,
        "runs_messages_per_second": [run.messages_per_second for run in found.runs],
        "runs_engine_only_pairs_per_second": on_clock,
    }


def _full_batch_seconds(model: LoadedModel) -> float:
    """How long the engine takes for a batch that fills its budget."""
    length = min(64, model.engine.info.max_pair_tokens)
    batch = filler_batch(max(1, model.engine.info.token_budget // length), length, 1)
    return median([seconds_of(model.engine, (batch,)) for _ in range(3)])


def _at_load(
    bench: PipelineBench,
    work: tuple[Workload, list[float]],
    place: tuple[Arena, Route, Subject],
    load: tuple[float, float],
    say: Say,
) -> dict[str, object]:
    (made, costs), (arena, route, subject), (share, saturation) = work, place, load
    say(f"latency at {share:.0%} of saturation")
    rate = share * saturation
    count = min(len(made.texts), max(_LEAST_MESSAGES // 2, int(rate * bench.seconds)))
    with watched(subject.pid) as usage:
        texts = marked(made.texts[:count], _AT_LOAD + round(100 * share))
        run = arena.pace(route, texts, rate, subject.check)
    return {
        "load": share,
        "messages_per_second": rate,
        "p50_ms": run.latency_ms(0.5),
        "p90_ms": run.latency_ms(0.9),
        "p99_ms": run.latency_ms(_TAIL),
        "max_ms": max(run.latencies_ms),
        "queue_p99_ms": 1000 * percentile(seconds_in_line(costs[:count], rate), _TAIL),
        **usage_of(run, usage),
    }
