"""From the logits of one stage to a score per label, each among its siblings or by itself.

The order of the arithmetic: template logits averaged, evidence z per label and window, windows aggregated,
z / temperature + bias, softmax over the siblings (single) or a sigmoid each (multi, and a set of one).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.labels.schema import LabelSchema
from worker.pipeline.planning import PairPlan, without_audit
from worker.types import Float32Array, NliHead

Float64Array = npt.NDArray[np.float64]

_LARGEST = 1e300
"""Calibrated evidence stays within this, so that the difference of two is still a number."""


@dataclass(frozen=True, slots=True)
class ModelView:
    """What a decision needs to know of the model: its head, and its digest (calibration is made for one model)."""

    head: NliHead
    digest: str


@dataclass(frozen=True, slots=True)
class ScoredStage:
    """One stage of a message, every pair scored."""

    plan: PairPlan
    logits: Float32Array
    """float32 [windows, hypotheses, classes], hypotheses in the order of the plan."""
    cached: frozenset[int] = frozenset()
    """Which of the pairs, windows by hypotheses, were known from before."""

    @property
    def pairs(self) -> int:
        """What it cost."""
        return int(self.logits.shape[0] * self.logits.shape[1])


@dataclass(frozen=True, slots=True)
class StageScores:
    """What a stage says of its labels."""

    scores: Float64Array
    """float64 [labels], in the order of the plan's nodes: shares of 1, or each by itself."""
    template_spread: float | None
    """Largest difference, over labels, between the scores that single templates would give; None with one."""


def is_calibrated(schema: LabelSchema, model: ModelView) -> bool:
    """Whether the schema corrects the scores of this very model."""
    return schema.calibration is not None and schema.calibration.model == model.digest


def published(stage: ScoredStage) -> ScoredStage:
    """`stage` without the labels that were scored beside its shortlist: what the decision is made of."""
    if stage.plan.audited is None:
        return stage
    plan = without_audit(stage.plan)
    places = {hypothesis: place for place, hypothesis in enumerate(stage.plan.hypotheses)}
    kept = [places[hypothesis] for hypothesis in plan.hypotheses]
    whole = stage.logits.shape[1]
    pairs = (window * whole + place for window in range(stage.logits.shape[0]) for place in kept)
    cached = frozenset(number for number, pair in enumerate(pairs) if pair in stage.cached)
    return ScoredStage(plan, stage.logits[:, kept], cached)


def stage_scores(stage: ScoredStage, model: ModelView) -> StageScores:
    """The scores of the labels of `stage` among themselves."""
    schema = stage.plan.schema
    # With one label a softmax over the labels would always be 1: it is judged against its contradiction instead.
    independent = schema.multi_label or len(stage.plan.nodes) == 1
    by_template = _evidence(stage, model.head, contrasted=independent)  # [windows, labels, templates]
    is_mean = schema.long_text is not None and schema.long_text.aggregate == "mean"

    def scores(of_windows: Float64Array) -> Float64Array:
        z = np.asarray(of_windows.mean(axis=0) if is_mean else of_windows.max(axis=0))
        return _normalised(_calibrated(z, stage.plan, model), independent=independent)

    spread = None
    if by_template.shape[2] > 1:
        each = np.stack([scores(by_template[:, :, template]) for template in range(by_template.shape[2])])
        spread = float((each.max(axis=0) - each.min(axis=0)).max())
    return StageScores(scores(by_template.mean(axis=2)), spread)


@dataclass(frozen=True, slots=True)
class ManyScores:
    """What one stage says of its labels for many messages, as `StageScores` for one."""

    scores: Float64Array
    """float64 [messages, labels]."""
    template_spreads: Float64Array | None
    """float64 [messages]."""


def scores_of_all(plan: PairPlan, logits: Float32Array, model: ModelView) -> ManyScores:
    """What `stage_scores` says of each message scored under `plan`: logits [messages, windows, hypotheses, classes]."""
    schema = plan.schema
    independent = schema.multi_label or len(plan.nodes) == 1
    messages, windows, hypotheses, classes = logits.shape
    alone = ScoredStage(plan, logits.reshape(messages * windows, hypotheses, classes))
    by_template = _evidence(alone, model.head, contrasted=independent).reshape(messages, windows, len(plan.nodes), -1)
    is_mean = schema.long_text is not None and schema.long_text.aggregate == "mean"

    def scores(of_windows: Float64Array) -> Float64Array:
        z = np.asarray(of_windows.mean(axis=1) if is_mean else of_windows.max(axis=1))
        return _normalised(_calibrated(z, plan, model), independent=independent)

    spreads = None
    if by_template.shape[3] > 1:
        each = np.stack([scores(by_template[..., template]) for template in range(by_template.shape[3])])
        spreads = np.asarray((each.max(axis=0) - each.min(axis=0)).max(axis=1))
    return ManyScores(scores(by_template.mean(axis=3)), spreads)


def _evidence(stage: ScoredStage, head: NliHead, *, contrasted: bool) -> Float64Array:
    """The support of each label by each template: e in single mode, e - c in multi mode, e(h) - e(negative)."""
    entailment = stage.logits[:, :, head.entailment].astype(np.float64)
    contradiction = stage.logits[:, :, head.contradiction].astype(np.float64)
    labels = stage.plan.labels
    templates = max(len(pairs.positive) for pairs in labels)
    # A whole hypothesis is the same under every template.
    positive = np.array([pairs.positive if len(pairs.positive) > 1 else pairs.positive * templates for pairs in labels])
    z = entailment[:, positive]
    against = contradiction[:, positive] if contrasted else np.zeros_like(z)
    for row, pairs in enumerate(labels):
        if pairs.negative is not None:
            against[:, row, :] = entailment[:, pairs.negative, np.newaxis]
    return np.asarray(z - against)


def _calibrated(z: Float64Array, plan: PairPlan, model: ModelView) -> Float64Array:
    calibration = plan.schema.calibration
    if calibration is None or not is_calibrated(plan.schema, model):
        return z
    names = (plan.schema.tree.nodes[node].label.name for node in plan.nodes)
    bias = np.array([calibration.bias.get(name, 0.0) for name in names])
    with np.errstate(over="ignore"):  # a temperature may be anything above 0
        return np.asarray(np.clip(z / calibration.temperature + bias, -_LARGEST, _LARGEST))


def _normalised(z: Float64Array, *, independent: bool) -> Float64Array:
    if independent:
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))  # the sigmoid, without overflow
    exponents = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
