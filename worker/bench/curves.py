"""What a message costs as labels, lengths, topics and repeated texts change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from worker.bench.arena import Arena, Route
from worker.bench.engine_bench import Say
from worker.bench.peers import GLICLASS, Peer, running_peer
from worker.bench.subject import Binding, Subject, routed
from worker.bench.workloads import Kind, Recipe, label_names, marked, workload
from worker.errors import WorkerError

_GLICLASS: Final = "gliclass"
_LEAST_TEXTS: Final = 8
_WARM_UP: Final = 600


@dataclass(frozen=True, slots=True)
class Point:
    """One place on a curve."""

    curve: str
    value: str
    recipe: Recipe
    topics: int = 1

    @property
    def name(self) -> str:
        """Unique, and fit for the name of a topic."""
        return f"{self.curve}-{self.value}"


@dataclass(frozen=True, slots=True)
class Curves:
    """What to measure; every point is one run of about as many pairs."""

    labels: tuple[int, ...] = (2, 8, 30, 150)
    kinds: tuple[Kind, ...] = ("short", "mixed", "long")
    topics: tuple[int, ...] = (1, 8)
    repeated: tuple[float, ...] = (0.0, 0.3)
    pairs: int = 2400
    with_gliclass: bool = True
    source: Path | None = None

    def quickly(self) -> "Curves":
        """The label curve alone, and short."""
        return replace(self, labels=(2, 30), kinds=(), topics=(), repeated=(), pairs=240)

    def points(self) -> list[Point]:
        """All of them."""
        base = Recipe(source=self.source)
        return [
            *(Point("labels", str(count), replace(base, labels=count)) for count in self.labels),
            *(Point("message_size", kind, replace(base, kind=kind)) for kind in self.kinds),
            *(Point("topics", str(count), base, count) for count in self.topics),
            *(Point("repeated", str(share), replace(base, repeated=share)) for share in self.repeated),
        ]

    def bindings(self) -> dict[str, tuple[Route, list[Binding]]]:
        """Topics and label sets of every point, by its name."""
        return {
            point.name: routed(point.name, label_names(point.recipe.labels), point.topics) for point in self.points()
        }


def measure_curves(
    curves: Curves,
    routes: Mapping[str, tuple[Route, list[Binding]]],
    place: tuple[Arena, Subject, Path, Mapping[str, object]],
    say: Say,
) -> dict[str, object]:
    """Each curve by its name: a list of points with what each contestant did there."""
    arena, subject, home, settings = place
    found: dict[str, list[dict[str, object]]] = {}
    for number, point in enumerate(curves.points()):
        say(f"curve {point.curve}: {point.value}")
        labels = point.recipe.labels
        made = workload(replace(point.recipe, texts=max(_LEAST_TEXTS, curves.pairs // labels)))
        route, _ = routes[point.name]
        arena.saturate(route, marked(made.texts[:2], _WARM_UP), subject.check)
        run = arena.saturate(route, marked(made.texts, number), subject.check)
        row: dict[str, object] = {
            point.curve: point.value,
            "worker": {
                "messages_per_second": run.messages_per_second,
                "pairs_per_second": run.messages_per_second * labels,
            },
        }
        found.setdefault(point.curve, []).append(row)
    if curves.with_gliclass and curves.labels:
        found["labels"] = _with_gliclass(curves, found["labels"], (home, settings), say)
    return dict(found)


def _with_gliclass(
    curves: Curves, rows: list[dict[str, object]], place: tuple[Path, Mapping[str, object]], say: Say
) -> list[dict[str, object]]:
    """The label curve with GLiClass beside the worker, where it can be had."""
    home, settings = place
    try:
        with running_peer(_GLICLASS, GLICLASS, settings, home) as peer:
            return [
                {**row, _GLICLASS: _gliclass(curves, peer, count, say)}
                for row, count in zip(rows, curves.labels, strict=True)
            ]
    except WorkerError as error:
        return [{**row, _GLICLASS: {"left_out": str(error)}} for row in rows]


def _gliclass(curves: Curves, peer: Peer, labels: int, say: Say) -> dict[str, object]:
    say(f"GLiClass with {labels} labels")
    made = workload(Recipe(texts=max(_LEAST_TEXTS, curves.pairs // labels // 4), labels=labels, source=curves.source))
    peer.tell({"texts": made.texts, "labels": made.labels})
    seconds = float(peer.expect("done")["seconds"])
    return {"messages_per_second": len(made.texts) / seconds, "note": "random weights, float32, without Kafka"}
