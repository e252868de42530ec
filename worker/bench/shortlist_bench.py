"""`worker bench shortlist`: what a shortlist saves and costs in the whole worker, on a real broker.

`worker.bench.shortlist` tells the same of the path of `worker classify`, without one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from worker.bench.arena import Arena, Route, Run, open_arena
from worker.bench.engine_bench import Say
from worker.bench.figures import alternating, median, median_ratio, report_of
from worker.bench.machine import describe_machine
from worker.bench.macro_f1 import macro_f1
from worker.bench.shortlist import Options, draw, schema_document
from worker.bench.subject import Binding, Subject, running_worker
from worker.bench.workloads import Recipe, workload
from worker.engines.load import EngineChoice
from worker.errors import ConfigError
from worker.kafka.embedded_jars import KAFKA_VERSION

ALL: Final = "all_labels"
FEW: Final = "shortlist"
_WARM_UP_TEXTS: Final = 8


@dataclass(frozen=True, slots=True)
class ShortlistBench:
    """What to measure."""

    choice: EngineChoice
    labels: int = 150
    top_k: int = 25
    texts: int = 200
    rounds: int = 5
    data: Path | None = None
    """A folder of test sets; None: made texts, of which nobody knows the right label."""
    set_name: str = "clinc150"

    def quickly(self) -> "ShortlistBench":
        """The same in under two minutes."""
        return replace(self, texts=min(self.texts, 60), rounds=min(self.rounds, 2))


@dataclass(frozen=True, slots=True)
class Material:
    """What is classified, and by which labels."""

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    truth: tuple[str, ...] | None
    """The right label of each text, where it is known."""

    @classmethod
    def of(cls, bench: ShortlistBench) -> "Material":
        """That of a test set, or made.

        Raises:
            ConfigError: the set cannot be read.
        """
        if bench.data is None:
            made = workload(Recipe("short", bench.texts, bench.labels))
            return cls("made", made.texts, made.labels, None)
        options = Options(bench.data, bench.set_name, bench.labels, (bench.top_k,), bench.texts)
        labels, rows = draw(options)
        texts, truth = tuple(row.text for row in rows), tuple(row.label for row in rows)
        return cls(bench.set_name, texts, tuple(labels), truth)


Measured = dict[str, list[tuple[Run, float]]]
"""By way: each run, and how many pairs were scored in it."""


def run_shortlist_bench(bench: ShortlistBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for minutes.

    Raises:
        ConfigError: the test set cannot be read, or has no more labels than the shortlist.
        WorkerError: the broker or the worker cannot be used.
    """
    material = Material.of(bench)
    if bench.top_k >= len(material.labels):
        raise ConfigError(f"--top-k: expected less than the {len(material.labels)} labels of {material.name}")
    machine = describe_machine()
    routes = {ALL: Route((ALL,)), FEW: Route((FEW,))}
    bindings = [
        Binding(name, material.labels, schema_document(material.name, material.labels, top_k))
        for name, top_k in ((ALL, None), (FEW, bench.top_k))
    ]
    with open_arena(say) as arena:
        arena.add(*routes.values())
        say("starting the worker")
        # Nothing is kept of a pair: a label that both ways score costs both of them, in every round.
        with running_worker(arena, bindings, bench.choice, batching={"cache_bytes": 0}) as subject:
            found = _measured(bench, material, (arena, routes, subject), say)
    return report_of(
        {
            "bench": "shortlist",
            "machine": machine,
            "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
            "choice": asdict(bench.choice),
            "set": material.name,
            "texts": len(material.texts),
            "labels": len(material.labels),
            "top_k": bench.top_k,
            "rounds": bench.rounds,
            **comparison(found, material.truth),
        }
    )


def comparison(found: Mapping[str, Sequence[tuple[Run, float]]], truth: Sequence[str] | None) -> dict[str, object]:
    """The shortlist against all labels, over all rounds; F1 only where the right labels are known."""
    rates = {name: [run.messages_per_second for run, _ in runs] for name, runs in found.items()}
    decided = {name: [run.labels[n] for run, _ in runs for n in range(run.messages)] for name, runs in found.items()}
    same = [a == b for a, b in zip(decided[ALL], decided[FEW], strict=True)]
    report: dict[str, object] = {
        "median_ratio": median_ratio(rates[FEW], rates[ALL]),
        "same_top_label": sum(same) / len(same),
        **{f"messages_per_second_{name}": median(each) for name, each in rates.items()},
        **{f"pairs_per_message_{name}": median([p / run.messages for run, p in runs]) for name, runs in found.items()},
        **{f"runs_messages_per_second_{name}": each for name, each in rates.items()},
    }
    if truth is not None:
        all_truth = [*truth] * len(found[ALL])
        report |= {f"macro_f1_{name}": macro_f1(all_truth, each) for name, each in decided.items()}
    return report


def _measured(
    bench: ShortlistBench, material: Material, place: tuple[Arena, Mapping[str, Route], Subject], say: Say
) -> Measured:
    arena, routes, subject = place
    delivered = 0
    for route in routes.values():
        delivered += arena.saturate(route, material.texts[:_WARM_UP_TEXTS], subject.check).messages
    before = _pairs_scored(subject, delivered, arena)
    found: Measured = {name: [] for name in routes}
    for number, name in alternating(tuple(routes), bench.rounds):
        say(f"round {number + 1} of {bench.rounds}: {name}")
        run = arena.saturate(routes[name], material.texts, subject.check)
        delivered += run.messages
        pairs = _pairs_scored(subject, delivered, arena)
        found[name].append((run, pairs - before))
        before = pairs
    return found


def _pairs_scored(subject: Subject, delivered: int, arena: Arena) -> float:
    return subject.metrics_after(delivered, arena).get("worker_pairs_scored_total", 0.0)
