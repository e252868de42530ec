"""How fast a worker about is: what the length of a run, or the rate of a load, is made of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from worker.bench.arena import Arena, Check, Route
from worker.bench.subject import Subject
from worker.bench.workloads import Recipe, Workload, marked, workload

LEAST_MESSAGES: Final = 200
"""Of a first look, and of a run."""
_MARK: Final = 600
"""Above the number of any run, so that no run has the texts of a first look."""


def first_look(arena: Arena, route: Route, recipe: Recipe, check: Check) -> float:
    """Messages a second at saturation, quickly; the first such messages of a worker are its slowest. Blocks."""
    made = workload(replace(recipe, texts=LEAST_MESSAGES))
    return arena.saturate(route, marked(made.texts, _MARK), check).messages_per_second


def lasting(recipe: Recipe, rate: float, seconds: float) -> Workload:
    """The workload that takes about `seconds` at `rate` messages a second."""
    return workload(replace(recipe, texts=max(LEAST_MESSAGES, int(rate * seconds))))


def all_run(subjects: Sequence[Subject]) -> Check:
    """Raises where one of them is not there any more."""

    def check() -> None:
        for subject in subjects:
            subject.check()

    return check
