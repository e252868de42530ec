"""A logistic layer: the smallest thing that learns from labelled texts, in numpy."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
WORD_FEATURES: Final = 4096
_WORD: Final = re.compile(r"\w+")
_MOST_ROUNDS: Final = 500
_ENOUGH: Final = 1e-4
"""Largest entry of the slope at which the fit has come to rest."""


@dataclass(frozen=True, slots=True)
class LogisticLayer:
    """Shares of classes from features."""

    weights: Float64Array
    """float64 [features, classes]."""
    bias: Float64Array

    def shares(self, features: Float64Array) -> Float64Array:
        """float64 [rows, classes], each row sums to 1."""
        logits = features @ self.weights + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_logistic(features: Float64Array, labels: Int64Array, classes: int, pull: float = 1e-3) -> LogisticLayer:
    """The layer of least cross-entropy; `pull` weighs the squared weights. By accelerated descent (Nesterov 1983)."""
    rows = len(features)
    wide = np.hstack((features, np.ones((rows, 1))))
    truth = np.eye(classes)[labels]
    decay = np.full((wide.shape[1], 1), pull)
    decay[-1] = 0.0
    step = 1.0 / (0.5 * _largest_eigenvalue(wide) / rows + pull)
    weights = ahead = np.zeros((wide.shape[1], classes))
    for number in range(_MOST_ROUNDS):
        logits = wide @ ahead
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        slope = wide.T @ (powers / powers.sum(axis=1, keepdims=True) - truth) / rows + decay * ahead
        if np.abs(slope).max() < _ENOUGH:
            break
        after = ahead - step * slope
        ahead = after + number / (number + 3) * (after - weights)
        weights = after
    return LogisticLayer(weights[:-1], weights[-1])


def cross_validated(features: Float64Array, labels: Int64Array, classes: int, folds: int, seed: int) -> Float64Array:
    """Shares of every row by a layer that did not see it, float64 [rows, classes]; folds keep the shares of classes."""
    draw = np.random.default_rng(seed)
    places = np.empty(len(labels), np.int64)
    for label in np.unique(labels).tolist():
        rows = draw.permutation(np.flatnonzero(labels == label))
        places[rows] = (np.arange(len(rows)) + int(draw.integers(folds))) % folds
    shares = np.empty((len(labels), classes))
    for fold in range(folds):
        inside = places == fold
        if inside.any():
            shares[inside] = fit_logistic(features[~inside], labels[~inside], classes).shares(features[inside])
    return shares


def word_features(texts: Sequence[str]) -> Float64Array:
    """Words and pairs of words, hashed and weighed by rarity (tf-idf), each row of length 1; float64 [texts, 4096]."""
    counts = np.zeros((len(texts), WORD_FEATURES))
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        for term in (*words, *map(" ".join, pairwise(words))):
            # Python's own hash differs from process to process.
            counts[row, zlib.crc32(term.encode()) % WORD_FEATURES] += 1.0
    rarity = np.log((1.0 + len(texts)) / (1.0 + (counts > 0).sum(axis=0))) + 1.0
    weighted = np.log1p(counts) * rarity
    return np.asarray(weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12))


def standardised(features: Float64Array, like: Float64Array) -> Float64Array:
    """`features` with the mean and the spread of `like` taken out."""
    return np.asarray((features - like.mean(axis=0)) / np.maximum(like.std(axis=0), 1e-6))


def nearest_examples(features: Float64Array, examples: Float64Array, labels: Int64Array, nearest: int) -> Int64Array:
    """The class that most of the nearest examples have, by cosine; nearer ones weigh more. int64 [rows]."""
    here, there = (
        each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in (features, examples)
    )
    likeness = here @ there.T
    votes = np.zeros((len(features), int(labels.max()) + 1))
    for row, places in enumerate(np.argsort(-likeness, axis=1, kind="stable")[:, :nearest]):
        np.add.at(votes[row], labels[places], 1.0 + likeness[row, places])
    return np.asarray(votes.argmax(axis=1))


def _largest_eigenvalue(features: Float64Array) -> float:
    """Of X'X, by power iteration, a little above the truth."""
    vector = np.ones(features.shape[1]) / np.sqrt(features.shape[1])
    value = 1.0
    for _ in range(30):
        product = features.T @ (features @ vector)
        value = float(np.linalg.norm(product)) or 1.0
        vector = product / value
    return 1.1 * value
