"""An evaluation as markdown for people, JSON for programs, and pictures."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from worker.training.evaluate import Column, NliFigures, TaskFigures
from worker.training.pictures import confusion_svg, reliability_svg

REPORT_FILE: Final = "report.md"
JSON_FILE: Final = "report.json"
PICTURES: Final = "pictures"
_SHOWN_MEANS: Final = (
    "macro_f1",
    "best_template_macro_f1",
    "averaged_logits_macro_f1",
    "balanced_accuracy",
    "accuracy",
    "ece",
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured, and how."""

    command: str
    tasks: tuple[TaskFigures, ...]
    nli: tuple[NliFigures, ...]
    models: dict[str, str]
    """By name: engine, precision and digest."""
    notes: tuple[str, ...]
    """What a reader has to know of the sample."""

    @property
    def columns(self) -> tuple["Heading", ...]:
        """Those that have figures: the recipes in the order of their models, of each the columns in theirs."""
        recipes = dict.fromkeys(each.recipe for each in self.tasks)
        present = {(each.recipe, each.column) for each in self.tasks}
        return tuple(
            Heading(recipe, column, len(recipes) > 1)
            for recipe in recipes
            for column in Column
            if (recipe, column) in present
        )

    def in_column(self, heading: "Heading") -> dict[str, TaskFigures]:
        """By set the figures of a column; of several models that belong in it the first."""
        found: dict[str, TaskFigures] = {}
        for each in self.tasks:
            if (each.recipe, each.column) == (heading.recipe, heading.column):
                found.setdefault(each.task, each)
        return found


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of the tables."""

    recipe: str
    column: Column
    names_recipe: bool

    def __str__(self) -> str:
        """For people; the recipe is named where there are several."""
        return f"{self.recipe}: {self.column}" if self.names_recipe else str(self.column)

    @property
    def stem(self) -> str:
        """For the names of files."""
        return f"{self.recipe}.{self.column.name.lower()}" if self.names_recipe else self.column.name.lower()


def write_report(folder: Path, report: Report) -> None:
    """Write `report.md`, `report.json` and the pictures into `folder`."""
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    (folder / REPORT_FILE).write_text(markdown(report), encoding="utf-8")
    (folder / JSON_FILE).write_text(json.dumps(as_object(report), indent=1, ensure_ascii=False), encoding="utf-8")
    for column in report.columns:
        for name, figures in report.in_column(column).items():
            stem = f"{name}.{column.stem}".replace("/", "-")
            (folder / PICTURES / f"{stem}.confusion.svg").write_text(confusion_svg(figures), encoding="utf-8")
            (folder / PICTURES / f"{stem}.reliability.svg").write_text(reliability_svg(figures), encoding="utf-8")


def as_object(report: Report) -> dict[str, object]:
    """The report as plain values for JSON; figures in [0, 1]."""
    tasks = [{**dataclasses.asdict(each), "confusion": each.confusion.tolist()} for each in report.tasks]
    by_column = {str(column): list(report.in_column(column).values()) for column in report.columns}
    return {
        "command": report.command,
        "notes": list(report.notes),
        "models": report.models,
        "means": {column: _means(found) for column, found in by_column.items()},
        "clusters": {
            column: {cluster: _means(of_cluster) for cluster, of_cluster in _by_cluster(found).items()}
            for column, found in by_column.items()
        },
        "tasks": tasks,
        "nli": [dataclasses.asdict(each) for each in report.nli],
    }


def markdown(report: Report) -> str:
    """The report for people; figures in [0, 1]."""
    lines = ["# Evaluation", "", f"`{report.command}`", ""]
    lines += [f"* {note}" for note in report.notes]
    lines += [f"* {name}: {what}" for name, what in report.models.items()]
    if report.tasks:
        lines += ["", *_overview(report), "", *_clusters(report), "", *_compared(report), *_details(report)]
    if report.nli:
        lines += ["", *_nli(report)]
    return "\n".join(lines) + "\n"


def card_lines(report: Report, model: str) -> list[str]:
    """What a model's card says of its figures: one paragraph of markdown and two tables."""
    tasks = [each for each in report.tasks if each.model == model]
    lines = ["", "## Figures", "", f"`{report.command}`", ""]
    lines += [f"* {note}" for note in report.notes]
    if tasks:
        lines += ["", "| set | the model had seen | macro-F1 | 95 % | balanced accuracy | accuracy | ECE |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            f"| {each.task} | {each.column} | {each.macro_f1:.3f} "
            f"| {each.interval.low:.3f} to {each.interval.high:.3f} "
            f"| {each.balanced_accuracy:.3f} | {each.accuracy:.3f} | {each.ece:.3f} |"
            for each in tasks
        ]
        lines.append(f"| **mean of {len(tasks)}** | | {np.mean([each.macro_f1 for each in tasks]):.3f} | | | | |")
    nli = [each for each in report.nli if each.model == model]
    if nli:
        lines += ["", "| NLI set | pairs | accuracy in two classes | majority |", "|---|---|---|---|"]
        lines += [f"| {each.name} | {each.pairs} | {each.accuracy:.3f} | {each.majority:.3f} |" for each in nli]
    return lines


