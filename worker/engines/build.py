"""The gate: an engine is used once it agrees with the float32 model, and gives a pair the same logits in any batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.base import Engine
from worker.engines.golden import Golden, encode_pairs, join_batches
from worker.engines.layout import Int64Array
from worker.types import Batch, Float32Array

LOGIT_BOUNDS: Final = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
"""Largest difference of a logit from the float32 model's, by precision."""
BATCH_BOUNDS: Final = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2, "float8": 5e-2, "int8": 5e-2}
"""Largest difference of a logit between a pair alone and the same pair in any batch."""
_EXACT_UP_TO: Final = 10.0
"""Both bounds are meant for logits up to this size and grow with larger ones, as the steps between two numbers do."""
SURE_MARGIN: Final = 0.02
"""Float32 probability margin above which no engine may change the label, in whatever precision."""
_ALONE: Final = 16
"""How many golden pairs are also scored alone; all are scored in batches."""
_MIXED: Final = 6
"""How many short pairs share a batch with the longest one, and so are padded to its length."""


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gate measured; logit errors are absolute."""

    pairs: int
    largest_logit_error: float
    mean_logit_error: float
    label_flips: int
    """Pairs with another label than the float32 model's, among those it is sure of."""
    batch_dependence: float
    passed: bool
    reason: str
    """Why it did not pass; `""` where it did."""


def verify(engine: Engine, folder: ModelFolder, golden: Golden, *, has_8bit_weights: bool = False) -> GateReport:
    """How `engine` compares with `golden`, and with itself in other batches.

    Labels have to be the same wherever float32 is sure of its own; but with 8-bit weights, logits too have to be within
    the bound of the precision.
    """
    return verify_singles(engine, encode_pairs(folder, golden.pairs), golden.logits, has_8bit_weights=has_8bit_weights)


def verify_singles(
    engine: Engine, singles: Sequence[Batch], expected: Float32Array, *, has_8bit_weights: bool = False
) -> GateReport:
    """As `verify`, of batches of one pair each and the float32 model's logits of them."""
    logits = _in_sorted_batches(engine, singles)
    dependence = _batch_dependence(engine, singles, logits)
    precision = engine.info.stamp.precision
    report = judge(expected, logits, dependence, precision, has_8bit_weights=has_8bit_weights)
    return replace(report, pairs=len(singles))


def judge(
    expected: Float32Array, found: Float32Array, dependence: float, precision: str, *, has_8bit_weights: bool
) -> GateReport:
    """What is to be said of logits that are `found` where float32 says `expected`, and that depend on their batch."""
    errors = np.abs(found - expected)
    flips = _label_flips(expected, found)
    bound = np.inf if has_8bit_weights else bound_of(LOGIT_BOUNDS, precision, expected)
    reasons = _over("logits differ from float32", float(errors.max()), bound)
    if flips:
        reasons.append(f"{flips} of {len(found)} labels differ from float32")
    reasons += _over("logits differ between batches", dependence, bound_of(BATCH_BOUNDS, precision, expected))
    return GateReport(
        pairs=len(found),
        largest_logit_error=float(errors.max()),
        mean_logit_error=float(errors.mean()),
        label_flips=flips,
        batch_dependence=dependence,
        passed=not reasons,
        reason="; ".join(reasons),
    )


def bound_of(bounds: Mapping[str, float], precision: str, expected: Float32Array) -> float:
    """How far logits may be off in `precision` where float32 says `expected`; `bounds` are those above."""
    return bounds[precision] * max(1.0, float(np.abs(expected).max()) / _EXACT_UP_TO)


def _over(what: str, found: float, bound: float) -> list[str]:
    # Not `found > bound`: a NaN must fail.
    return [] if found <= bound else [f"{what} by {found:.2g}, more than {bound:g}"]


def _in_sorted_batches(engine: Engine, singles: Sequence[Batch]) -> Float32Array:
    """Logits of all pairs, scored in batches of like length and at most a quarter of the engine's budget."""
    budget = max(engine.info.max_pair_tokens, engine.info.token_budget // 4)
    order = sorted(range(len(singles)), key=lambda index: singles[index].token_ids.size)
    answers = _answers(singles)
    logits = np.empty((sum(single.asked for single in singles), engine.info.head.classes), dtype=np.float32)
    while order:
        count = 1
        while count < len(order) and (count + 1) * singles[order[count]].token_ids.size <= budget:
            count += 1
        rows, order = order[:count], order[count:]
        scored = engine.score(join_batches([singles[row] for row in rows])).logits
        logits[np.concatenate([answers[row] for row in rows])] = scored
    return logits


def _batch_dependence(engine: Engine, singles: Sequence[Batch], logits: Float32Array) -> float:
    """Largest change of a logit for pairs alone, and for short pairs padded to the longest, against `logits`."""
    order = sorted(range(len(singles)), key=lambda index: singles[index].token_ids.size)
    spread = [order[round(position)] for position in np.linspace(0, len(order) - 1, min(_ALONE, len(order)))]
    alone = np.concatenate([engine.score(singles[row]).logits for row in spread])
    mixed = [*order[:_MIXED:2], order[-1], *order[1:_MIXED:2]]
    padded = engine.score(join_batches([singles[row] for row in mixed])).logits
    answers = _answers(singles)
    of_spread, of_mixed = (logits[np.concatenate([answers[row] for row in rows])] for rows in (spread, mixed))
    return float(max(np.abs(alone - of_spread).max(), np.abs(padded - of_mixed).max()))


def _answers(singles: Sequence[Batch]) -> list[Int64Array]:
    """Which rows of all logits are those of each batch."""
    ends = np.cumsum([single.asked for single in singles])
    return [np.arange(end - single.asked, end) for single, end in zip(singles, ends.tolist(), strict=True)]


def _label_flips(expected: Float32Array, found: Float32Array) -> int:
    shifted = np.exp(expected.astype(np.float64) - expected.max(axis=1, keepdims=True))
    ranked = np.sort(shifted / shifted.sum(axis=1, keepdims=True), axis=1)
    is_sure = ranked[:, -1] - ranked[:, -2] > SURE_MARGIN
    return int((is_sure & (expected.argmax(axis=1) != found.argmax(axis=1))).sum())
