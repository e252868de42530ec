"""What a shortlist of labels saves and what it costs, against scoring every label of the same set.

`python -m worker.bench.shortlist --data FOLDER_OF_TEST_SETS --set clinc150 --labels 150 --top-k 16 25 50`. A test set
is a file `<name>.test.jsonl.gz` of lines `{"text": …, "label": …}`; its classes are the labels. The texts go through
the path of `worker classify` in portions, each portion once whole and once per shortlist in turn, so that a machine
that slows down slows all of them.
"""

import argparse
import dataclasses
import gzip
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from worker.bench.agreement import DEFAULT_TEMPLATE, SUFFIX, TEMPLATES
from worker.bench.macro_f1 import Row, macro_f1
from worker.classifier import Classifier, ClassifierParts
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.errors import ConfigError
from worker.label_sets import pair_tokenizer
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import JsonValue, Prediction, Record

PORTION_TEXTS = 25
"""Texts between two turns: a batch's worth of pairs and more, also for a shortlist."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to draw and compare."""

    data: Path
    set_name: str
    labels: int
    """How many of the set's classes are the labels; texts are drawn from these classes."""
    top_k: tuple[int, ...]
    texts: int
    seed: int = 0
    model: str = "bundled"


@dataclass(frozen=True, slots=True)
class Found:
    """One shortlist against the full pass; shares and F1 lie in [0, 1]."""

    top_k: int
    speed_ratio: float
    """Median over the portions of (seconds of the full pass / seconds with the shortlist)."""
    same_top_label: float
    macro_f1_difference: float
    """With the shortlist, minus without."""
    pairs_per_text: float


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run."""

    set_name: str
    labels: int
    texts: int
    engine: str
    precision: str
    texts_per_second: float
    """Of the full pass."""
    macro_f1: float
    """Of the full pass."""
    shortlists: tuple[Found, ...]


class Contest:
    """One model under several schemas of the same labels."""

    def __init__(self, model: LoadedModel, schemas: Sequence[LabelSchema]) -> None:
        self._model = model
        self._tokenizer: PairTokenizer = pair_tokenizer(model)
        self._schemas = schemas
        for schema in schemas:
            self._tokenizer.prepare(schema)

    def run(self, rows: Sequence[Row]) -> list[list[tuple[list[Prediction], float]]]:
        """By portion and schema: predictions and the seconds they took."""
        portions = [rows[start : start + PORTION_TEXTS] for start in range(0, len(rows), PORTION_TEXTS)]
        self._timed(portions[0], self._schemas[-1])  # what is slow the first time is no part of the comparison
        return [[self._timed(portion, schema) for schema in self._schemas] for portion in portions]

    def _timed(self, rows: Sequence[Row], schema: LabelSchema) -> tuple[list[Prediction], float]:
        limits = Limits()
        parts = ClassifierParts(
            decode=lambda record: decode(record, InputFields(), limits),
            resolve=lambda _: schema,
            tokenizer=self._tokenizer,
            engine=self._model.engine,
            max_pairs=limits.pairs,
        )
        records = [
            Record("bench", 0, offset, 1, None, json.dumps({"text": row.text}).encode())
            for offset, row in enumerate(rows)
        ]
        started = time.perf_counter()
        outcomes = [answer.outcome for answer in Classifier(parts).answers(records)]
        seconds = time.perf_counter() - started
        return [outcome for outcome in outcomes if isinstance(outcome, Prediction)], seconds


def draw(options: Options) -> tuple[list[str], list[Row]]:
    """The labels, and texts of their classes; the same for the same seed.

    Raises:
        ConfigError: there is no such set, or it has other lines.
    """
    file = options.data / f"{options.set_name}{SUFFIX}"
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            rows = [Row(each["text"], each["label"]) for each in map(json.loads, stream)]
    except (OSError, EOFError) as error:
        raise ConfigError(f"--data, --set: {file}: there is no readable test set of that name") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--set: {file}: expected lines of JSON objects with `text` and `label`") from error
    dice = random.Random(options.seed)  # noqa: S311  a draw that can be repeated
    classes = sorted({row.label for row in rows})
    chosen = sorted(dice.sample(classes, min(options.labels, len(classes))))
    kept = [row for row in rows if row.label in set(chosen)]
    return chosen, dice.sample(kept, min(options.texts, len(kept)))


def schema_of(set_name: str, labels: Sequence[str], top_k: int | None) -> LabelSchema:
    """The labels as a schema, each put in plain words."""
    return parse_schema(schema_document(set_name, labels, top_k), "bench")


def schema_document(set_name: str, labels: Sequence[str], top_k: int | None) -> dict[str, JsonValue]:
    """The document of `schema_of`."""
    template = next((template for part, template in TEMPLATES.items() if part in set_name), DEFAULT_TEMPLATE)
    each: list[JsonValue] = [{"name": label, "description": label.replace("_", " ")} for label in labels]
    document: dict[str, JsonValue] = {"name": "bench", "version": 1, "labels": each}
    document["hypothesis_templates"] = [template]
    if top_k is not None:
        document["shortlist"] = {"top_k": top_k}
    return document


def measure(options: Options) -> Report:
    """Run the comparison. Blocks for a minute or more."""
    labels, rows = draw(options)
    with _opened(options.model) as model:
        schemas = [schema_of(options.set_name, labels, top_k) for top_k in (None, *options.top_k)]
        portions = Contest(model, schemas).run(rows)
        stamp = model.engine.info.stamp
    truth = [row.label for row in rows]
    whole = [prediction.label for portion in portions for prediction in portion[0][0]]
    full_f1 = macro_f1(truth, whole)
    found = []
    for place, top_k in enumerate(options.top_k, start=1):
        made = [prediction for portion in portions for prediction in portion[place][0]]
        decided = [prediction.label for prediction in made]
        found.append(
            Found(
                top_k=top_k,
                speed_ratio=median(portion[0][1] / portion[place][1] for portion in portions),
                same_top_label=sum(a == b for a, b in zip(whole, decided, strict=True)) / len(rows),
                macro_f1_difference=macro_f1(truth, decided) - full_f1,
                pairs_per_text=sum(prediction.pairs.scored for prediction in made) / len(rows),
            )
        )
    seconds = sum(portion[0][1] for portion in portions)
    return Report(
        options.set_name,
        len(labels),
        len(rows),
        stamp.engine,
        stamp.precision,
        len(rows) / seconds,
        full_f1,
        tuple(found),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line and print it."""
    parser = argparse.ArgumentParser(prog="python -m worker.bench.shortlist", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of *{SUFFIX}")
    parser.add_argument("--set", default="clinc150", help="name of the test set (clinc150)")
    parser.add_argument("--labels", type=int, default=150, help="how many of its classes (150)")
    parser.add_argument("--top-k", type=int, nargs="+", default=[16, 25, 50])
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    asked = parser.parse_args(arguments)
    options = Options(asked.data, asked.set, asked.labels, tuple(asked.top_k), asked.texts, asked.seed, asked.model)
    report = measure(options)
    lines = [json.dumps(dataclasses.asdict(report))] if asked.json else _lines(report)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _lines(report: Report) -> list[str]:
    what = f"{report.set_name}: {report.texts} texts, {report.labels} labels, {report.engine} {report.precision}"
    return [
        f"{what}; full pass {report.texts_per_second:.2f} texts/s, macro-F1 {100 * report.macro_f1:.1f}",
        "top_k  speed ratio  same top label  macro-F1 difference",
        *(
            f"{each.top_k:5}  {each.speed_ratio:11.2f}  {100 * each.same_top_label:12.1f} %"
            f"  {100 * each.macro_f1_difference:+12.1f} points"
            for each in report.shortlists
        ),
    ]


@contextmanager
def _opened(name: str) -> Iterator[LoadedModel]:
    model = load_engine(EngineChoice(name))
    try:
        model.engine.warm_up()
        yield model
    finally:
        model.engine.close()


if __name__ == "__main__":
    raise SystemExit(main())