def _overview(report: Report) -> Iterator[str]:
    columns = report.columns
    yield "## Macro-F1 by set"
    yield ""
    yield "Mean over the templates, with the 95 % interval of the sample of texts."
    yield ""
    yield f"| set | cluster | classes | texts | {' | '.join(map(str, columns))} |"
    yield f"|---|---|---|---|{'---|' * len(columns)}"
    by_column = [report.in_column(column) for column in columns]
    for name in dict.fromkeys(each.task for each in report.tasks):
        any_ = next(found[name] for found in by_column if name in found)
        cells = [_cell(found.get(name)) for found in by_column]
        yield f"| {name} | {any_.cluster} | {any_.classes} | {any_.texts} | {' | '.join(cells)} |"
    yield f"| **mean** | | | | {' | '.join(_mean_cell(list(found.values())) for found in by_column)} |"


def _clusters(report: Report) -> Iterator[str]:
    columns = {str(column): _by_cluster(list(report.in_column(column).values())) for column in report.columns}
    clusters = list(dict.fromkeys(each.cluster for each in report.tasks))
    yield "## By cluster"
    yield ""
    yield "Macro-F1, mean over the sets:"
    yield ""
    yield f"| cluster | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for cluster in clusters:
        yield f"| {cluster} | {' | '.join(_mean_cell(found.get(cluster, [])) for found in columns.values())} |"
    yield ""
    yield "All figures, mean over the sets; `pairs/s` over all their pairs:"
    yield ""
    yield "| cluster | column | sets | macro-F1 | best | averaged | balanced accuracy | accuracy | ECE | pairs/s |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for cluster in clusters:
        yield from (_means_line(cluster, name, found[cluster]) for name, found in columns.items() if cluster in found)
    for name, found in columns.items():
        yield _means_line("**all**", name, [each for of_cluster in found.values() for each in of_cluster])


def _means_line(cluster: str, column: str, figures: Sequence[TaskFigures]) -> str:
    means = _means(figures)
    shown = " | ".join(f"{means[name]:.3f}" for name in _SHOWN_MEANS)
    return f"| {cluster} | {column} | {len(figures)} | {shown} | {means['pairs_per_second']:.0f} |"


def _by_cluster(figures: Sequence[TaskFigures]) -> dict[str, list[TaskFigures]]:
    found: dict[str, list[TaskFigures]] = {}
    for each in figures:
        found.setdefault(each.cluster, []).append(each)
    return found


def _compared(report: Report) -> Iterator[str]:
    """On how many sets the mix of tasks was better than NLI alone, and where it was worse."""
    for heading in report.columns:
        if heading.column not in {Column.CLUSTER_HELD_OUT, Column.SET_HELD_OUT}:
            continue
        alone = report.in_column(replace(heading, column=Column.NLI_ONLY))
        mixed = report.in_column(heading)
        both = [name for name in mixed if name in alone]
        if both:
            worse = [name for name in both if mixed[name].macro_f1 <= alone[name].macro_f1]
            said = f"better than NLI alone on {len(both) - len(worse)} of {len(both)} sets"
            yield f"{heading}: {said}{'; not on ' + ', '.join(worse) if worse else ''}."
            yield ""


def _details(report: Report) -> Iterator[str]:
    yield "## All figures"
    yield ""
    yield "`spread`: largest minus smallest macro-F1 of the templates. `averaged`: macro-F1 with averaged logits."
    yield ""
    yield (
        "| set | column | model | macro-F1 | spread | best | averaged | balanced accuracy | accuracy | ECE | pairs "
        "| pairs/s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for each in report.tasks:
        yield (
            f"| {each.task} | {each.column} | {each.model} | {each.macro_f1:.3f} | {each.spread:.3f} | {each.best:.3f} "
            f"| {each.averaged_logits.macro_f1:.3f} | {each.balanced_accuracy:.3f} | {each.accuracy:.3f} "
            f"| {each.ece:.3f} | {each.pairs} | {each.pairs_per_second:.0f} |"
        )


def _nli(report: Report) -> Iterator[str]:
    yield "## NLI, accuracy in two classes"
    yield ""
    yield "| set | model | pairs | accuracy | 95 % | majority |"
    yield "|---|---|---|---|---|---|"
    for each in report.nli:
        yield (
            f"| {each.name} | {each.model} | {each.pairs} | {each.accuracy:.3f} "
            f"| {each.interval.low:.3f} to {each.interval.high:.3f} | {each.majority:.3f} |"
        )


def _cell(figures: TaskFigures | None) -> str:
    if figures is None:
        return ""
    return f"{figures.macro_f1:.3f} ({figures.interval.low:.3f} to {figures.interval.high:.3f})"


def _mean_cell(figures: Sequence[TaskFigures]) -> str:
    return f"**{np.mean([each.macro_f1 for each in figures]):.3f}** (n = {len(figures)})" if figures else ""


def _means(figures: Sequence[TaskFigures]) -> dict[str, float]:
    def mean(figure: Callable[[TaskFigures], float]) -> float:
        return float(np.mean([figure(each) for each in figures]))

    seconds = sum(each.pairs / each.pairs_per_second for each in figures if each.pairs_per_second)
    return {
        "sets": len(figures),
        "macro_f1": mean(lambda each: each.macro_f1),
        "best_template_macro_f1": mean(lambda each: each.best),
        "averaged_logits_macro_f1": mean(lambda each: each.averaged_logits.macro_f1),
        "balanced_accuracy": mean(lambda each: each.balanced_accuracy),
        "accuracy": mean(lambda each: each.accuracy),
        "ece": mean(lambda each: each.ece),
        "pairs_per_second": sum(each.pairs for each in figures) / seconds if seconds else 0.0,
    }
