"""`worker bench compare`: this worker next to what one would otherwise run, on the same messages."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from worker.bench.arena import Arena, open_arena
from worker.bench.contestants import PeerContestant, Results, WorkerContestant, saturate
from worker.bench.curves import Curves, measure_curves
from worker.bench.dequantised import write_float32_copy
from worker.bench.engine_bench import Say
from worker.bench.figures import alternating, median, median_ratio, report_of
from worker.bench.machine import describe_machine
from worker.bench.peers import FAUST, QUIX, TRANSFORMERS_LOOP, Peer, Script, running_peer
from worker.bench.pipeline_bench import describe_workload
from worker.bench.subject import Binding, routed, running_worker
from worker.bench.tokenised import TEMPLATE
from worker.bench.workloads import Recipe, Workload, marked, workload
from worker.engines.artifact import open_folder
from worker.engines.load import EngineChoice
from worker.engines.ov_machine import usable_cores
from worker.engines.source import BUNDLED, BUNDLED_FOLDER
from worker.errors import ConfigError, WorkerError
from worker.kafka.embedded_jars import KAFKA_VERSION

WORKER: Final = "worker"
FLOAT32, BFLOAT16 = "float32", "bfloat16"
ONE_BY_ONE: Final = "transformers_float32_batch1"
BEST: Final = {FLOAT32: "transformers_float32_best", BFLOAT16: "transformers_bfloat16_best"}
_OTHERS: Final = {"quix_float32": QUIX, "faust_float32": FAUST}
_LEAST_TEXTS: Final = 24
_LATENCY_LOAD: Final = 0.5
"""Share of a contestant's own saturation at which its latency is measured."""

AnyContestant = WorkerContestant | PeerContestant


