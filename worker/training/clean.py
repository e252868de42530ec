"""Which labels of a training file are probably wrong, by scores that no row had a hand in itself.

Confident learning (Northcutt et al. 2021), as Laurer et al. (2023) use it before training: a row is suspected where a
model that did not see it is as sure of another class as it usually is of that class's own texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.errors import ConfigError
from worker.training.data import Row
from worker.training.linear import Float64Array, Int64Array, cross_validated, standardised, word_features

FOLDS: Final = 5
PORTION_ROWS: Final = 10_000
"""More rows are scored in portions of about so many: their features are a third of a gigabyte."""
KEPT_OF_A_CLASS: Final = 10
"""No class is cut below so many rows."""
SURE: Final = 0.5
"""A row whose own label has at least this share stays."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row whose label is probably wrong."""

    row: int
    """Its number in what was read, from 0."""
    label: str
    suggested: str
    quality: float
    """The share of its own label, by a model that did not see it."""


@dataclass(frozen=True, slots=True)
class ClassNoise:
    """One class of the report."""

    label: str
    rows: int
    removed: int
    mean_quality: float


@dataclass(frozen=True, slots=True)
class NoiseReport:
    """What `find_noise` found."""

    suspects: tuple[Suspect, ...]
    """Worst first."""
    classes: tuple[ClassNoise, ...]
    accuracy: float
    """Of the cross-validated scores against the labels as they are: with a poor one, do not trust the rest."""
    majority: float

    def numbered(self, numbers: Sequence[int]) -> "NoiseReport":
        """The same, where row `n` of what was read is called `numbers[n]`."""
        return replace(self, suspects=tuple(replace(each, row=numbers[each.row]) for each in self.suspects))


def find_noise(rows: Sequence[Row], evidence: Float64Array | None = None, seed: int = 0) -> NoiseReport:
    """The suspects among `rows`. `evidence` are further features, float64 [rows, any], such as NLI logits.

    Raises:
        ConfigError: there are not two classes, or too few rows to hold a fifth back.
    """
    names = sorted({row.label for row in rows})
    if len(names) < 2 or len(rows) < 2 * FOLDS:  # noqa: PLR2004  # a class and another one
        raise ConfigError(f"expected at least two classes and {2 * FOLDS} rows, found {len(names)} and {len(rows)}")
    places = {name: place for place, name in enumerate(names)}
    labels = np.array([places[row.label] for row in rows], np.int64)
    shares = np.empty((len(rows), len(names)))
    order = np.random.default_rng(seed).permutation(len(rows))
    for portion in np.array_split(order, -(-len(rows) // PORTION_ROWS)):
        features = _features([rows[place].text for place in portion.tolist()], evidence, portion)
        shares[portion] = cross_validated(features, labels[portion], len(names), FOLDS, seed)
    quality = shares[np.arange(len(rows)), labels]
    removed = suspected(shares, labels)
    worst = removed[np.argsort(quality[removed], kind="stable")]
    others = shares.copy()
    others[np.arange(len(rows)), labels] = -1.0
    counts = np.bincount(labels, minlength=len(names))
    return NoiseReport(
        tuple(
            Suspect(row, rows[row].label, names[int(others[row].argmax())], float(quality[row]))
            for row in worst.tolist()
        ),
        tuple(
            ClassNoise(name, int(counts[place]), int((labels[removed] == place).sum()), _mean(quality[labels == place]))
            for name, place in places.items()
        ),
        float((shares.argmax(axis=1) == labels).mean()),
        float(counts.max() / len(rows)),
    )


def suspected(shares: Float64Array, labels: Int64Array) -> Int64Array:
    """The rows to remove, int64: of each class and each other class as many as the confident joint counts.

    Those leave first that prefer the other class most. Rows whose own label is likely stay, and so do the best rows of
    a class that would shrink too far.
    """
    classes = shares.shape[1]
    usual = np.array([shares[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(classes)])
    is_sure = np.asarray(shares >= usual)
    claimed = np.where(is_sure, shares, -1.0).argmax(axis=1)
    is_counted = np.asarray(is_sure.any(axis=1))
    marked: set[int] = set()
    for given in np.unique(labels).tolist():
        of_class = np.flatnonzero(labels == given)
        for other in range(classes):
            if other == given:
                continue
            count = int((is_counted[of_class] & (claimed[of_class] == other)).sum())
            lead = shares[of_class, other] - shares[of_class, given]
            marked |= set(of_class[np.argsort(-lead, kind="stable")[:count]].tolist())
    quality = shares[np.arange(len(labels)), labels]
    return _within_bounds(np.array(sorted(marked), np.int64), quality, labels)


def as_object(report: NoiseReport, texts: Mapping[int, str] | None = None) -> dict[str, object]:
    """The report as plain values for JSON; with the suspects' texts where they are given."""
    return {
        "accuracy": report.accuracy,
        "majority": report.majority,
        "classes": [
            {"label": each.label, "rows": each.rows, "removed": each.removed, "mean_quality": each.mean_quality}
            for each in report.classes
        ],
        "suspects": [
            {
                "row": each.row,
                "label": each.label,
                "suggested": each.suggested,
                "quality": each.quality,
                **({"text": texts[each.row]} if texts is not None else {}),
            }
            for each in report.suspects
        ],
    }


def _within_bounds(marked: Int64Array, quality: Float64Array, labels: Int64Array) -> Int64Array:
    doubtful = marked[quality[marked] < SURE]
    kept: list[int] = []
    for label in np.unique(labels[doubtful]).tolist():
        of_class = doubtful[labels[doubtful] == label]
        room = max(0, int((labels == label).sum()) - KEPT_OF_A_CLASS)
        kept += of_class[np.argsort(quality[of_class], kind="stable")[:room]].tolist()
    return np.array(sorted(kept), np.int64)


def _features(texts: Sequence[str], evidence: Float64Array | None, portion: Int64Array) -> Float64Array:
    words = word_features(texts)
    if evidence is None:
        return words
    scaled = standardised(evidence[portion], evidence)
    return np.hstack((words, scaled / np.sqrt(scaled.shape[1])))


def _mean(values: Float64Array) -> float:
    return float(values.mean()) if values.size else 0.0
