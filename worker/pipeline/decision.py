"""Step 9: from scores to labels, and what to score next in order to decide.

A label's score is that among its siblings; in a hierarchy it is the product along its path. In single mode a decision
goes down from the root to the best child of each level, as long as that one is likely enough; what lies below any other
label is never scored. With one template, no calibration and no hierarchy the scores are those of the Hugging Face
zero-shot classification pipeline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.labels.parts import DEFAULT_OPEN_ABOVE
from worker.labels.schema import LabelSchema
from worker.pipeline.evidence import Float64Array, ModelView, ScoredStage, is_calibrated, published, stage_scores
from worker.pipeline.planning import PairPlan, plan_below
from worker.types import LabelScore, PairCounts, Prediction, TokenSpan


def decide(stages: Sequence[ScoredStage], text: TokenSpan, model: ModelView) -> Prediction:
    """The prediction for one message from all its stages, the first one first."""
    schema = stages[0].plan.schema
    stages = [published(stage) for stage in stages]
    scored = [stage_scores(stage, model) for stage in stages]
    spreads = [stage.template_spread for stage in scored if stage.template_spread is not None]
    if schema.multi_label:
        scores: Mapping[int, float] = _products(stages[0].plan, scored[0].scores)
        label, selected = None, _over_threshold(schema, scores)
    else:
        descent = _descend(stages, [stage.scores for stage in scored])
        scores = descent.scores
        label, selected = _winner(schema, descent)
    ranking = sorted(scores, key=lambda node: (-scores[node], node))  # ties go to the label listed first
    cost = sum(stage.pairs for stage in stages)
    cached = sum(len(stage.cached) for stage in stages)
    return Prediction(
        mode="multi" if schema.multi_label else "single",
        label=label,
        selected=tuple(_name(schema, node) for node in ranking if node in selected),
        scores=tuple(
            LabelScore(_name(schema, node), scores[node], _path(schema, node, selected))
            for node in _listed(ranking, selected, schema.top_k)
        ),
        calibrated=is_calibrated(schema, model),
        text=text,
        pairs=PairCounts(cost - cached, cached, text.windows * schema.tree.pairs - cost),
        template_spread=max(spreads, default=None),
    )


def next_stage(stages: Sequence[ScoredStage], model: ModelView) -> PairPlan | None:
    """The pairs to score after `stages`; None where all is known that the decision needs."""
    stages = [published(stage) for stage in stages]
    plan = stages[-1].plan
    if not plan.schema.tree.is_staged:
        return None
    descent = _descend(stages, [stage_scores(stage, model).scores for stage in stages])
    if descent.reached is None or descent.reached not in plan.nodes:
        return None
    return plan_below(plan, descent.reached)


def audit(stages: Sequence[ScoredStage], model: ModelView) -> tuple[bool, ...]:
    """Of each stage that was scored whole beside its shortlist: whether the best of all labels is in it."""
    audited = ((stage, stage.plan.audited) for stage in stages)
    return tuple(
        stage.plan.nodes[int(np.argmax(stage_scores(stage, model).scores))] in nodes
        for stage, nodes in audited
        if nodes is not None
    )


@dataclass(frozen=True, slots=True)
class _Descent:
    """How far down the best of each level led."""

    scores: Mapping[int, float]
    """Of every label that was scored, the product along its path."""
    reached: int | None
    """The last label that was likely enough; None where not even a root was."""
    margin: float | None
    """By how much it leads its siblings; None for an only child."""


def _descend(stages: Sequence[ScoredStage], conditional: Sequence[Float64Array]) -> _Descent:
    schema = stages[0].plan.schema
    scores: dict[int, float] = {}
    reached: int | None = None
    margin: float | None = None
    product = 1.0
    for stage, shares in zip(stages, conditional, strict=True):
        nodes = stage.plan.nodes
        scores |= {node: product * float(share) for node, share in zip(nodes, shares, strict=True)}
        best = int(np.argmax(shares))  # the first of equals
        if not _opens(schema, float(shares[best])) or scores[nodes[best]] < _threshold(schema, nodes[best]):
            break
        reached = nodes[best]
        product = scores[reached]
        margin = float(shares[best] - np.delete(shares, best).max()) if len(nodes) > 1 else None
    return _Descent(scores, reached, margin)


def _opens(schema: LabelSchema, share: float) -> bool:
    if schema.tree.is_flat:
        return True  # the best label wins, however low
    return share >= (schema.hierarchy.open_above if schema.hierarchy is not None else DEFAULT_OPEN_ABOVE)


def _products(plan: PairPlan, alone: Float64Array) -> dict[int, float]:
    scores: dict[int, float] = {}
    for node, score in zip(plan.nodes, alone.tolist(), strict=True):
        parent = plan.schema.tree.nodes[node].parent
        scores[node] = score if parent is None else scores[parent] * score
    return scores


def _over_threshold(schema: LabelSchema, scores: Mapping[int, float]) -> set[int]:
    """Every label over its threshold, and what it stands below."""
    selected: set[int] = set()
    for node, score in scores.items():
        step: int | None = node if score >= _threshold(schema, node) else None
        while step is not None and step not in selected:
            selected.add(step)
            step = schema.tree.nodes[step].parent
    return selected


def _winner(schema: LabelSchema, descent: _Descent) -> tuple[str | None, set[int]]:
    abstain, reached = schema.abstain, descent.reached
    fits = reached is not None
    if abstain is not None and reached is not None:
        fits = abstain.below is None or descent.scores[reached] >= abstain.below
        if abstain.margin is not None and descent.margin is not None:
            fits = fits and descent.margin >= abstain.margin
    if fits and reached is not None:
        return _name(schema, reached), {reached}
    return (abstain.label if abstain is not None else None), set()


def _threshold(schema: LabelSchema, node: int) -> float:
    threshold = schema.threshold_of(schema.tree.nodes[node].label)
    return 0.0 if threshold is None else threshold


def _name(schema: LabelSchema, node: int) -> str:
    return schema.tree.nodes[node].label.name


def _path(schema: LabelSchema, node: int, selected: set[int]) -> tuple[str, ...] | None:
    return schema.tree.path(node) if node in selected and not schema.tree.is_flat else None


def _listed(ranking: list[int], selected: set[int], top_k: int | None) -> list[int]:
    kept = selected | set(ranking[:top_k])
    return [node for node in ranking if node in kept]
