"""Step 9 for many messages at once: what `decision.decide` says of each, in a few passes over arrays.

Messages of one flat label schema of which every label was scored are decided together; any other by itself.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worker.labels.schema import LabelSchema
from worker.pipeline.decision import decide
from worker.pipeline.evidence import Float64Array, ModelView, ScoredStage, is_calibrated, scores_of_all
from worker.types import LabelScore, PairCounts, Prediction, TokenSpan

FEWEST_TOGETHER = 3
"""Below this the arrays cost more than they save."""


class ScoredMessage(Protocol):
    """A message of which every pair has been scored."""

    @property
    def stages(self) -> tuple[ScoredStage, ...]:
        """At least one, in the order in which they were scored."""
        ...

    @property
    def text(self) -> TokenSpan:
        """How much of the text was seen."""
        ...


def decide_all(messages: Sequence[ScoredMessage], model: ModelView) -> list[Prediction | Exception]:
    """The prediction for each of `messages`, or what deciding about it raised."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, message in enumerate(messages):
        stages = message.stages
        # Where labels were chosen for a message, in a hierarchy or by a shortlist, it is a case of its own.
        plan = stages[0].plan
        is_alike = plan.nodes is plan.schema.tree.first and plan.schema.tree.is_flat and plan.audited is None
        key = (id(plan.schema), stages[0].logits.shape) if is_alike else (place,)
        groups.setdefault(key, []).append(place)
    outcomes: list[Prediction | Exception | None] = [None] * len(messages)
    for places in groups.values():
        for place, outcome in zip(places, _decided([messages[place] for place in places], model), strict=True):
            outcomes[place] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def _decided(alike: Sequence[ScoredMessage], model: ModelView) -> Sequence[Prediction | Exception]:
    if len(alike) >= FEWEST_TOGETHER:
        with suppress(Exception):  # one by one it shows which message it is
            return _together(alike, model)
    return [_alone(message, model) for message in alike]


def _alone(message: ScoredMessage, model: ModelView) -> Prediction | Exception:
    try:
        return decide(message.stages, message.text, model)
    except Exception as error:  # noqa: BLE001  the caller refuses this message and goes on
        return error


@dataclass(frozen=True, slots=True)
class _Ruled:
    """What a flat schema makes of the scores of its labels, for every message."""

    names: Sequence[str]
    thresholds: Sequence[float]
    schema: LabelSchema

    @classmethod
    def by(cls, schema: LabelSchema) -> "_Ruled":
        labels = [node.label for node in schema.tree.nodes]
        return cls([label.name for label in labels], [schema.threshold_of(label) or 0.0 for label in labels], schema)

    def winner(self, scores: Sequence[float], ranking: Sequence[int]) -> tuple[str | None, tuple[str, ...]]:
        """In single mode: the label, and what is selected."""
        best, abstain = ranking[0], self.schema.abstain
        fits = scores[best] >= self.thresholds[best]
        if fits and abstain is not None:
            fits = abstain.below is None or scores[best] >= abstain.below
            if abstain.margin is not None and len(ranking) > 1:
                fits = fits and scores[best] - scores[ranking[1]] >= abstain.margin
        if fits:
            return self.names[best], (self.names[best],)
        return (None if abstain is None else abstain.label), ()

    def over_threshold(self, scores: Sequence[float], ranking: Sequence[int]) -> list[int]:
        """In multi mode: what is selected, by falling score."""
        return [node for node in ranking if scores[node] >= self.thresholds[node]]


def _together(alike: Sequence[ScoredMessage], model: ModelView) -> list[Prediction]:
    plan = alike[0].stages[0].plan
    schema = plan.schema
    rows = scores_of_all(plan, np.stack([message.stages[0].logits for message in alike]), model)
    ruled, is_multi = _Ruled.by(schema), schema.multi_label
    mode, calibrated = "multi" if is_multi else "single", is_calibrated(schema, model)
    counts: dict[tuple[int, int], PairCounts] = {}
    cost, names, top_k = alike[0].stages[0].pairs, ruled.names, schema.top_k
    spreads = [None] * len(alike) if rows.template_spreads is None else rows.template_spreads.tolist()
    predictions = []
    for message, scores, ranking, spread in zip(
        alike, rows.scores.tolist(), _rankings(rows.scores), spreads, strict=True
    ):
        label, listed = None, ranking[:top_k]
        if is_multi:
            chosen = ruled.over_threshold(scores, ranking)
            selected = tuple([names[node] for node in chosen])
            # Both are beginnings of the ranking's order, but thresholds of labels differ: keep the order, take both.
            listed = ranking if top_k is None else [node for node in ranking if node in {*listed, *chosen}]
        else:
            label, selected = ruled.winner(scores, ranking)
        text, cached = message.text, len(message.stages[0].cached)
        pairs = counts.get((text.windows, cached))
        if pairs is None:
            pairs = PairCounts(cost - cached, cached, text.windows * schema.tree.pairs - cost)
            counts[text.windows, cached] = pairs
        listing = tuple([LabelScore(names[node], scores[node]) for node in listed])
        predictions.append(Prediction(mode, label, selected, listing, calibrated, text, pairs, spread))
    return predictions


def _rankings(scores: Float64Array) -> list[list[int]]:
    """The labels of each row by falling score; ties go to the label listed first."""
    return list(np.argsort(-scores, axis=1, kind="stable").tolist())
