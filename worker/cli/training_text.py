"""What the commands that train and measure print."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from worker.clock import Clock, SystemClock

if TYPE_CHECKING:
    from worker.engines.build import GateReport
    from worker.training.finetune import Progress as StepTold
    from worker.training.prepare import Told
    from worker.training.recipe import Recipe
    from worker.training.train import Plan, Trained


SAID_EVERY_S: Final = 30.0


class Bar(AbstractContextManager["Bar"]):
    """Progress bars on a terminal; in a pipe a line now and then, so that a log shows that it goes on."""

    def __init__(self, clock: Clock | None = None, stream: TextIO | None = None) -> None:
        self._clock, self._stream = clock or SystemClock(), stream or sys.stderr
        self._has_bars = self._stream.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            disable=not self._has_bars,
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
        show = self._shown(name)
        return lambda step, steps, loss: show(step, steps, f"loss {loss:.3f}")

    def reading(self, name: str) -> "Told":
        """A bar for what is read or made ready."""
        show = self._shown(name)
        return lambda done, of: show(done, of, "")

    def count(self, name: str, total: int) -> "Counter":
        """A bar that counts."""
        return Counter(self._shown(name, 0), total)

    def _shown(self, name: str, before: int | None = None) -> Callable[[int, int, str], None]:
        if not self._has_bars:
            return _Lines(name, self._clock, self._stream, before).show
        task: list[TaskID] = []

        def show(done: int, of: int, note: str) -> None:
            if not task:
                task.append(self._progress.add_task(name, total=of, note=""))
            self._progress.update(task[0], completed=done, note=note)

        return show


class _Lines:
    """What a bar would show, as a line every so often and one at the end of what took longer than that."""

    def __init__(self, name: str, clock: Clock, stream: TextIO, before: int | None) -> None:
        self._name, self._clock, self._stream = name, clock, stream
        self._began = self._said = clock.monotonic()
        self._before = before
        """What an earlier process had done; None: all but one of the first that is told."""

    def show(self, done: int, of: int, note: str) -> None:
        now = self._clock.monotonic()
        if self._before is None:
            self._before = done - 1
        is_over = done == of and now - self._began >= SAID_EVERY_S
        if not is_over and now - self._said < SAID_EVERY_S:
            return
        self._said = now
        left = (now - self._began) / max(1, done - self._before) * (of - done)
        parts = [f"{done} of {of}", *([note] if note else []), f"{_duration(now - self._began)} so far"]
        parts += [f"about {_duration(left)} left"] if done < of else []
        self._stream.write(f"{self._name}: {', '.join(parts)}\n")
        self._stream.flush()


class Counter:
    """One bar that is told what was done."""

    def __init__(self, show: Callable[[int, int, str], None], total: int) -> None:
        self._show, self._total, self._done = show, total, 0

    def add(self, done: int = 1, note: str = "") -> None:
        """So much more is done."""
        self._done += done
        self._show(self._done, self._total, note)


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def for_people(made: "Trained") -> str:
    """What a training came to."""
    lines = [f"model     {made.model}"]
    if made.exported is not None:
        lines.append(f"openvino  {made.exported.folder} ({made.exported.weights} weights)")
        if made.exported.gate is not None:
            lines.append(f"gate      {gate_text(made.exported.gate)}")
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


def gate_text(gate: "GateReport") -> str:
    """How far an exported form is from the original."""
    return (
        f"{gate.pairs} pairs, {gate.label_flips} labels differ from float32, "
        f"largest logit error {gate.largest_logit_error:.3g}"
    )


def _or_own(value: float | None) -> str:
    return "as the model's" if value is None else f"{value:g}"


def plan_text(recipe: "Recipe", plan: "Plan") -> str:
    """The table of what each stage would see."""
    lines = [f"{recipe.name} ({plan.variant})"]
    stages = {stage.name: stage for stage in recipe.stages}
    for name, uses in plan.stages:
        only = ", shippable sets alone" if "shippable" in {recipe.only, stages[name].only} else ""
        lines += ["", f"stage {name}: {len(uses)} sets, {sum(use.pairs for use in uses)} pairs{only}"]
        how = stages[name].optimisation.model_dump()
        lines += [f"  {', '.join(f'{key} {_or_own(value)}' for key, value in how.items())}"]
        lines.append(f"  {'set':32} {'cluster':12} {'classes':>7} {'rows':>7} {'pairs':>7}  licence")
        lines += [
            f"  {use.name:32} {use.cluster:12} {use.classes:7} {use.rows:7} {use.pairs:7}  "
            f"{use.licence} (ship: {use.ship}){f'; {use.left_out} texts of tests left out' if use.left_out else ''}"
            for use in uses
        ]
    return "\n".join(lines)
