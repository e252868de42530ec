"""What a few labelled texts per class buy: the curve of methods that train nothing, or a logistic layer at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.errors import ConfigError, SchemaError
from worker.labels.schema import LabelSchema
from worker.training.data import Row
from worker.training.fits import corrected, fitted
from worker.training.linear import Float64Array, Int64Array, fit_logistic, nearest_examples, standardised
from worker.training.metrics import accuracy, confusion, macro_f1

NEAREST: Final = 5
TEST_SHARE: Final = 5
"""One text of so many is held back where no test file is given."""
ZERO_SHOT: Final = "zero-shot"
CALIBRATED: Final = "calibrated"
LOGISTIC: Final = "logistic"
NEAREST_EXAMPLES: Final = "nearest"
FINETUNED: Final = "fine-tuned"
EXPORTED: Final = "exported"
"""The fine-tuned model as a worker runs it: with 8-bit weights, where those pass the gate."""


@dataclass(frozen=True, slots=True)
class Point:
    """One method with so many texts of each class."""

    method: str
    k: int
    """Texts per class; 0 for zero-shot."""
    texts: int
    macro_f1: float
    accuracy: float


def checked(schema: LabelSchema, rows: Sequence[Row]) -> None:
    """Nothing, where every row has a label of the schema, and the schema decides for one label in one step.

    Raises:
        SchemaError: otherwise.
    """
    if schema.multi_label or not schema.tree.is_flat:
        raise SchemaError(f"{schema.reference}: expected a schema without `multi_label` and without `children`")
    for number, row in enumerate(rows, start=1):
        if row.label not in schema.label_names:
            raise SchemaError(f"example {number}: its label is none of the schema's")


def split(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to learn from, and a fifth of each class held back to measure on, but not its only row.

    A text that comes several times is taken once: nothing is measured on what was learnt.
    """
    rows = list({row.text: row for row in reversed(rows)}.values())[::-1]
    draw = np.random.default_rng(seed)
    back: set[int] = set()
    for label in sorted({row.label for row in rows}):
        places = [place for place, row in enumerate(rows) if row.label == label]
        held = min(max(1, len(places) // TEST_SHARE), len(places) - 1)
        back |= {places[i] for i in draw.permutation(len(places))[:held]}
    learnt = [row for place, row in enumerate(rows) if place not in back]
    return learnt, [row for place, row in enumerate(rows) if place in back]


def apart(rows: Sequence[Row], test: Sequence[Row]) -> list[Row]:
    """`rows` without the texts of `test`, each text once."""
    texts = {row.text for row in test}
    return list({row.text: row for row in reversed(rows) if row.text not in texts}.values())[::-1]


def enough(learnt: Sequence[Row], back: Sequence[Row]) -> None:
    """Nothing, where there are two labels to tell apart and texts to measure on.

    Raises:
        ConfigError: otherwise.
    """
    if len({row.label for row in learnt}) < 2:  # noqa: PLR2004  # a label and another one
        raise ConfigError("--examples: expected texts of at least two labels, none of them also in --test")
    if not back:
        raise ConfigError("--examples: expected two texts of a label, one to measure on, or a file in --test")


def different(ks: Sequence[int], labels: Int64Array) -> list[int]:
    """Those of `ks` that take more rows than the one before: where no class has so many, the last would be the same."""
    most = int(np.bincount(labels).max())
    return [k for place, k in enumerate(ks) if place == 0 or ks[place - 1] < most]


def first_of_each(labels: Int64Array, k: int, seed: int) -> Int64Array:
    """At most `k` rows of each class, in ascending order; those of a smaller `k` are among those of a larger one."""
    draw = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in np.unique(labels).tolist():
        chosen += draw.permutation(np.flatnonzero(labels == label))[:k].tolist()
    return np.array(sorted(chosen), np.int64)


def point(method: str, k: int, texts: int, said: tuple[Int64Array, Int64Array], classes: int) -> Point:
    """The figures of predictions; `said` is the truth and what was predicted."""
    counts = confusion(*said, classes)
    return Point(method, k, texts, macro_f1(counts), accuracy(counts))


def cheap_points(
    examples: tuple[Float64Array, Int64Array], test: tuple[Float64Array, Int64Array], ks: Sequence[int], seed: int
) -> list[Point]:
    """The curve from evidence per label (float64 [texts, labels]) and labels, of examples and of the test."""
    evidence, labels = examples
    test_evidence, truth = test
    classes = evidence.shape[1]
    points = [point(ZERO_SHOT, 0, 0, (truth, test_evidence.argmax(axis=1)), classes)]
    for k in ks:
        rows = first_of_each(labels, k, seed)
        few, few_labels = evidence[rows], labels[rows]
        fit = fitted(few, np.eye(classes)[few_labels], is_multi=False)
        scaled, scaled_test = standardised(few, few), standardised(test_evidence, few)
        said = {
            CALIBRATED: corrected(test_evidence, fit, is_multi=False).argmax(axis=1),
            LOGISTIC: fit_logistic(scaled, few_labels, classes, pull=0.1).shares(scaled_test).argmax(axis=1),
            NEAREST_EXAMPLES: nearest_examples(scaled_test, scaled, few_labels, min(NEAREST, len(rows))),
        }
        points += [point(method, k, len(rows), (truth, found), classes) for method, found in said.items()]
    return points