@dataclass(frozen=True, slots=True)
class CompareBench:
    """What to measure."""

    choice: EngineChoice
    recipe: Recipe
    batches: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Of which the transformers loop gets the best, for each precision."""
    tuning_texts: int = 16
    tuning_rounds: int = 2
    """How often each batch size is tried: its best run counts, so that a busy moment does not decide."""
    seconds: float = 20.0
    """About how long the transformers loop in float32 takes for a run."""
    rounds: int = 3
    latency_share: float = 1.0
    """How many of the messages the latency is measured on."""
    others: tuple[str, ...] = tuple(_OTHERS)
    curves: Curves = field(default_factory=Curves)

    def quickly(self) -> "CompareBench":
        """The same in about two minutes."""
        return replace(
            self,
            batches=(8, 32),
            tuning_texts=8,
            tuning_rounds=1,
            seconds=5.0,
            rounds=2,
            latency_share=0.5,
            others=("quix_float32",),
            curves=self.curves.quickly(),
        )


@dataclass(frozen=True, slots=True)
class _Field:
    """Where everything happens."""

    arena: Arena
    home: Path
    settings: Mapping[str, object]
    say: Say


def run_compare_bench(bench: CompareBench, say: Say) -> dict[str, object]:
    """Measure everybody; the report is one JSON object. Blocks for minutes.

    Raises:
        WorkerError: the model, the broker, the worker or the plain loop cannot be used.
    """
    machine = describe_machine()
    with tempfile.TemporaryDirectory(prefix="worker-compare-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        say("preparing the float32 model")
        weights, told = _float32_model(bench.choice.model, home)
        labels = workload(replace(bench.recipe, texts=1)).labels
        with open_arena(say) as arena:
            settings = {
                "bootstrap_servers": arena.bootstrap_servers,
                "model": str(weights),
                "max_pair_tokens": open_folder(weights).max_pair_tokens,
                "labels": labels,
                "template": TEMPLATE,
                "threads": bench.choice.threads or usable_cores(),
                "dtypes": [FLOAT32, BFLOAT16],
                "patience_seconds": 120,
            }
            found = _compared(bench, _Field(arena, home, settings, say), labels)
            return report_of(
                {
                    "bench": "compare",
                    "machine": machine,
                    "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
                    "transformers_weights": told,
                    **found,
                }
            )


def summary(results: Mapping[str, Results], labels: int) -> dict[str, object]:
    """What the report says of the contestants: `ratios` of throughput, and of the CPU that the others take."""
    ours = [run.messages_per_second for run in results[WORKER].saturated]
    ratios = {
        name: median_ratio(ours, [run.messages_per_second for run in each.saturated])
        for name, each in results.items()
        if name != WORKER
    }
    our_cpu = median(results[WORKER].cpu_seconds)
    by_cpu = {name: median(each.cpu_seconds) / max(our_cpu, 1e-9) for name, each in results.items() if name != WORKER}
    reference = next((each.saturated[0].labels for name, each in results.items() if name != WORKER), {})
    return {
        "contestants": {name: _row(each, labels, reference) for name, each in results.items()},
        "ratios": ratios,
        "ratios_by_cpu": by_cpu,
    }


def _row(results: Results, labels: int, reference: Mapping[int, str]) -> dict[str, object]:
    rate = median([run.messages_per_second for run in results.saturated])
    answers = results.saturated[0].labels
    same = [label == answers.get(number) for number, label in reference.items()]
    messages = results.saturated[0].messages
    return {
        "messages_per_second": rate,
        "pairs_per_second": rate * labels,
        "p50_ms": None if results.paced is None else results.paced.latency_ms(0.5),
        "p99_ms": None if results.paced is None else results.paced.latency_ms(0.99),
        "cpu_ms_per_message": 1000 * median(results.cpu_seconds) / messages,
        "peak_rss_mib": max(results.peak_rss_mib),
        "same_label": sum(same) / len(same) if same else None,
        "runs_messages_per_second": [run.messages_per_second for run in results.saturated],
        **results.facts,
    }


def _float32_model(model: str, home: Path) -> tuple[Path, str]:
    if model == BUNDLED:
        write_float32_copy(open_folder(BUNDLED_FOLDER), home / "float32")
        return home / "float32", "float32, dequantised from the bundled model: the same speed as the original's"
    folder = Path(model)
    if not folder.is_dir() or not open_folder(folder).safetensors_files():
        raise ConfigError("--model: compare needs a folder with model.safetensors, or `bundled`")
    return folder.absolute(), "those of --model"


def _compared(bench: CompareBench, place: _Field, labels: tuple[str, ...]) -> dict[str, object]:
    arena = place.arena
    route, bindings = routed("worker", labels)
    curves = bench.curves.bindings()
    arena.add(route, *(each for each, _ in curves.values()))
    all_bindings: list[Binding] = [*bindings, *(binding for _, added in curves.values() for binding in added)]
    with ExitStack() as stack:
        place.say("starting the worker and the contestants")
        subject = stack.enter_context(running_worker(arena, all_bindings, bench.choice))
        loop = stack.enter_context(_peer("transformers", TRANSFORMERS_LOOP, place))
        best = {dtype: _best_batch(bench, loop, dtype, place) for dtype in (FLOAT32, BFLOAT16)}
        made = _sized(bench, best[FLOAT32])
        contestants: list[AnyContestant] = [
            WorkerContestant(WORKER, arena, route, subject),
            PeerContestant(ONE_BY_ONE, arena, loop, {"dtype": FLOAT32, "batch": 1}),
            *(PeerContestant(BEST[dtype], arena, loop, {"dtype": dtype, "batch": best[dtype][0]}) for dtype in best),
        ]
        missing: dict[str, str] = {}
        for name in bench.others:
            try:
                peer = stack.enter_context(_peer(name, _OTHERS[name], place))
            except WorkerError as error:
                missing[name] = str(error)
                continue
            contestants.append(PeerContestant(name, arena, peer, {"dtype": FLOAT32, "batch": len(labels)}))
        results = _rounds(bench, contestants, made, place.say)
        measured = measure_curves(bench.curves, curves, (arena, subject, place.home, place.settings), place.say)
    return {
        "workload": describe_workload(made),
        **summary(results, len(labels)),
        "left_out": missing,
        "curves": measured,
    }


@contextmanager
def _peer(name: str, script: Script, place: _Field) -> Iterator[Peer]:
    with running_peer(name, script, place.settings, place.home) as peer:
        yield peer


def _best_batch(bench: CompareBench, loop: Peer, dtype: str, place: _Field) -> tuple[int, float]:
    """The best batch size of the plain loop in a precision, and its messages a second."""
    texts = workload(replace(bench.recipe, texts=bench.tuning_texts)).texts
    speeds = dict.fromkeys(bench.batches, 0.0)
    for number, batch in alternating(bench.batches, bench.tuning_rounds):
        place.say(f"the transformers loop in {dtype}, batch {batch}")
        name, way = f"tuning-{number}-{dtype}-{batch}", {"dtype": dtype, "batch": batch}
        run = PeerContestant(name, place.arena, loop, way).run(texts, None)
        speeds[batch] = max(speeds[batch], run.messages_per_second)
    best = max(speeds, key=lambda batch: speeds[batch])
    return best, speeds[best]


def _sized(bench: CompareBench, best: tuple[int, float]) -> Workload:
    """Everybody gets the same messages: as many as take the plain loop about the time of a run."""
    return workload(replace(bench.recipe, texts=max(_LEAST_TEXTS, int(best[1] * bench.seconds))))


def _rounds(bench: CompareBench, contestants: Sequence[AnyContestant], made: Workload, say: Say) -> dict[str, Results]:
    by_name = {each.name: each for each in contestants}
    results = {name: Results() for name in by_name}
    for number, name in alternating(list(by_name), bench.rounds):
        say(f"round {number + 1} of {bench.rounds}: {name}")
        saturate(by_name[name], marked(made.texts, number), results[name])
    texts = marked(made.texts[: max(_LEAST_TEXTS // 2, int(len(made.texts) * bench.latency_share))], bench.rounds)
    for name, each in by_name.items():
        say(f"latency of {name}")
        rate = median([run.messages_per_second for run in results[name].saturated])
        results[name].paced = each.run(texts, _LATENCY_LOAD * rate)
        results[name].facts = {"latency_load": _LATENCY_LOAD, "latency_messages": len(texts), **_facts(each)}
    return results


def _facts(contestant: AnyContestant) -> dict[str, object]:
    if isinstance(contestant, WorkerContestant):
        return {}
    return {**contestant.ways, "versions": dict(contestant.peer.versions)}
