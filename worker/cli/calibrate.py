"""`worker calibrate`: scores that mean what they say, written into a new version of a label schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import writable_file

if TYPE_CHECKING:
    from worker.engines.load import EngineChoice
    from worker.labels.schema import LabelSchema
    from worker.training.calibrate import Calibrated
    from worker.training.levels import Labelled
    from worker.training.scoring import Scorer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("calibrate")(calibrate)


def calibrate(
    schema: Path = typer.Option(..., help="A label schema, YAML or JSON."),
    labelled: Path | None = typer.Option(None, help="Texts with labels: .jsonl, .csv or .parquet; text and label."),
    unlabelled: Path | None = typer.Option(None, help="Texts without labels: match how often each label comes."),
    prior: list[str] = typer.Option([], help="LABEL=SHARE, with --unlabelled; the others share the rest."),
    out: Path | None = typer.Option(None, help="Where the new version goes; without it only figures are printed."),
    version: int | None = typer.Option(None, min=0, help="Of the new document; without it one more than now."),
    text_column: str = typer.Option("text", help="The column of the text."),
    label_column: str = typer.Option("label", help="The column of the label, or of a list of them (in a CSV as JSON)."),
    model: str = typer.Option("bundled", help="`bundled`, a folder, or a Hugging Face id@revision."),
    engine: str = typer.Option("auto", help="auto | openvino | pytorch"),
    precision: str = typer.Option("auto", help="auto | float32 | bfloat16 | float16"),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Fit a temperature, a bias per label and, with several labels at once, thresholds; for one model.

    With --labelled: ECE and macro-F1 before and after, the latter on texts that the fit did not see. With --unlabelled:
    a bias under which labels come as often as you say.
    """
    from worker.cli.texts import label_schema_from
    from worker.engines.load import EngineChoice
    from worker.errors import ConfigError
    from worker.observability.logging import configure_logging
    from worker.training.calibrate import calibrate as fit
    from worker.training.calibrate import match_priors

    configure_logging("warning")
    if (labelled is None) == (unlabelled is None):
        raise ConfigError("expected either --labelled FILE or --unlabelled FILE")
    if out is not None:
        writable_file("--out", out)
    before = label_schema_from(None, schema, None, multi_label=False)
    number = before.version + 1 if version is None else version
    with _scorer(EngineChoice(model, engine, precision)) as scorer:
        if labelled is not None:
            found = fit(scorer, before, list(_labelled(labelled, text_column, label_column)), number)
        else:
            texts = [row.text for row in _labelled(unlabelled or Path(), text_column, None)]
            found = match_priors(scorer, before, texts, _priors(prior), number)
    if out is not None:
        _write(out, found.schema)
    _print(found, out, as_json=as_json)


@contextmanager
def _scorer(choice: "EngineChoice") -> "Iterator[Scorer]":
    from worker.clock import SystemClock
    from worker.engines.load import load_engine
    from worker.training.scoring import Meter, Scorer

    loaded = load_engine(choice)
    try:
        loaded.engine.warm_up()
        yield Scorer(loaded, Meter(SystemClock()))
    finally:
        loaded.engine.close()


def _labelled(file: Path, text_column: str, label_column: str | None) -> "Iterator[Labelled]":
    from worker.errors import ConfigError
    from worker.training.data import read_objects
    from worker.training.levels import Labelled

    for number, row in enumerate(read_objects(file), start=1):
        text = row.get(text_column)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{file}: row {number}: expected a text in the column {text_column}; see --text-column")
        if label_column is not None and label_column not in row:
            raise ConfigError(f"{file}: row {number} has no column {label_column}; see --label-column")
        labels = _items(row[label_column], file, number) if label_column is not None else []
        yield Labelled(text, frozenset(map(str, labels)))


def _items(labels: object, file: Path, number: int) -> list[object]:
    """The labels of a cell; one that is blank has none, and in a CSV a list stands as JSON."""
    from worker.errors import ConfigError

    if isinstance(labels, str):
        return _json_list(labels) or ([labels] if labels.strip() else [])
    if isinstance(labels, list | tuple):
        return list(labels)
    if isinstance(labels, int) and not isinstance(labels, bool):
        return [labels]
    raise ConfigError(f"{file}: row {number}: expected a label or a list of labels; see --label-column")


def _json_list(cell: str) -> list[object] | None:
    import json

    try:
        found = json.loads(cell) if cell.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _priors(given: list[str]) -> dict[str, float]:
    from worker.errors import ConfigError

    priors = {}
    for each in given:
        name, _, share = each.rpartition("=")
        try:
            priors[name] = float(share)
        except ValueError:
            raise ConfigError("--prior: expected LABEL=SHARE, as in --prior spam=0.1") from None
    return priors


def _write(file: Path, schema: "LabelSchema") -> None:
    import json

    import yaml

    from worker.errors import ConfigError

    document = schema.document()
    text = (
        json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if file.suffix == ".json"
        else yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=118)
    )
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out {file}: cannot be written ({error.strerror})") from None


def _print(found: "Calibrated", out: Path | None, *, as_json: bool) -> None:
    import dataclasses
    import json

    if as_json:
        print(json.dumps({**_figures(found), "schema": found.schema.reference, "out": str(out) if out else None}))
        return
    print(f"{found.schema.reference}: {found.texts} texts, temperature {found.temperature:.3f}")
    for name, quality in (("before", found.before), ("after", found.after)):
        if quality is not None:
            figures = dataclasses.asdict(quality)
            note = " (texts that the fit did not see)" if name == "after" and found.is_cross_validated else ""
            print(f"{name:7} ECE {figures['ece']:.3f}  macro-F1 {figures['macro_f1']:.3f}{note}")
    if found.after is not None and not found.is_cross_validated:
        print("too few texts to hold some back: `after` is on those that were fitted")
    for label, bias in found.bias.items():
        threshold = f"  threshold {found.thresholds[label]:.3f}" if label in found.thresholds else ""
        print(f"  {label:32} bias {bias:+.3f}{threshold}")
    if found.frequencies:
        print("".join(_frequency_lines(found)), end="")
    print(f"written to {out}" if out is not None else "nothing written: --out names a file for the new version")


def _frequency_lines(found: "Calibrated") -> "Iterator[str]":
    yield f"\n{'':34} {'':6}   {'best label of':15}   {'mean score':15}\n"
    yield f"  {'label':32} {'prior':>6}   {'before':>6} {'after':>8}   {'before':>6} {'after':>8}\n"
    for label, each in found.frequencies.items():
        said = f"{each.before:6.3f} {each.after:8.3f}   {each.score_before:6.3f} {each.score_after:8.3f}"
        yield f"  {label:32} {each.prior:6.3f}   {said}\n"
    yield "\n"


def _figures(found: "Calibrated") -> dict[str, object]:
    import dataclasses

    return {
        "texts": found.texts,
        "temperature": found.temperature,
        "bias": dict(found.bias),
        "thresholds": dict(found.thresholds),
        "before": dataclasses.asdict(found.before) if found.before else None,
        "after": dataclasses.asdict(found.after) if found.after else None,
        "after_on_unseen_texts": found.is_cross_validated,
        "frequencies": {label: dataclasses.asdict(each) for label, each in found.frequencies.items()},
    }
