"""`worker bench label-changes`: what it costs a fleet that its labels change each second."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Final

from worker.bench.arena import Arena, Route, Run, open_arena
from worker.bench.engine_bench import Say
from worker.bench.figures import alternating, median, median_ratio, report_of
from worker.bench.first_look import all_run, first_look, lasting
from worker.bench.machine import describe_machine
from worker.bench.pipeline_bench import describe_workload
from worker.bench.subject import Subject, routed, running_fleet
from worker.bench.tokenised import schema_document
from worker.bench.workloads import Recipe, Workload, label_names, marked
from worker.engines.load import EngineChoice
from worker.kafka.embedded_jars import KAFKA_VERSION
from worker.kafka.plain import EventProducer
from worker.labels.published import Pointer, pointer_bytes
from worker.labels.schema import canonical_json, digest_of
from worker.types import JsonValue

BAD_EVERY: Final = 7
"""Every so many versions one is refused, each time for another reason."""
_CHANGE_SECONDS: Final = 1.0
_LABEL_TOPIC: Final = "label-schemas"


@dataclass(frozen=True, slots=True)
class ChangesBench:
    """What to measure."""

    choice: EngineChoice
    workers: int = 3
    labels: int = 8
    seconds: float = 20.0
    """About how long a run takes."""
    rounds: int = 7

    def quickly(self) -> "ChangesBench":
        """The same in under two minutes."""
        return replace(self, seconds=min(self.seconds, 8.0), rounds=min(self.rounds, 3))


class LabelWriter:
    """Writes version after version of one label schema into a label topic."""

    def __init__(self, producer: EventProducer, topic: str, name: str, labels: Sequence[str]) -> None:
        self._producer = producer
        self._topic = topic
        self._name = name
        self._labels = labels
        self.good: list[int] = []
        """The versions that can hold."""
        self.bad: list[int] = []
        """Those that no worker may take."""

    def write(self) -> None:
        """Put the next version in place: as many labels, the first of them renamed; or a bad one where it is due."""
        version = len(self.good) + len(self.bad) + 1
        labels = (f"{self._labels[0]} {version}", *self._labels[1:])
        document = schema_document(self._name, labels, version)
        value = canonical_json(document)
        if version % BAD_EVERY == 0:
            value = _spoilt(document, len(self.bad))
        (self.bad if version % BAD_EVERY == 0 else self.good).append(version)
        self._producer.send(self._topic, f"{self._name}@{version}".encode(), value)
        self._producer.send(self._topic, self._name.encode(), pointer_bytes(Pointer(version, digest_of(value))))
        self._producer.flush()


def run_changes_bench(bench: ChangesBench, say: Say) -> dict[str, object]:
    """Measure everything that `bench` names; the report is one JSON object. Blocks for minutes.

    Raises:
        WorkerError: the model, the broker or a worker cannot be used.
    """
    with open_arena(say) as arena:
        recipe = Recipe(labels=bench.labels)
        labels = label_names(recipe.labels)
        route, bindings = routed("events", labels)
        arena.add(route)
        arena.create(_LABEL_TOPIC, 1)
        writer = LabelWriter(EventProducer(arena.bootstrap_servers), _LABEL_TOPIC, bindings[0].topic, labels)
        writer.write()
        say(f"starting {bench.workers} workers")
        with running_fleet(arena, bindings, bench.choice, _LABEL_TOPIC, bench.workers) as fleet:
            made = lasting(recipe, first_look(arena, route, recipe, all_run(fleet)), bench.seconds)
            found = _measured(bench, made, (arena, route, fleet), writer, say)
    return report_of({"machine": describe_machine(), **found})


def _measured(
    bench: ChangesBench, made: Workload, place: tuple[Arena, Route, list[Subject]], writer: LabelWriter, say: Say
) -> dict[str, object]:
    arena, route, fleet = place
    found: dict[str, list[Run]] = {"without": [], "with": []}
    for number, name in alternating(tuple(found), bench.rounds):
        say(f"round {number + 1} of {bench.rounds}: {name} label changes")
        with _repeated(writer.write if name == "with" else None):
            texts = marked(made.texts, 2 * number + (name == "with"))
            found[name].append(arena.saturate(route, texts, all_run(fleet)))
    rates = {name: [run.messages_per_second for run in runs] for name, runs in found.items()}
    seen = {version for runs in found.values() for run in runs for version in run.label_versions}
    return {
        "bench": "label-changes",
        "broker": f"Apache Kafka {KAFKA_VERSION}, on the same machine",
        "choice": asdict(bench.choice),
        "workload": describe_workload(made),
        "workers": bench.workers,
        "rounds": bench.rounds,
        "versions_written": len(writer.good) + len(writer.bad),
        "versions_bad": len(writer.bad),
        "versions_bad_seen": len(seen & set(writer.bad)),
        "versions_seen": len(seen),
        **{f"messages_per_second_{name}": median(each) for name, each in rates.items()},
        **{f"runs_messages_per_second_{name}": each for name, each in rates.items()},
        "median_ratio": median_ratio(rates["with"], rates["without"]),
    }


def _spoilt(document: dict[str, JsonValue], turn: int) -> bytes:
    labels = document["labels"]
    kinds = (
        canonical_json(document)[:-1],
        canonical_json({**document, "label": []}),
        canonical_json({**document, "labels": [*labels, *labels] if isinstance(labels, list) else []}),
        canonical_json({**document, "requires_model": "sha256:" + "0" * 64}),
    )
    return kinds[turn % len(kinds)]


@contextmanager
def _repeated(act: Callable[[], None] | None) -> Iterator[None]:
    """Have `act` called each second while the block takes."""
    is_over = threading.Event()

    def keep_acting() -> None:
        while act is not None and not is_over.wait(_CHANGE_SECONDS):
            act()

    thread = threading.Thread(target=keep_acting, name="changes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
