"""Temperature, bias per label and thresholds of a label schema under one model, from labelled texts or without any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.errors import SchemaError
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.evidence import Float64Array, ModelView, stage_scores
from worker.training.fits import BoolArray, Fit, best_thresholds, corrected, fitted
from worker.training.metrics import calibration_error, confusion, macro_f1, reliability
from worker.training.scoring import Scorer
from worker.types import JsonValue

_EVEN: Final = 0.5
_LEAST_SCORE: Final = 1e-12
_PRIOR_ROUNDS: Final = 500
FOLDS: Final = 5
_FEWEST_FOR_FOLDS: Final = 25


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
class Calibrated:
    """What `calibrate` found."""

    schema: LabelSchema
    """The new version."""
    before: Quality | None
    after: Quality | None
    """Of texts that the fit did not see (cross-validated), where there were enough; None without labels."""
    is_cross_validated: bool
    temperature: float
    bias: Mapping[str, float]
    thresholds: Mapping[str, float]
    texts: int


def calibrate(scorer: Scorer, schema: LabelSchema, rows: Sequence[Labelled], version: int) -> Calibrated:
    """The schema with corrections fitted on labelled texts, as `version`. Blocks on the engine.

    Raises:
        SchemaError: the schema is a hierarchy decided step by step, or a text has a label that the schema lacks.
    """
    plain = _uncalibrated(schema)
    truth = _truth(plain, rows)
    evidence = label_evidence(scorer, plain, [row.text for row in rows])
    is_multi = plain.multi_label
    fit = fitted(evidence, truth, is_multi=is_multi)
    thresholds = best_thresholds(corrected(evidence, fit, is_multi=is_multi), truth) if is_multi else None
    given = np.array([plain.threshold_of(node.label) or 0.0 for node in plain.tree.nodes])
    as_it_is = corrected(evidence, Fit(1.0, np.zeros(evidence.shape[1])), is_multi=is_multi)
    before = _quality(as_it_is, truth, None if not is_multi else as_it_is >= given)
    folds = FOLDS if len(rows) >= _FEWEST_FOR_FOLDS else 1
    after = _quality(*_unseen(evidence, truth, folds, is_multi=is_multi))
    written = _written(schema, scorer, fit, thresholds, version)
    names = _names(plain)
    return Calibrated(
        written,
        before,
        after,
        folds > 1,
        fit.temperature,
        dict(zip(names, fit.bias.tolist(), strict=True)),
        {} if thresholds is None else dict(zip(names, thresholds.tolist(), strict=True)),
        len(rows),
    )


def match_priors(
    scorer: Scorer, schema: LabelSchema, texts: Sequence[str], priors: Mapping[str, float], version: int
) -> Calibrated:
    """The schema with a bias per label under which labels come as often as `priors` says.

    Labels without a prior share what is left: with none at all, all are taken as equally frequent. No label of any text
    is needed: what is corrected is the model's leaning to some hypotheses whatever the text (word bias: Liusie et al.
    2023).

    Raises:
        SchemaError: the schema decides several labels at once or step by step, or the priors do not fit it.
    """
    plain = _uncalibrated(schema)
    if plain.multi_label:
        raise SchemaError(f"{schema.reference}: matching priors needs a schema without `multi_label`")
    names = _names(plain)
    target = _target(names, priors, schema)
    evidence = label_evidence(scorer, plain, texts)
    bias = np.zeros(len(names))
    for _ in range(_PRIOR_ROUNDS):
        found = corrected(evidence, Fit(1.0, bias), is_multi=False).mean(axis=0)
        bias += np.log(target) - np.log(np.maximum(found, _LEAST_SCORE))
        bias -= bias.mean()
    fit = Fit(1.0, bias)
    written = _written(schema, scorer, fit, None, version)
    bias_by_name = dict(zip(names, bias.tolist(), strict=True))
    return Calibrated(written, None, None, False, 1.0, bias_by_name, {}, len(texts))  # noqa: FBT003  # not cross-validated


def label_evidence(scorer: Scorer, schema: LabelSchema, texts: Sequence[str]) -> Float64Array:
    """What the model says of each label before any correction, float64 [texts, labels], as the worker computes it.

    In single mode up to a constant per text, which no softmax sees.
    """
    info = scorer.model.engine.info
    view = ModelView(info.head, info.stamp.digest)
    scores = np.stack([stage_scores(stage, view).scores for stage in scorer.stages(schema, texts)])
    kept = np.clip(scores, _LEAST_SCORE, 1.0 - _LEAST_SCORE)
    return np.asarray(np.log(kept) - np.log1p(-kept) if schema.multi_label else np.log(kept))


def _uncalibrated(schema: LabelSchema) -> LabelSchema:
    if not schema.tree.is_flat:
        raise SchemaError(f"{schema.reference}: a schema whose labels have `children` cannot be calibrated yet")
    if len(schema.tree.nodes) == 1 and not schema.multi_label:
        raise SchemaError(f"{schema.reference}: a single label is judged by itself: set `multi_label: true`")
    document = schema.document()
    document.pop("calibration", None)
    document.pop("shortlist", None)  # what it leaves out has no score to correct
    return parse_schema(document, schema.reference)


def _names(schema: LabelSchema) -> list[str]:
    return [node.label.name for node in schema.tree.nodes]


def _truth(schema: LabelSchema, rows: Sequence[Labelled]) -> Float64Array:
    names = {node.label.name: place for place, node in enumerate(schema.tree.nodes)}
    truth = np.zeros((len(rows), len(names)))
    for number, row in enumerate(rows):
        if not row.labels <= names.keys() or (not schema.multi_label and len(row.labels) != 1):
            expected = "labels of the schema" if schema.multi_label else "one label of the schema"
            raise SchemaError(f"labelled text {number + 1}: expected {expected}")
        truth[number, [names[label] for label in row.labels]] = 1.0
    if not len(rows):
        raise SchemaError("expected at least one labelled text")
    return truth


def _unseen(
    evidence: Float64Array, truth: Float64Array, folds: int, *, is_multi: bool
) -> tuple[Float64Array, Float64Array, BoolArray | None]:
    """Corrected scores of each text, its truth, and in multi mode what is selected, by fits that did not see it.

    With one fold they did see it.
    """
    places = np.random.default_rng(0).permutation(len(evidence)) % folds
    scores, selected = np.empty_like(evidence), np.zeros(evidence.shape, np.bool_)
    for fold in range(folds):
        inside = places == fold
        seen = ~inside if folds > 1 else inside
        fit = fitted(evidence[seen], truth[seen], is_multi=is_multi)
        scores[inside] = corrected(evidence[inside], fit, is_multi=is_multi)
        if is_multi:
            thresholds = best_thresholds(corrected(evidence[seen], fit, is_multi=True), truth[seen])
            selected[inside] = scores[inside] >= thresholds
    return scores, truth, selected if is_multi else None


def _quality(scores: Float64Array, truth: Float64Array, selected: BoolArray | None) -> Quality:
    """ECE and macro-F1: of the best label in single mode, of every decision where `selected` is given."""
    if selected is None:
        true, said = truth.argmax(axis=1), scores.argmax(axis=1)
        bins = reliability(scores.max(axis=1), true == said)
        return Quality(calibration_error(bins), macro_f1(confusion(true, said, scores.shape[1])))
    hits = (selected & (truth > 0)).sum(axis=0)
    claims = selected.sum(axis=0) + truth.sum(axis=0)
    occurs = claims > 0
    is_likely = scores >= _EVEN
    bins = reliability(np.where(is_likely, scores, 1.0 - scores).ravel(), (is_likely == (truth > 0)).ravel())
    return Quality(
        calibration_error(bins), float((2.0 * hits[occurs] / claims[occurs]).mean()) if occurs.any() else 0.0
    )


def _target(names: Sequence[str], priors: Mapping[str, float], schema: LabelSchema) -> Float64Array:
    if not priors.keys() <= set(names) or any(share <= 0.0 for share in priors.values()):
        raise SchemaError(f"{schema.reference}: priors: expected shares above 0 of labels that the schema has")
    left, free = 1.0 - sum(priors.values()), len(names) - len(priors)
    if (free and left <= 0.0) or (not free and abs(left) > 1e-6):  # noqa: PLR2004  # rounding
        raise SchemaError(
            f"{schema.reference}: priors: expected shares that sum to 1, or less where labels are left out"
        )
    return np.array([priors.get(name, left / free if free else 0.0) for name in names])


def _written(
    schema: LabelSchema, scorer: Scorer, fit: Fit, thresholds: Float64Array | None, version: int
) -> LabelSchema:
    document = schema.document()
    names = _names(schema)
    bias: dict[str, JsonValue] = {
        name: round(value, 4) for name, value in zip(names, fit.bias.tolist(), strict=True) if round(value, 4)
    }
    document["version"] = version
    document["calibration"] = {
        "model": scorer.model.engine.info.stamp.digest,
        "temperature": round(fit.temperature, 4),
        "bias": bias,
    }
    if thresholds is not None:
        by_name = dict(zip(names, thresholds.tolist(), strict=True))
        document["labels"] = [_with_threshold(label, by_name) for label in _listed(document["labels"])]
    return parse_schema(document, schema.reference)


def _with_threshold(label: JsonValue, by_name: Mapping[str, float]) -> JsonValue:
    if not isinstance(label, dict):
        return label
    changed: dict[str, JsonValue] = {**label, "threshold": round(by_name[str(label["name"])], 4)}
    if label.get("children"):
        changed["children"] = [_with_threshold(child, by_name) for child in _listed(label["children"])]
    return changed


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
