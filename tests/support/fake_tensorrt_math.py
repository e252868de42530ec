"""What the layers of a fake TensorRT network compute, in numpy, rounded to the types they are given."""

import itertools
import math
from typing import Any

import numpy as np

Array = Any
"""A numpy array; what indexes and products give is not typed more closely."""


def _erf(values: Array) -> Array:
    """The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26); numpy has none."""
    size = np.abs(values)
    part = 1 / (1 + 0.3275911 * size)
    powers = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
    total = sum(factor * part ** (index + 1) for index, factor in enumerate(powers))
    return np.sign(values) * (1 - total * np.exp(-size * size))


def rounded(values: Array, kind: str) -> Array:
    """Values as a tensor of this type holds them, in float32 or int32."""
    if kind == "INT32":
        return values.astype(np.int32)
    wide = values.astype(np.float32)
    if kind == "HALF":
        return wide.astype(np.float16).astype(np.float32)
    if kind == "BF16":
        bits = np.ascontiguousarray(wide).view(np.uint32)
        even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (even & np.uint32(0xFFFF0000)).view(np.float32)
    if kind == "FP8":
        limited = np.clip(wide, -448, 448)
        exponent = np.floor(np.log2(np.maximum(np.abs(limited), 2.0**-6)))
        step = 2.0 ** (exponent - 3)
        return (np.round(limited / step) * step).astype(np.float32)
    return wide


def activated(values: Array, kind: str) -> Array:
    """An activation by its name."""
    wide = values.astype(np.float64)
    if kind == "GELU_ERF":
        return 0.5 * wide * (1 + _erf(wide / math.sqrt(2)))
    if kind == "GELU_TANH":
        return 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
    if kind == "TANH":
        return np.tanh(wide)
    assert kind == "RELU", kind
    return np.maximum(wide, 0)


def normalised(values: Array, scale: Array, shift: Array, epsilon: float) -> Array:
    """LayerNorm over the last dimension."""
    mean = values.mean(axis=-1, keepdims=True)
    variance = ((values - mean) ** 2).mean(axis=-1, keepdims=True)
    return (values - mean) / np.sqrt(variance + epsilon) * scale + shift


def reshaped(
    values: Array, first: tuple[int, ...] | None, shape: tuple[int, ...], second: tuple[int, ...] | None
) -> Array:
    """Transposed, reshaped with 0 copying a dimension, transposed."""
    values = values if first is None else values.transpose(first)
    values = values.reshape([values.shape[index] if size == 0 else size for index, size in enumerate(shape)])
    return values if second is None else values.transpose(second)


def attended_padded(q: Array, k: Array, v: Array, lengths: Array) -> Array:
    """Attention over [pairs, heads, tokens, size], without a scale, to the first `lengths` keys of each pair."""
    scores = (q @ k.swapaxes(-1, -2)).astype(np.float32)
    dead = np.arange(k.shape[2])[None, :] >= lengths[:, None]
    scores[np.broadcast_to(dead[:, None, None, :], scores.shape)] = -np.inf
    return _softmax(scores) @ v


def attended_packed(q: Array, k: Array, v: Array, ends: Array) -> Array:
    """Attention over [tokens, heads, size] within each pair; what belongs to none is not a number."""
    mixed = np.full_like(q, np.nan)
    for start, end in itertools.pairwise(ends):
        rows = slice(int(start), int(end))
        parts = (each[rows].swapaxes(0, 1) for each in (q, k, v))
        one_q, one_k, one_v = parts
        mixed[rows] = (_softmax(one_q @ one_k.swapaxes(-1, -2)) @ one_v).swapaxes(0, 1)
    return mixed


def _softmax(scores: Array) -> Array:
    if not scores.size:
        return scores
    raised: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
