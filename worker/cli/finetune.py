"""`worker finetune`: what a few labelled texts per class buy, and a model that learnt from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from worker.cli.options import made_folder

if TYPE_CHECKING:
    from worker.engines.load import EngineChoice
    from worker.labels.schema import LabelSchema
    from worker.training.adapt import Adaptation
    from worker.training.data import Row
    from worker.training.exported import Exported
    from worker.training.fewshot import Point
    from worker.training.linear import Float64Array, Int64Array
    from worker.training.scoring import Scorer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("finetune")(finetune)


def finetune(
    schema: Path = typer.Option(..., help="A label schema, YAML or JSON."),
    examples: Path = typer.Option(..., help="Texts with labels: .jsonl, .csv or .parquet; text and label."),
    test: Path | None = typer.Option(None, help="As --examples, to measure on; without it a fifth is held back."),
    k: str = typer.Option("8,16,64,500", help="Texts per class, one point of the curve each."),
    base: str | None = typer.Option(None, help="Fine-tune this folder or id@commit; without it nothing is trained."),
    out: Path | None = typer.Option(None, help="With --base: a folder for the models, one for each k."),
    model: str | None = typer.Option(None, help="Whose scores the cheap methods use; --base, or the bundled one."),
    max_pair_tokens: int = typer.Option(256, min=16, help="Longer texts are cut."),
    learning_rate: float = typer.Option(5e-5, min=0.0, help="The highest, of AdamW."),
    seed: int = typer.Option(42, min=0, help="Of every draw."),
    device: str = typer.Option("auto", help="auto | cpu | cuda"),
    threads: int | None = typer.Option(None, min=1, help="CPU threads; without it every core it may use."),
    engine: str = typer.Option("auto", help="Of the cheap methods: auto | openvino | pytorch"),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """The few-shot curve: zero-shot, calibrated, a logistic layer and nearest examples on NLI scores, fine-tuned.

    With --base and --out the model of the largest k is a folder that a worker can be started with, past its gate.
    """
    from worker.cli.texts import label_schema_from
    from worker.engines.load import EngineChoice
    from worker.errors import ConfigError
    from worker.observability.logging import configure_logging
    from worker.training.adapt import Adaptation
    from worker.training.bases import base_folder, base_name
    from worker.training.fewshot import cheap_points, checked, different, enough
    from worker.training.place import chosen_place
    from worker.training.weights import need_torch

    configure_logging("warning")
    if (base is None) != (out is None):
        raise ConfigError("expected --base together with --out")
    labels = label_schema_from(None, schema, None, multi_label=False)
    rows = _rows(examples)
    checked(labels, rows)
    asked = _counts(k)
    learnt, back = _apart(rows, test, seed)
    checked(labels, back)
    enough(learnt, back)
    if out is not None:
        chosen_place(need_torch(), device, "auto")
        made_folder("--out", out)
    with _scorer(EngineChoice(model or base or "bundled", engine), max_pair_tokens) as scorer:
        known, unknown = (_evidence(scorer, labels, each) for each in (learnt, back))
    ks = different(asked, known[1])
    points = cheap_points(known, unknown, ks, seed)
    exported = None
    if base is not None and out is not None:
        command = f"worker finetune --schema {schema.name} --examples {examples.name} --base BASE --out OUT --k {k}"
        folder = base_folder(base)
        wanted = Adaptation(
            folder,
            labels,
            max_pair_tokens,
            learning_rate,
            seed,
            device,
            threads=threads,
            command=command,
            base_name=base_name(base, folder),
        )
        more, exported = _finetuned(wanted, (learnt, back), ks, out)
        points += more
    left_out = len(rows) - len(learnt) - (len(back) if test is None else 0)
    _print(points, exported, (len(back), left_out), as_json=as_json)


@contextmanager
def _scorer(choice: "EngineChoice", max_pair_tokens: int) -> "Iterator[Scorer]":
    from worker.clock import SystemClock
    from worker.engines.load import load_engine
    from worker.training.scoring import Meter, Scorer

    loaded = load_engine(choice)
    try:
        yield Scorer(loaded, Meter(SystemClock()), max_pair_tokens)
    finally:
        loaded.engine.close()


def _apart(rows: "list[Row]", test: Path | None, seed: int) -> "tuple[list[Row], list[Row]]":
    """What is learnt from, and what is measured on: no text is in both."""
    from worker.training.fewshot import apart, split

    if test is None:
        return split(rows, seed)
    back = _rows(test)
    return apart(rows, back), back


def _rows(file: Path) -> "list[Row]":
    from worker.errors import ConfigError
    from worker.training.data import Hints, read_rows
    from worker.training.sets import ClassificationSet, Licence

    table = ClassificationSet(name="examples", cluster="examples", licence=Licence(name="-"))
    rows = list(read_rows(file, table, Hints(columns="expected the columns text and label")))
    if not rows:
        raise ConfigError(f"{file}: expected rows with a text and a label")
    return rows


def _counts(k: str) -> list[int]:
    from worker.errors import ConfigError

    parts = [part.strip() for part in k.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--k {k}: expected numbers with commas between them, as in 8,16,64")
    return sorted({int(part) for part in parts})


def _evidence(scorer: "Scorer", schema: "LabelSchema", rows: "Sequence[Row]") -> "tuple[Float64Array, Int64Array]":
    import numpy as np

    from worker.training.levels import label_evidence

    names = [node.label.name for node in schema.tree.nodes]
    truth = np.array([names.index(row.label) for row in rows], np.int64)
    return label_evidence(scorer, schema, [row.text for row in rows]), truth


def _finetuned(
    wanted: "Adaptation", rows: "tuple[Sequence[Row], Sequence[Row]]", ks: Sequence[int], out: Path
) -> "tuple[list[Point], Exported]":
    """One model for each `k` that the examples allow, its figures, and the form of the last one that a worker runs.

    That form has figures of its own: its weights are others.
    """
    import numpy as np

    from worker.cli.training_text import Bar
    from worker.clock import SystemClock
    from worker.engines.load import EngineChoice
    from worker.training.adapt import adapt
    from worker.training.exported import export_bundled
    from worker.training.fewshot import EXPORTED, FINETUNED, first_of_each, point

    learnt, back = rows
    names = [node.label.name for node in wanted.schema.tree.nodes]
    labels = np.array([names.index(row.label) for row in learnt], np.int64)

    def measured(method: str, k: int, texts: int, choice: EngineChoice) -> "Point":
        with _scorer(choice, wanted.max_pair_tokens) as scorer:
            evidence, truth = _evidence(scorer, wanted.schema, back)
        return point(method, k, texts, (truth, evidence.argmax(axis=1)), len(names))

    points: list[Point] = []
    folder = out
    with Bar() as bar:
        for k in ks:
            chosen = [learnt[place] for place in first_of_each(labels, k, wanted.seed).tolist()]
            folder = adapt(wanted, chosen, out / f"k{k}", SystemClock(), bar.stage(f"k = {k}"))
            points.append(measured(FINETUNED, k, len(chosen), EngineChoice(str(folder), "pytorch")))
    exported = export_bundled(folder, None)
    last = points[-1]
    points.append(measured(EXPORTED, last.k, last.texts, EngineChoice(str(exported.folder), "openvino")))
    return points, exported


def _print(points: "Sequence[Point]", exported: "Exported | None", counts: tuple[int, int], *, as_json: bool) -> None:
    """The curve, and what was made; `counts` are the texts measured on, and the examples that were left out."""
    import dataclasses
    import json

    from worker.cli.training_text import gate_text
    from worker.engines.artifact import open_folder

    texts, left_out = counts
    folder = open_folder(exported.folder) if exported is not None else None
    digest = folder.digest(folder.openvino_weights()) if folder is not None else None
    if as_json:
        made = {"model": str(exported.folder), "weights": exported.weights, "digest": digest} if exported else None
        curve = [dataclasses.asdict(each) for each in points]
        print(json.dumps({"texts": texts, "left_out": left_out, "points": curve, "made": made}))
        return
    print(f"measured on {texts} texts")
    if left_out:
        print(f"{left_out} examples left out: their texts come twice, or are measured on")
    print(f"{'method':12} {'k':>5} {'texts':>6} {'macro-F1':>9} {'accuracy':>9}")
    for each in points:
        print(f"{each.method:12} {each.k:5} {each.texts:6} {each.macro_f1:9.3f} {each.accuracy:9.3f}")
    if exported is not None:
        print(f"model: {exported.folder} ({exported.weights} weights, past its gate)")
        if exported.gate is not None:
            print(f"gate: {gate_text(exported.gate)}")
        print(f"requires_model: {digest}")
