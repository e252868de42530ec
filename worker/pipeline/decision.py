"""Step 9: from logits to labels.

The order of the arithmetic: template logits averaged, evidence z per label, z / temperature + bias, softmax over the
labels (single) or a sigmoid each (multi, and a set of one), thresholds, abstention, `top_k`. With one template and no
calibration the scores are those of the Hugging Face zero-shot classification pipeline.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.labels.schema import LabelSchema
from worker.pipeline.planning import LabelPairs, PairPlan
from worker.types import Float32Array, LabelScore, NliHead, PairCounts, Prediction, TokenSpan

Float64Array = npt.NDArray[np.float64]

_LARGEST = 1e300
"""Calibrated evidence stays within this, so that the difference of two is still a number."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """What a decision needs to know of the model: its head, and its digest (calibration is made for one model)."""

    head: NliHead
    digest: str


def decide(plan: PairPlan, logits: Float32Array, text: TokenSpan, model: ModelView) -> Prediction:
    """The prediction for one message from its pairs' logits, float32 [pairs, classes]."""
    schema = plan.schema
    evidence = _evidence(plan, logits, model.head)
    calibrated = schema.calibration is not None and schema.calibration.model == model.digest
    scores = _scores(evidence.mean, schema, calibrated=calibrated)
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i])  # stable: ties go to the label listed first
    if schema.multi_label:
        label, selected = None, [i for i in ranking if scores[i] >= _threshold(schema, i)]
    else:
        label, selected = _winner(schema, scores, ranking)
    return Prediction(
        mode="multi" if schema.multi_label else "single",
        label=label,
        selected=tuple(schema.labels[i].name for i in selected),
        scores=tuple(
            LabelScore(schema.labels[i].name, float(scores[i])) for i in _listed(ranking, selected, schema.top_k)
        ),
        calibrated=calibrated,
        text=text,
        pairs=PairCounts(scored=len(plan.hypotheses)),
        template_spread=_spread(evidence.templates, schema, calibrated=calibrated),
    )


@dataclass(frozen=True, slots=True)
class _Evidence:
    mean: Float64Array  # [labels]
    templates: Float64Array | None  # [templates, labels]; None with one template


def _evidence(plan: PairPlan, logits: Float32Array, head: NliHead) -> _Evidence:
    """The support of each label: e in single mode, e - c in multi mode, e(h) - e(negative) with a contrast."""
    entailment = logits[:, head.entailment].astype(np.float64)
    contradiction = logits[:, head.contradiction].astype(np.float64)
    contrasted = _is_independent(plan.schema)

    def of_label(pairs: LabelPairs) -> Float64Array:
        positive = list(pairs.positive)
        if pairs.negative is not None:
            return np.asarray(entailment[positive] - entailment[pairs.negative])
        return np.asarray(entailment[positive] - contradiction[positive] if contrasted else entailment[positive])

    each = [of_label(pairs) for pairs in plan.labels]
    templates = max(len(values) for values in each)
    mean = np.array([values.mean() for values in each])
    if templates == 1:
        return _Evidence(mean, None)
    return _Evidence(mean, np.stack([np.resize(values, templates) for values in each], axis=1))


def _is_independent(schema: LabelSchema) -> bool:
    # With one label a softmax over the labels would always be 1: it is judged against its contradiction instead.
    return schema.multi_label or len(schema.labels) == 1


def _scores(evidence: Float64Array, schema: LabelSchema, *, calibrated: bool) -> Float64Array:
    z = evidence
    if calibrated and schema.calibration is not None:
        bias = np.array([schema.calibration.bias.get(label.name, 0.0) for label in schema.labels])
        with np.errstate(over="ignore"):  # a temperature may be anything above 0
            z = np.clip(z / schema.calibration.temperature + bias, -_LARGEST, _LARGEST)
    if _is_independent(schema):
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))  # the sigmoid, without overflow
    exponents = np.exp(z - z.max())
    return np.asarray(exponents / exponents.sum())


def _threshold(schema: LabelSchema, index: int) -> float:
    threshold = schema.threshold_of(schema.labels[index])
    return 0.0 if threshold is None else threshold


def _winner(schema: LabelSchema, scores: Float64Array, ranking: list[int]) -> tuple[str | None, list[int]]:
    best = ranking[0]
    fits = scores[best] >= _threshold(schema, best)
    abstain = schema.abstain
    if abstain is not None:
        if abstain.below is not None:
            fits = fits and scores[best] >= abstain.below
        if abstain.margin is not None and len(ranking) > 1:
            fits = fits and scores[best] - scores[ranking[1]] >= abstain.margin
    if fits:
        return schema.labels[best].name, [best]
    return (abstain.label if abstain is not None else None), []


def _listed(ranking: list[int], selected: list[int], top_k: int | None) -> list[int]:
    if top_k is None:
        return ranking
    kept = set(ranking[:top_k]) | set(selected)
    return [i for i in ranking if i in kept]


def _spread(templates: Float64Array | None, schema: LabelSchema, *, calibrated: bool) -> float | None:
    if templates is None:
        return None
    each = np.stack([_scores(row, schema, calibrated=calibrated) for row in templates])
    return float((each.max(axis=0) - each.min(axis=0)).max())
