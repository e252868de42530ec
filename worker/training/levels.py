"""The decisions that labelled texts ask of a schema, level by level: what is fitted, and what is measured.

Of a hierarchy each decision is looked at on the texts that truly reach it: those of a label below it. A share among
siblings is then right, and so is the product along a path, which is what a prediction says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.errors import SchemaError
from worker.labels.schema import LabelSchema, parse_schema
from worker.labels.tree import LabelTree
from worker.pipeline.evidence import ModelView, stage_scores
from worker.training.fits import BoolArray, Fit, Float64Array, Layout, best_thresholds, fitted_levels, shares
from worker.training.metrics import calibration_error, reliability
from worker.training.scoring import Scorer
from worker.types import JsonValue

_EVEN = 0.5
_LEAST_SCORE = 1e-12


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the labels it has: one in single mode, any number in multi mode."""

    text: str
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class Quality:
    """How good scores are."""

    ece: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a model says of each label, and what is true; all [texts, labels], labels in the order of the tree."""

    schema: LabelSchema
    evidence: Float64Array
    truth: Float64Array
    """0 or 1; of a label that is true all above it are."""
    reached: BoolArray
    """Where a text truly comes to where the label is decided."""
    layout: Layout

    def rows(self, chosen: BoolArray) -> "Decisions":
        """Those of some of the texts."""
        return Decisions(self.schema, self.evidence[chosen], self.truth[chosen], self.reached[chosen], self.layout)

    def fit(self) -> Fit:
        """What corrects them best."""
        return fitted_levels(self.evidence, self.truth, self.reached, self.layout)

    def scores(self, fit: Fit) -> Float64Array:
        """What a label is given: its share among its siblings, and in multi mode the product along its path."""
        alone = shares(self.evidence, fit, self.layout)
        if self.schema.multi_label:
            for place, node in enumerate(self.schema.tree.nodes):
                if node.parent is not None:
                    alone[:, place] *= alone[:, node.parent]
        return alone

    def thresholds(self, fit: Fit) -> Float64Array:
        """Those of best F1 in multi mode."""
        return best_thresholds(self.scores(fit), self.truth)

    def said(self, scores: Float64Array, thresholds: Float64Array | float) -> BoolArray:
        """What is decided for: the best of siblings, or in multi mode what is over its threshold and all above it."""
        chosen = np.asarray(scores >= thresholds)
        for group in map(list, self.layout.groups):
            chosen[:, group] = np.eye(len(group), dtype=np.bool_)[scores[:, group].argmax(axis=1)]
        if self.schema.multi_label:
            for place in range(len(self.schema.tree.nodes) - 1, -1, -1):  # children stand after their parents
                parent = self.schema.tree.nodes[place].parent
                if parent is not None:
                    chosen[:, parent] |= chosen[:, place]
        return chosen

    def quality(self, scores: Float64Array, said: BoolArray) -> Quality:
        """ECE of the best label of each decision, or of every label judged by itself; macro-F1 over the labels."""
        counted = np.ones_like(self.reached) if self.schema.multi_label else self.reached
        is_true = self.truth > 0
        hits = (said & is_true & counted).sum(axis=0)
        claims = (said & counted).sum(axis=0) + (is_true & counted).sum(axis=0)
        occurs = claims > 0
        f1 = float((2.0 * hits[occurs] / claims[occurs]).mean()) if occurs.any() else 0.0
        sure, right = self._confidences(scores, counted)
        return Quality(calibration_error(reliability(sure, right)), f1)

    def _confidences(self, scores: Float64Array, counted: BoolArray) -> tuple[Float64Array, BoolArray]:
        is_true = self.truth > 0
        sure, right = [np.empty(0)], [np.empty(0, np.bool_)]
        alone = np.ones(scores.shape[1], np.bool_)
        for group in map(list, self.layout.groups):
            alone[group] = False
            there = counted[:, group[0]]
            of_group = scores[np.ix_(there, np.array(group))]
            sure.append(of_group.max(axis=1))
            right.append(is_true[np.ix_(there, np.array(group))][np.arange(len(of_group)), of_group.argmax(axis=1)])
        counted = counted & alone
        is_likely = scores >= _EVEN
        sure.append(np.where(is_likely, scores, 1.0 - scores)[counted])
        right.append((is_likely == is_true)[counted])
        return np.concatenate(sure), np.concatenate(right)


def decisions_of(scorer: Scorer, schema: LabelSchema, rows: Sequence[Labelled]) -> Decisions:
    """The decisions about labelled texts, before any correction. Blocks on the engine.

    Raises:
        SchemaError: a text has a label that the schema lacks, or in single mode not exactly one.
    """
    tree = schema.tree
    truth = _truth(schema, rows)
    reached = np.ones(truth.shape, np.bool_)
    for place, node in enumerate(tree.nodes):
        if node.parent is not None:
            reached[:, place] = truth[:, node.parent] > 0
    if not tree.is_staged:
        evidence = label_evidence(scorer, schema, [row.text for row in rows])
        return Decisions(schema, evidence, truth, reached, Layout.flat(len(tree.nodes), is_multi=schema.multi_label))
    evidence = np.zeros(truth.shape)
    groups = [group for group in (tree.first, *(node.children for node in tree.nodes)) if group]
    for group in map(list, groups):
        # A text whose label is above them says nothing about which of several is the best.
        there = reached[:, group[0]] & (truth[:, group].any(axis=1) | (len(group) == 1))
        if len(group) == 1 and truth[there, group[0]].all():
            there[:] = False  # nothing to tell it from
        reached[:, group] = there[:, np.newaxis]
        if there.any():
            texts = [row.text for row, is_there in zip(rows, there.tolist(), strict=True) if is_there]
            evidence[np.ix_(there, np.array(group))] = label_evidence(scorer, _siblings(schema, tree, group), texts)
    layout = Layout(tuple(group for group in groups if len(group) > 1))
    return Decisions(schema, evidence, truth, reached, layout)


def label_evidence(scorer: Scorer, schema: LabelSchema, texts: Sequence[str]) -> Float64Array:
    """What the model says of each label of the first stage before any correction, as the worker computes it.

    float64 [texts, labels]; in single mode up to a constant per text, which no softmax sees.
    """
    info = scorer.model.engine.info
    view = ModelView(info.head, info.stamp.digest)
    scores = np.stack([stage_scores(stage, view).scores for stage in scorer.stages(schema, texts)])
    kept = np.clip(scores, _LEAST_SCORE, 1.0 - _LEAST_SCORE)
    is_alone = schema.multi_label or scores.shape[1] == 1
    return np.asarray(np.log(kept) - np.log1p(-kept) if is_alone else np.log(kept))


def _siblings(schema: LabelSchema, tree: LabelTree, group: Sequence[int]) -> LabelSchema:
    """The schema that decides one level as the hierarchy does."""
    document = schema.document()
    document.pop("hierarchy", None)
    labels: list[JsonValue] = [
        tree.nodes[place].label.model_dump(mode="json", exclude_unset=True, exclude={"children"}) for place in group
    ]
    return parse_schema({**document, "labels": labels}, schema.reference)


def _truth(schema: LabelSchema, rows: Sequence[Labelled]) -> Float64Array:
    nodes = schema.tree.nodes
    places = {node.label.name: place for place, node in enumerate(nodes)}
    truth = np.zeros((len(rows), len(nodes)))
    for number, row in enumerate(rows):
        if not row.labels <= places.keys() or (not schema.multi_label and len(row.labels) != 1):
            expected = "labels of the schema" if schema.multi_label else "one label of the schema"
            raise SchemaError(f"labelled text {number + 1}: expected {expected}")
        for label in row.labels:
            step: int | None = places[label]
            while step is not None:
                truth[number, step] = 1.0
                step = nodes[step].parent
    if not len(rows):
        raise SchemaError("expected at least one labelled text")
    return truth
