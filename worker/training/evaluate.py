"""Figures of models on labelled test sets, and what each model had seen before: only then is one called zero-shot."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from worker.labels.schema import LabelSchema, parse_schema
from worker.training.card import Provenance
from worker.training.data import NliRow
from worker.training.metrics import (
    Float64Array,
    Int64Array,
    Interval,
    Reliability,
    accuracy,
    balanced_accuracy,
    bootstrap,
    calibration_error,
    confusion,
    macro_f1,
    reliability,
)
from worker.training.pairs import LabelledPair
from worker.training.scoring import Scorer, evidence_by_template, softmax
from worker.training.tasks import UNKNOWN_CLUSTER, Task, plain_name

BOOTSTRAP_SAMPLES: Final = 500


class Column(StrEnum):
    """What a model had seen of a set's task when it was tested on it."""

    NLI_ONLY = "NLI only"
    CLUSTER_HELD_OUT = "zero-shot (cluster held out)"
    SET_HELD_OUT = "set held out"
    """Others of its cluster were seen, or nobody knows its cluster."""
    ALL = "set seen"
    UNKNOWN = "as it is"


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """Figures under one template."""

    template: str
    macro_f1: float
    balanced_accuracy: float
    accuracy: float
    ece: float


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What a model scores on a set. The figures without a template are means over the templates."""

    task: str
    cluster: str
    model: str
    recipe: str
    """What models of the same training share: a report has a column for each recipe and `column`."""
    column: Column
    classes: int
    texts: int
    macro_f1: float
    interval: Interval
    """Of `macro_f1`, over samples of the texts."""
    spread: float
    """Largest minus smallest macro-F1 of the templates."""
    best: float
    balanced_accuracy: float
    accuracy: float
    ece: float
    averaged_logits: TemplateFigures
    """What a worker does with all the templates at once."""
    templates: tuple[TemplateFigures, ...]
    confusion: Int64Array
    """With averaged logits; rows are the truth."""
    bins: tuple[Reliability, ...]
    labels: tuple[str, ...]
    pairs: int
    pairs_per_second: float


@dataclass(frozen=True, slots=True)
class NliFigures:
    """What a model scores on pairs, in two classes."""

    name: str
    model: str
    pairs: int
    accuracy: float
    interval: Interval
    majority: float
    """What always saying the more frequent class would score."""
    too_long: int
    """Pairs whose hypothesis leaves no room for text; not counted."""


def column_of(provenance: Provenance | None, name: str, cluster: str) -> Column:
    """In which column a model's figure on a set belongs.

    A figure is zero-shot only where no set of the cluster was trained on, nor pairs recast from such a set, and where
    the cluster is known. A model that says nothing of its training is taken as it is.
    """
    if provenance is None:
        return Column.UNKNOWN
    seen = {plain_name(each) for each in provenance.trained_on("classification")}
    if not seen:
        return Column.NLI_ONLY
    if plain_name(name) in seen:
        return Column.ALL
    is_kept_from = cluster != UNKNOWN_CLUSTER and cluster not in provenance.clusters()
    return Column.CLUSTER_HELD_OUT if is_kept_from else Column.SET_HELD_OUT


def evaluate_task(scorer: Scorer, task: Task, who: tuple[str, Provenance | None]) -> TaskFigures:
    """The figures of a model, called by its name, on a set. Blocks on the engine.

    Raises:
        ConfigError: a hypothesis leaves no room for text.
        EngineError: the engine cannot score.
    """
    pairs, seconds = scorer.meter.pairs, scorer.meter.seconds
    evidence = _evidence(scorer, task)
    truth = np.array([task.classes.index(row.label) for row in task.rows], np.int64)
    names = task.schema.hypothesis_templates
    each = tuple(_figures(names[number], evidence[:, :, number], truth) for number in range(evidence.shape[2]))
    averaged = evidence.mean(axis=2)
    scores = softmax(averaged)
    predicted = [evidence[:, :, number].argmax(axis=1) for number in range(evidence.shape[2])]
    classes = len(task.classes)

    def mean_f1(rows: Int64Array) -> float:
        return float(np.mean([macro_f1(confusion(truth[rows], said[rows], classes)) for said in predicted]))

    f1 = [figures.macro_f1 for figures in each]
    model, provenance = who
    spent = scorer.meter.seconds - seconds
    return TaskFigures(
        task=task.name,
        cluster=task.cluster,
        model=model,
        recipe=model if provenance is None else provenance.name,
        column=column_of(provenance, task.name, task.cluster),
        classes=classes,
        texts=len(task.rows),
        macro_f1=float(np.mean(f1)),
        interval=bootstrap(len(truth), mean_f1, BOOTSTRAP_SAMPLES, seed=0),
        spread=max(f1) - min(f1),
        best=max(f1),
        balanced_accuracy=float(np.mean([figures.balanced_accuracy for figures in each])),
        accuracy=float(np.mean([figures.accuracy for figures in each])),
        ece=float(np.mean([figures.ece for figures in each])),
        averaged_logits=_figures("all", averaged, truth),
        templates=each,
        confusion=confusion(truth, averaged.argmax(axis=1), classes),
        bins=reliability(scores.max(axis=1), scores.argmax(axis=1) == truth),
        labels=task.classes,
        pairs=scorer.meter.pairs - pairs,
        pairs_per_second=(scorer.meter.pairs - pairs) / spent if spent > 0 else 0.0,
    )


def evaluate_nli(scorer: Scorer, name: str, rows: Sequence[NliRow], model: str) -> NliFigures:
    """The 2-class accuracy of a model on pairs: entailment, or not. Blocks on the engine."""
    pairs = [LabelledPair(row.premise, row.hypothesis, row.is_entailment) for row in rows]
    logits, fits = scorer.pairs(pairs)
    truth = np.array([row.is_entailment for row in rows], np.bool_)[fits]
    is_right = (logits.argmax(axis=1) == scorer.model.engine.info.head.entailment) == truth
    share = float(truth.mean()) if truth.size else 0.0
    return NliFigures(
        name=name,
        model=model,
        pairs=len(truth),
        accuracy=float(is_right.mean()) if truth.size else 0.0,
        interval=bootstrap(len(truth), lambda drawn: float(is_right[drawn].mean()), BOOTSTRAP_SAMPLES, seed=0),
        majority=max(share, 1.0 - share),
        too_long=int((~fits).sum()),
    )


def _evidence(scorer: Scorer, task: Task) -> Float64Array:
    """Entailment logits, float64 [texts, labels, templates]."""
    entailment = scorer.model.engine.info.head.entailment
    texts = [row.text for row in task.rows]
    # A model that reads all labels at once would read the hypotheses of all templates as so many labels.
    apart = scorer.model.engine.info.reading != "pairs" and len(task.schema.hypothesis_templates) > 1
    schemas = _one_template_each(task.schema) if apart else (task.schema,)
    found = [
        np.stack([evidence_by_template(stage, entailment) for stage in scorer.stages(schema, texts)])
        for schema in schemas
    ]
    return np.concatenate(found, axis=2)


def _one_template_each(schema: LabelSchema) -> tuple[LabelSchema, ...]:
    document = schema.document()
    return tuple(
        parse_schema({**document, "hypothesis_templates": [template]}, schema.reference)
        for template in schema.hypothesis_templates
    )


def _figures(template: str, evidence: Float64Array, truth: Int64Array) -> TemplateFigures:
    scores = softmax(evidence)
    predicted = evidence.argmax(axis=1)
    counts = confusion(truth, predicted, evidence.shape[1])
    ece = calibration_error(reliability(scores.max(axis=1), predicted == truth))
    return TemplateFigures(template, macro_f1(counts), balanced_accuracy(counts), accuracy(counts), ece)
