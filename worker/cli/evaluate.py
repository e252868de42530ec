"""`worker evaluate`: how good models are on tasks, told apart by what they had seen of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import made_folder

if TYPE_CHECKING:
    from worker.engines.load import EngineChoice
    from worker.training.card import Provenance
    from worker.training.data import NliRow
    from worker.training.evaluate import NliFigures, TaskFigures
    from worker.training.report import Report
    from worker.training.scoring import Scorer
    from worker.training.sets import ClassificationSet, NliSet, SetTable
    from worker.training.tasks import Sampling, Task


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("evaluate")(evaluate)


def evaluate(
    sets: Path | None = typer.Option(None, help="A table of data sets, YAML."),
    data: Path = typer.Option(Path(), help="The folder that the paths of the table start from."),
    btzsc: Path | None = typer.Option(None, help="A folder of sets in the format of BTZSC."),
    btzsc_entailment: int = typer.Option(1, help="What `labels` says of a true hypothesis there."),
    model: list[str] = typer.Option([], help="bundled, a folder or a Hugging Face id@commit; may be given again."),
    run: list[Path] = typer.Option([], help="The --out of `worker train`, every model below it; may be given again."),
    only: list[str] = typer.Option([], help="Only this set; may be given again."),
    texts: int = typer.Option(200, min=1, help="Texts of each set at most, drawn in the share of their classes."),
    texts_many: int = typer.Option(60, min=1, help="As --texts, for sets with more than 50 classes."),
    nli_rows: int = typer.Option(0, min=0, help="Pairs of each NLI set at most; 0 is all of them."),
    max_pair_tokens: int = typer.Option(256, min=16, help="Longer texts are cut."),
    seed: int = typer.Option(0, min=0, help="Of the draws."),
    engine: str = typer.Option("auto", help="auto | openvino | pytorch | t5_rank | gliclass"),
    precision: str = typer.Option("auto", help="auto | float32 | bfloat16 | float16"),
    out: Path | None = typer.Option(None, help="A folder for report.md, report.json and pictures."),
    card: bool = typer.Option(False, "--card", help="Also write the figures into the models' cards."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON, not as markdown."),
) -> None:
    """Measure models on labelled test sets: macro-F1, balanced accuracy, accuracy and ECE, never mixed up.

    A figure is called zero-shot only where the model's training.json says that it saw no set of the cluster.
    """
    import json
    import shlex
    import sys

    from worker.engines.load import EngineChoice
    from worker.errors import ConfigError
    from worker.observability.logging import configure_logging
    from worker.training.report import Report, as_object, markdown, write_report
    from worker.training.sets import SetTable, read_table
    from worker.training.tasks import Sampling

    configure_logging("warning")
    if sets is None and btzsc is None:
        raise ConfigError("expected --sets FILE, --btzsc FOLDER or both")
    table = read_table(sets) if sets is not None else SetTable()
    sampling = Sampling(texts, texts_many, seed)
    tasks = list(_tasks(table, data, (btzsc, btzsc_entailment), sampling, set(only)))
    pairs = list(_nli(table, data, nli_rows, seed, set(only)))
    if not tasks and not pairs:
        raise ConfigError("there is nothing to evaluate: no set with a test file is left")
    choices = [EngineChoice(each, engine, precision) for each in _models(model, run)]
    notes = (
        f"At most {texts} texts of a set ({texts_many} with more than 50 classes), stratified, seed {seed}.",
        f"Pairs are cut at {max_pair_tokens} tokens.",
        *_set_notes(table, {*(task.name for task in tasks), *(name for name, _ in pairs)}),
    )
    if out is not None:
        made_folder("--out", out)
    measured: list[_Measured] = []
    for choice in choices:
        measured.append(_measured(choice, max_pair_tokens, (tasks, pairs), {each.name for each in measured}))
    report = Report(
        f"worker {shlex.join(sys.argv[1:])}",
        tuple(figures for each in measured for figures in each.tasks),
        tuple(figures for each in measured for figures in each.nli),
        {each.name: each.stamp for each in measured},
        notes,
    )
    if out is not None:
        write_report(out, report)
    if card:
        _write_cards(report, measured)
    print(json.dumps(as_object(report), ensure_ascii=False) if as_json else markdown(report), end="")


@dataclass(frozen=True, slots=True)
class _Measured:
    """A model, and its figures."""

    name: str
    stamp: str
    folder: Path
    provenance: "Provenance | None"
    tasks: "tuple[TaskFigures, ...]"
    nli: "tuple[NliFigures, ...]"


def _measured(
    choice: "EngineChoice",
    max_pair_tokens: int,
    tests: "tuple[list[Task], list[tuple[str, list[NliRow]]]]",
    taken: set[str],
) -> _Measured:
    """The figures of a model; its name is none of those that are `taken`."""
    from worker.cli.training_text import Bar
    from worker.training.card import read_provenance
    from worker.training.evaluate import evaluate_nli, evaluate_task

    tasks, pairs = tests
    found: list[TaskFigures] = []
    nli: list[NliFigures] = []
    with Bar() as bar, _scorer(choice, max_pair_tokens) as scorer:
        info = scorer.model.engine.info
        folder = _named_folder(choice, scorer.model.model_dir)
        provenance = read_provenance(folder)
        name, called = _told_apart(info.stamp.name, provenance, folder, taken)
        counter = bar.count(name, sum(len(task.rows) for task in tasks) + len(pairs))
        for task in tasks:
            found.append(evaluate_task(scorer, task, (name, called)))
            counter.add(len(task.rows), task.name)
        if info.reading == "pairs":  # others say nothing of a single pair
            for each, rows in pairs:
                nli.append(evaluate_nli(scorer, each, rows, name))
                counter.add(1, each)
        stamp = f"{info.stamp.engine}, {info.stamp.precision}, {info.stamp.digest}"
        return _Measured(name, stamp, folder, provenance, tuple(found), tuple(nli))


def _named_folder(choice: "EngineChoice", loaded: Path) -> Path:
    """Where a model says what it saw: what is loaded may be a form of it that lies in a cache and says nothing."""
    from worker.training.card import PROVENANCE_FILE

    named = Path(choice.model)
    return named if (named / PROVENANCE_FILE).is_file() else loaded


def _told_apart(
    stamped: str, provenance: "Provenance | None", folder: Path, taken: set[str]
) -> "tuple[str, Provenance | None]":
    """What the report calls a model, and its training under the name of its column.

    Two forms of a model, or two runs of a recipe, have columns of their own.
    """
    from dataclasses import replace

    plain = stamped if provenance is None else provenance.name
    forms = [f"{plain}-{folder.name}"] if folder.name not in {"model", plain} else []
    for recipe in (plain, *forms, *(f"{plain}-{number}" for number in range(2, len(taken) + 3))):
        called = replace(provenance, name=recipe) if provenance is not None else None
        name = recipe if called is None else f"{recipe} ({called.variant})"
        if name not in taken:
            return name, called
    raise RuntimeError(f"This is a bug. More names than {len(taken)} are taken.")


def _write_cards(report: "Report", measured: list[_Measured]) -> None:
    from worker.training.card import write_card
    from worker.training.report import card_lines

    for each in measured:
        if each.provenance is not None:
            write_card(each.folder, each.provenance, card_lines(report, each.name))


def _tasks(
    table: "SetTable", data: Path, btzsc: tuple[Path | None, int], sampling: "Sampling", only: set[str]
) -> "Iterator[Task]":
    from worker.training.tasks import btzsc_tasks, table_task

    for each in table.classification:
        if not only or each.name in only:
            task = table_task(each, data, sampling)
            if task is not None:
                yield task
    folder, entailment = btzsc
    if folder is not None:
        yield from (task for task in btzsc_tasks(folder, sampling, entailment) if not only or task.name in only)


def _nli(table: "SetTable", data: Path, limit: int, seed: int, only: set[str]) -> "Iterator[tuple[str, list[NliRow]]]":
    from worker.training.data import keep_pairs, read_nli

    for each in table.nli:
        if each.test is not None and (not only or each.name in only):
            yield each.name, keep_pairs(read_nli(data / each.test, each), limit or None, seed)


def _set_notes(table: "SetTable", measured: set[str]) -> list[str]:
    sets: tuple[ClassificationSet | NliSet, ...] = (*table.classification, *table.nli)
    return [f"{each.name}: {each.note}" for each in sets if each.note is not None and each.name in measured]


def _models(named: list[str], runs: list[Path]) -> list[str]:
    from worker.errors import ConfigError
    from worker.training.card import PROVENANCE_FILE

    models = [*named]
    for run in runs:
        below = [str(file.parent) for file in sorted(run.glob(f"*/model/{PROVENANCE_FILE}"))]
        if not below:
            raise ConfigError(f"--run {run}: no model of `worker train` there")
        models += below
    return models or ["bundled"]


@contextmanager
def _scorer(choice: "EngineChoice", max_pair_tokens: int) -> "Iterator[Scorer]":
    from worker.clock import SystemClock
    from worker.engines.load import load_engine
    from worker.training.scoring import Meter, Scorer

    loaded = load_engine(choice)
    try:
        loaded.engine.warm_up()
        yield Scorer(loaded, Meter(SystemClock()), max_pair_tokens)
    finally:
        loaded.engine.close()
