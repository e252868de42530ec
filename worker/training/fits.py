"""Corrections of scores, fitted: a temperature, a bias per label, thresholds."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_STEPS: Final = 300
_BIAS_PULL: Final = 0.01
"""Weight of the squared bias in the loss: with a handful of texts of a label the bias stays small."""
_TEMPERATURES: Final = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class Fit:
    """What corrects the scores."""

    temperature: float
    bias: Float64Array
    """float64 [labels], in the order of the schema's labels."""


def corrected(evidence: Float64Array, fit: Fit, *, is_multi: bool) -> Float64Array:
    """Scores of corrected evidence, float64 [texts, labels]: shares of 1, or in multi mode each by itself."""
    z = evidence / fit.temperature + fit.bias
    if is_multi:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """Which labels are decided among each other."""

    groups: tuple[tuple[int, ...], ...]
    """Siblings that share 1, as places of labels; what is in none is judged by itself."""

    @classmethod
    def flat(cls, labels: int, *, is_multi: bool) -> "Layout":
        """That of a schema without children."""
        return cls(() if is_multi else (tuple(range(labels)),))


def shares(evidence: Float64Array, fit: Fit, layout: Layout) -> Float64Array:
    """As `corrected`, each group by itself: what a label has among its siblings, float64 [texts, labels]."""
    scores = corrected(evidence, fit, is_multi=True)
    for group in map(list, layout.groups):
        scores[:, group] = corrected(evidence[:, group], Fit(fit.temperature, fit.bias[group]), is_multi=False)
    return scores


def fitted(evidence: Float64Array, truth: Float64Array, *, is_multi: bool) -> Fit:
    """Temperature and bias of least cross-entropy; `truth` is 0 or 1, float64 [texts, labels]."""
    everything = np.ones(evidence.shape, np.bool_)
    return fitted_levels(evidence, truth, everything, Layout.flat(evidence.shape[1], is_multi=is_multi))


def fitted_levels(evidence: Float64Array, truth: Float64Array, reached: BoolArray, layout: Layout) -> Fit:
    """As `fitted`, of the decisions that each text `reached`, bool [texts, labels]; the temperature is that of all.

    Found by Adam over the logarithm of 1 / temperature and the bias: the loss has one valley, so any way down does.
    """
    log_scale, bias = 0.0, np.zeros(evidence.shape[1])
    first, second = np.zeros(1 + len(bias)), np.zeros(1 + len(bias))
    low, high = (-np.log(bound) for bound in _TEMPERATURES[::-1])
    pull = 2.0 * _BIAS_PULL * reached.mean(axis=0)  # what few texts reach is pulled no harder for it
    for step in range(1, _STEPS + 1):
        scale = np.exp(log_scale)
        error = (shares(evidence, Fit(1.0 / scale, bias), layout) - truth) * reached
        slope = np.concatenate(([(error * evidence).sum() * scale], error.sum(axis=0))) / len(evidence)
        slope[1:] += pull * bias
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
        move *= 0.1 * (1.0 - step / (_STEPS + 1))
        log_scale = float(np.clip(log_scale - move[0], low, high))
        bias = bias - move[1:]
    for group in map(list, layout.groups):
        bias[group] -= bias[group].mean()  # a share does not change with what all have
    return Fit(float(np.exp(-log_scale)), bias)


def best_thresholds(scores: Float64Array, truth: Float64Array) -> Float64Array:
    """Of each label the threshold of best F1, halfway between two scores; 0.5 for one that no text has."""
    found = np.full(scores.shape[1], 0.5)
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        hits = np.cumsum(truth[order, label])
        if not hits[-1]:
            continue
        f1 = 2.0 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
        ranked = scores[order, label]
        f1[:-1][ranked[:-1] == ranked[1:]] = -1.0  # no threshold tells equal scores apart
        best = int(np.argmax(f1))
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        found[label] = np.clip((ranked[best] + below) / 2.0, 0.0, 1.0)
    return found
