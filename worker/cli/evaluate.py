"""`worker evaluate`: how good models are on tasks, told apart by what they had seen of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from worker.engines.load import EngineChoice
    from worker.training.card import Provenance
    from worker.training.data import NliRow
    from worker.training.evaluate import NliFigures, TaskFigures
    from worker.training.scoring import Scorer
    from worker.training.sets import SetTable
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
    run: Path | None = typer.Option(None, help="The --out of `worker train`: every model below it."),
    only: list[str] = typer.Option([], help="Only this set; may be given again."),
    texts: int = typer.Option(200, min=1, help="Texts of each set at most, drawn in the share of their classes."),
    texts_many: int = typer.Option(60, min=1, help="As --texts, for sets with more than 50 classes."),
    nli_rows: int = typer.Option(0, min=0, help="Pairs of each NLI set at most; 0 is all of them."),
    max_pair_tokens: int = typer.Option(256, min=16, help="Longer texts are cut."),
    seed: int = typer.Option(0, min=0, help="Of the draws."),
    engine: str = typer.Option("auto", help="auto | openvino | pytorch"),
    precision: str = typer.Option("auto", help="auto | float32 | bfloat16 | float16"),
    out: Path | None = typer.Option(None, help="A folder for report.md, report.json and pictures."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON, not as markdown."),
) -> None:
    """Measure models on labelled test sets: macro-F1, balanced accuracy, accuracy and ECE, never mixed up.

    A figure is called zero-shot only where the model's training.json says that it saw no set of the cluster.
    """
    import json
    import shlex
    import sys

    from worker.cli.training_text import Bar
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
    found: list[TaskFigures] = []
    nli: list[NliFigures] = []
    models: dict[str, str] = {}
    with Bar() as bar:
        for each in _models(model, run):
            with _scorer(EngineChoice(each, engine, precision), max_pair_tokens) as (scorer, name, provenance):
                stamp = scorer.model.engine.info.stamp
                models[name] = f"{stamp.engine}, {stamp.precision}, {stamp.digest}"
                counter = bar.count(name, sum(len(task.rows) for task in tasks) + len(pairs))
                found += list(_measured(scorer, tasks, (name, provenance), counter.add))
                nli += list(_measured_nli(scorer, pairs, name, counter.add))
    notes = (
        f"At most {texts} texts of a set ({texts_many} with more than 50 classes), stratified, seed {seed}.",
        f"Pairs are cut at {max_pair_tokens} tokens.",
    )
    report = Report(f"worker {shlex.join(sys.argv[1:])}", tuple(found), tuple(nli), models, notes)
    if out is not None:
        write_report(out, report)
    print(json.dumps(as_object(report), ensure_ascii=False) if as_json else markdown(report), end="")


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


def _models(named: list[str], run: Path | None) -> list[str]:
    from worker.errors import ConfigError
    from worker.training.card import PROVENANCE_FILE

    below = [str(file.parent) for file in sorted(run.glob(f"*/model/{PROVENANCE_FILE}"))] if run is not None else []
    if run is not None and not below:
        raise ConfigError(f"--run {run}: no model of `worker train` there")
    return [*named, *below] or ["bundled"]


@contextmanager
def _scorer(choice: "EngineChoice", max_pair_tokens: int) -> "Iterator[tuple[Scorer, str, Provenance | None]]":
    """A model loaded, what the report calls it, and what it says of its training."""
    from worker.clock import SystemClock
    from worker.engines.load import load_engine
    from worker.training.card import read_provenance
    from worker.training.scoring import Meter, Scorer

    loaded = load_engine(choice)
    try:
        loaded.engine.warm_up()
        provenance = read_provenance(loaded.model_dir)
        name = loaded.engine.info.stamp.name if provenance is None else f"{provenance.name} ({provenance.variant})"
        yield Scorer(loaded, Meter(SystemClock()), max_pair_tokens), name, provenance
    finally:
        loaded.engine.close()


def _measured(
    scorer: "Scorer", tasks: "list[Task]", who: "tuple[str, Provenance | None]", add: Callable[[int, str], None]
) -> "Iterator[TaskFigures]":
    from worker.training.evaluate import evaluate_task

    for task in tasks:
        yield evaluate_task(scorer, task, who)
        add(len(task.rows), task.name)


def _measured_nli(
    scorer: "Scorer", pairs: "list[tuple[str, list[NliRow]]]", name: str, add: Callable[[int, str], None]
) -> "Iterator[NliFigures]":
    from worker.training.evaluate import evaluate_nli

    for each, rows in pairs:
        yield evaluate_nli(scorer, each, rows, name)
        add(1, each)
