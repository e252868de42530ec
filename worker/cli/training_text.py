"""What the commands that train and measure print."""

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from worker.training.finetune import Progress as StepTold
    from worker.training.recipe import Recipe
    from worker.training.train import Plan, Trained


class Bar(AbstractContextManager["Bar"]):
    """Progress bars on a terminal; nothing in a pipe."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        """Take the line."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._progress.stop()

    def stage(self, name: str) -> "StepTold":
        """A bar for a stage of training."""
        task: list[TaskID] = []

        def told(step: int, steps: int, loss: float) -> None:
            if not task:
                task.append(self._progress.add_task(name, total=steps, note=""))
            self._progress.update(task[0], completed=step, note=f"loss {loss:.3f}")

        return told

    def count(self, name: str, total: int) -> "Counter":
        """A bar that counts."""
        return Counter(self._progress, self._progress.add_task(name, total=total, note=""))


class Counter:
    """One bar that is told what was done."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def add(self, done: int = 1, note: str = "") -> None:
        """So much more is done."""
        self._progress.update(self._task, advance=done, note=note)


def for_people(made: "Trained") -> str:
    """What a training came to."""
    lines = [f"model     {made.model}"]
    if made.exported is not None:
        lines.append(f"openvino  {made.exported.folder} ({made.exported.weights} weights)")
        if made.exported.gate is not None:
            gate = made.exported.gate
            lines.append(
                f"gate      {gate.pairs} pairs, {gate.label_flips} labels differ from float32, "
                f"largest logit error {gate.largest_logit_error:.3g}"
            )
    for stage in made.stages:
        learnt = stage.learnt
        lines.append(
            f"stage     {stage.name}: {learnt.pairs} pairs in {learnt.seconds:.0f} s, "
            f"loss {learnt.first_loss:.3f} to {learnt.last_loss:.3f}"
        )
        if learnt.held_back_accuracy is not None and learnt.majority is not None:
            lines.append(
                f"          {learnt.held_back} pairs held back: accuracy {learnt.held_back_accuracy:.3f}, "
                f"majority {learnt.majority:.3f}"
            )
    return "\n".join(lines)


def plan_text(recipe: "Recipe", plan: "Plan") -> str:
    """The table of what each stage would see."""
    lines = [f"{recipe.name} ({plan.variant})"]
    for name, uses in plan.stages:
        lines += ["", f"stage {name}: {len(uses)} sets, {sum(use.pairs for use in uses)} pairs"]
        lines.append(f"  {'set':32} {'cluster':12} {'classes':>7} {'rows':>7} {'pairs':>7}  licence")
        lines += [
            f"  {use.name:32} {use.cluster:12} {use.classes:7} {use.rows:7} {use.pairs:7}  "
            f"{use.licence} (ship: {use.ship})"
            for use in uses
        ]
    return "\n".join(lines)
