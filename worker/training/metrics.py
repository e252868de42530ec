"""How good predictions are: one formula a function, all over class numbers from 0."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
ECE_BINS = 15
"""Equal widths, as in Guo et al. 2017."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """One bin of confidence."""

    texts: int
    confidence: float
    """Mean of the top score."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies in 95 of 100 samples drawn again from the same texts."""

    low: float
    high: float


def confusion(truth: Int64Array, predicted: Int64Array, classes: int) -> Int64Array:
    """How often each class (row) was taken for each (column); int64 [classes, classes]."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(counts: Int64Array) -> float:
    """Share of right answers."""
    total = int(counts.sum())
    return float(np.trace(counts) / total) if total else 0.0


def macro_f1(counts: Int64Array) -> float:
    """Mean F1 over the classes that occur in truth or predictions, as scikit-learn's `average="macro"`."""
    hits = np.diag(counts).astype(np.float64)
    claims = counts.sum(axis=0) + counts.sum(axis=1)
    occurs = claims > 0
    return float((2.0 * hits[occurs] / claims[occurs]).mean()) if occurs.any() else 0.0


def balanced_accuracy(counts: Int64Array) -> float:
    """Mean recall over the classes that occur in the truth."""
    of_class = counts.sum(axis=1)
    occurs = of_class > 0
    return float((np.diag(counts)[occurs] / of_class[occurs]).mean()) if occurs.any() else 0.0


def reliability(confidence: Float64Array, is_right: npt.NDArray[np.bool_]) -> tuple[Reliability, ...]:
    """The bins of confidence from 0 to 1 that hold texts."""
    places = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    found = []
    for place in np.unique(places).tolist():
        inside = places == place
        found.append(Reliability(int(inside.sum()), float(confidence[inside].mean()), float(is_right[inside].mean())))
    return tuple(found)


def calibration_error(bins: tuple[Reliability, ...]) -> float:
    """The expected calibration error: mean gap of confidence and accuracy, weighted by texts."""
    total = sum(each.texts for each in bins)
    return sum(each.texts * abs(each.confidence - each.accuracy) for each in bins) / total if total else 0.0


def bootstrap(size: int, figure: Callable[[Int64Array], float], samples: int, seed: int) -> Interval:
    """The interval of `figure`, which is given the rows of each sample."""
    draw = np.random.default_rng(seed)
    values = [figure(draw.integers(size, size=size)) for _ in range(samples)] if size else [0.0]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))
