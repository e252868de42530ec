"""`worker clean`: which labels of a training file are probably wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import writable_file

if TYPE_CHECKING:
    from worker.training.clean import NoiseReport
    from worker.training.data import Row
    from worker.training.linear import Float64Array


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("clean")(clean)


def clean(
    file: Path = typer.Argument(help="Labelled texts to train on: .jsonl, .csv or .parquet. Never a test file."),
    out: Path | None = typer.Option(None, help="A new file of the same kind, without the suspected rows."),
    text_column: str = typer.Option("text", help="The column of the text."),
    label_column: str = typer.Option("label", help="The column of the label."),
    model: str | None = typer.Option(None, help="Also use what this model says: bundled, a folder, an id@revision."),
    template: list[str] = typer.Option([], help="With --model: a sentence with one {}; may be given again."),
    most: int = typer.Option(20, min=0, help="How many suspects to list; the JSON has all of them."),
    show_text: bool = typer.Option(False, "--show-text", help="Show the texts of the suspects, not only their rows."),
    seed: int = typer.Option(0, min=0, help="Of the folds."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Report label noise: cross-validated scores, and what confident learning would remove of each class.

    Reads the file and changes nothing; --out writes the rest to a new one, every row and column as it was.
    """
    import json

    from worker.observability.logging import configure_logging
    from worker.training.clean import as_object, find_noise
    from worker.training.data import Hints, numbered_rows
    from worker.training.rewrite import copy_without
    from worker.training.sets import ClassificationSet, Licence

    configure_logging("warning")
    if out is not None:
        _check(out, file)
    table = ClassificationSet(
        name="file", cluster="file", licence=Licence(name="-"), columns={"text": text_column, "label": label_column}
    )
    numbered = dict(numbered_rows(file, table, Hints(columns="see --text-column and --label-column")))
    rows = list(numbered.values())
    evidence = _evidence(rows, model, template) if model is not None else None
    report = find_noise(rows, evidence, seed).numbered(list(numbered))
    texts = {suspect.row: numbered[suspect.row].text for suspect in report.suspects} if show_text else None
    print(json.dumps(as_object(report, texts), ensure_ascii=False) if as_json else _for_people(report, texts, most))
    if out is not None:
        copy_without(file, out, {suspect.row for suspect in report.suspects})


def _evidence(rows: "Sequence[Row]", model: str, templates: list[str]) -> "Float64Array":
    from worker.clock import SystemClock
    from worker.engines.load import EngineChoice, load_engine
    from worker.labels.schema import DEFAULT_TEMPLATE, parse_schema
    from worker.training.levels import label_evidence
    from worker.training.scoring import Meter, Scorer
    from worker.training.verbalize import plain_words
    from worker.types import JsonValue

    names = sorted({row.label for row in rows})
    labels: list[JsonValue] = [{"name": name, "description": plain_words(name)} for name in names]
    document: dict[str, JsonValue] = {"name": "clean", "version": 0, "labels": labels}
    document["hypothesis_templates"] = [*(templates or [DEFAULT_TEMPLATE])]
    schema = parse_schema(document, "--template")
    loaded = load_engine(EngineChoice(model))
    try:
        return label_evidence(Scorer(loaded, Meter(SystemClock()), 256), schema, [row.text for row in rows])
    finally:
        loaded.engine.close()


def _for_people(report: "NoiseReport", texts: dict[int, str] | None, most: int) -> str:
    lines = [
        f"cross-validated accuracy {report.accuracy:.3f}, majority {report.majority:.3f}",
        "",
        f"{'label':32} {'rows':>7} {'suspected':>9} {'quality':>8}",
    ]
    lines += [f"{each.label:32} {each.rows:7} {each.removed:9} {each.mean_quality:8.3f}" for each in report.classes]
    lines += [
        "",
        f"{len(report.suspects)} suspected rows (by number in the file, from 0), worst first:",
    ]
    for suspect in report.suspects[:most]:
        text = f"  {texts[suspect.row]}" if texts is not None else ""
        lines.append(f"  {suspect.row:7} {suspect.label} -> {suspect.suggested} ({suspect.quality:.3f}){text}")
    return "\n".join(lines)


def _check(out: Path, source: Path) -> None:
    from worker.errors import ConfigError
    from worker.training.data import kind_of

    kind = kind_of(source)  # reading tells of one that is unknown
    if (kind is not None and kind_of(out) != kind) or (out.exists() and source.exists() and out.samefile(source)):
        raise ConfigError(f"--out {out}: expected a new file {kind}, as {source.name} is")
    writable_file("--out", out)
