"""Temperature, bias per label and thresholds of a label schema under one model, from labelled texts or without any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from worker.errors import SchemaError
from worker.labels.schema import LabelSchema, parse_schema
from worker.training.fits import Fit, Float64Array, corrected
from worker.training.levels import Decisions, Labelled, Quality, decisions_of, label_evidence
from worker.training.scoring import Scorer
from worker.types import JsonValue

_EVEN: Final = 0.5
_LEAST_SCORE: Final = 1e-12
_PRIOR_ROUNDS: Final = 500
FOLDS: Final = 5
_FEWEST_FOR_FOLDS: Final = 25


@dataclass(frozen=True, slots=True)
class Frequency:
    """How often a label comes among texts whose labels nobody gave."""

    prior: float
    """How often it should."""
    before: float
    """Share of the texts whose best label it is, without any correction."""
    after: float
    score_before: float
    """Its mean score: what is matched."""
    score_after: float


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
    frequencies: Mapping[str, Frequency] = field(default_factory=dict)
    """By label; without labelled texts only."""


def calibrate(scorer: Scorer, schema: LabelSchema, rows: Sequence[Labelled], version: int) -> Calibrated:
    """The schema with corrections fitted on labelled texts, as `version`. Blocks on the engine.

    Of a hierarchy each level is fitted on the texts that truly reach it, with one temperature for all.

    Raises:
        SchemaError: the schema has a single label, or a text has a label that the schema lacks.
    """
    plain = _uncalibrated(schema)
    asked = decisions_of(scorer, plain, rows)
    fit = asked.fit()
    thresholds = asked.thresholds(fit) if plain.multi_label else None
    nodes = plain.tree.nodes
    given = np.array([plain.threshold_of(node.label) or 0.0 for node in nodes]) if plain.multi_label else _EVEN
    as_it_is = asked.scores(Fit(1.0, np.zeros(len(nodes))))
    folds = folds_of([row.text for row in rows])
    after = _unseen(asked, folds)
    written = _written(schema, scorer, fit, thresholds, version)
    names = _names(plain)
    return Calibrated(
        written,
        asked.quality(as_it_is, asked.said(as_it_is, given)),
        after,
        bool(folds.any()),
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
        SchemaError: the schema decides several labels at once or step by step, the priors do not fit it, or there is no
            text.
    """
    if not texts:
        raise SchemaError("expected at least one text")
    plain = _uncalibrated(schema)
    if plain.multi_label:
        raise SchemaError(f"{schema.reference}: matching priors needs a schema without `multi_label`")
    if not plain.tree.is_flat:
        raise SchemaError(
            f"{schema.reference}: matching priors needs a schema without `children`: which texts reach a level nobody "
            "knows without their labels; use --labelled"
        )
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
    return Calibrated(
        written,
        before=None,
        after=None,
        is_cross_validated=False,
        temperature=1.0,
        bias=dict(zip(names, bias.tolist(), strict=True)),
        thresholds={},
        texts=len(texts),
        frequencies=dict(zip(names, _frequencies(evidence, fit, target), strict=True)),
    )


def folds_of(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """In which fold each text is held back, equal ones in the same; all 0 where there are too few to hold any back."""
    if len(texts) < _FEWEST_FOR_FOLDS:
        return np.zeros(len(texts), np.int64)
    _, places = np.unique(np.array(texts, object), return_inverse=True)
    return np.asarray(np.random.default_rng(0).permutation(int(places.max()) + 1)[places] % FOLDS)


def _uncalibrated(schema: LabelSchema) -> LabelSchema:
    if len(schema.tree.nodes) == 1 and not schema.multi_label:
        raise SchemaError(f"{schema.reference}: a single label is judged by itself: set `multi_label: true`")
    document = schema.document()
    document.pop("calibration", None)
    document.pop("shortlist", None)  # what it leaves out has no score to correct
    return parse_schema(document, schema.reference)


def _names(schema: LabelSchema) -> list[str]:
    return [node.label.name for node in schema.tree.nodes]


def _unseen(asked: Decisions, folds: npt.NDArray[np.int64]) -> Quality:
    """Of corrections that were fitted without the texts that they are judged on; with one fold they saw them."""
    scores, said = np.empty_like(asked.evidence), np.zeros(asked.evidence.shape, np.bool_)
    for fold in np.unique(folds).tolist():
        inside = folds == fold
        seen = asked.rows(~inside if folds.any() else inside)
        fit = seen.fit()
        held = asked.rows(inside)
        scores[inside] = held.scores(fit)
        thresholds = seen.thresholds(fit) if asked.schema.multi_label else _EVEN
        said[inside] = held.said(scores[inside], thresholds)
    return asked.quality(scores, said)


def _target(names: Sequence[str], priors: Mapping[str, float], schema: LabelSchema) -> Float64Array:
    if not priors.keys() <= set(names) or any(share <= 0.0 for share in priors.values()):
        raise SchemaError(f"{schema.reference}: priors: expected shares above 0 of labels that the schema has")
    left, free = 1.0 - sum(priors.values()), len(names) - len(priors)
    if (free and left <= 0.0) or (not free and abs(left) > 1e-6):  # noqa: PLR2004  # rounding
        raise SchemaError(
            f"{schema.reference}: priors: expected shares that sum to 1, or less where labels are left out"
        )
    return np.array([priors.get(name, left / free if free else 0.0) for name in names])


def _frequencies(evidence: Float64Array, fit: Fit, target: Float64Array) -> list[Frequency]:
    before, after = (corrected(evidence, each, is_multi=False) for each in (Fit(1.0, np.zeros(len(target))), fit))
    columns = (target, _said_shares(before), _said_shares(after), before.mean(axis=0), after.mean(axis=0))
    return [Frequency(*row) for row in np.stack(columns, axis=1).tolist()]


def _said_shares(scores: Float64Array) -> Float64Array:
    """How often each label is the best, float64 [labels]."""
    return np.asarray(np.bincount(scores.argmax(axis=1), minlength=scores.shape[1]) / len(scores))


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
