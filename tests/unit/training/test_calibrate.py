"""Corrections undo what was done to scores, are judged on texts they did not see, and end in a new schema version."""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from worker.classifier import open_classifier
from worker.clock import ManualClock
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.errors import SchemaError
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.evidence import ModelView, ScoredStage, stage_scores
from worker.settings import Limits
from worker.training import levels as levels_module
from worker.training.calibrate import FOLDS, calibrate, folds_of, match_priors
from worker.training.fits import Fit, best_thresholds, corrected, fitted
from worker.training.levels import Labelled, decisions_of, label_evidence
from worker.training.linear import Float64Array
from worker.training.scoring import Meter, Scorer
from worker.types import JsonValue, Prediction, Record

NAMES = ("a", "b", "c")
TREE: list[JsonValue] = [{"name": "a", "children": [{"name": "a1"}, {"name": "a2"}]}, {"name": "b"}]


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    loaded: LoadedModel = load_engine(EngineChoice(engine="fake"))
    yield Scorer(loaded, Meter(ManualClock()))
    loaded.engine.close()


def _schema(**more: JsonValue) -> LabelSchema:
    labels: list[JsonValue] = [{"name": name} for name in NAMES]
    return parse_schema({"name": "x", "version": 4, "labels": labels, **more}, "x")


def _drawn(count: int, fit: Fit) -> tuple[Float64Array, Float64Array]:
    """Evidence whose correction by `fit` is the truth: labels are drawn from the corrected scores."""
    draw = np.random.default_rng(1)
    evidence = draw.normal(size=(count, 3)) * 3
    shares = corrected(evidence, fit, is_multi=False)
    labels = [draw.choice(3, p=row) for row in shares]
    return evidence, np.eye(3)[labels]


def test_the_fit_finds_the_temperature_and_bias_that_made_the_labels() -> None:
    true = Fit(2.5, np.array([1.0, -0.5, -0.5]))

    found = fitted(*_drawn(4000, true), is_multi=False)

    assert true.temperature == pytest.approx(found.temperature, rel=0.1)
    assert np.abs(true.bias - found.bias).max() < 0.15


def test_thresholds_are_those_of_the_best_f1() -> None:
    scores = np.array([[0.9], [0.8], [0.6], [0.55], [0.1]])
    truth = np.array([[1.0], [1.0], [1.0], [0.0], [0.0]])

    assert [0.575] == pytest.approx(best_thresholds(scores, truth).tolist())
    assert [0.5] == best_thresholds(scores, np.zeros((5, 1))).tolist()


def test_a_threshold_does_not_stand_between_equal_scores() -> None:
    scores = np.array([[0.9], [0.6], [0.6], [0.6], [0.6]])
    truth = np.array([[0.0], [1.0], [0.0], [0.0], [0.0]])  # the best F1 was that of the first of the equals

    assert [0.3] == pytest.approx(best_thresholds(scores, truth).tolist())


def test_calibration_lowers_the_error_on_texts_that_the_fit_did_not_see(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, truth = _drawn(600, Fit(4.0, np.zeros(3)))
    monkeypatch.setattr(levels_module, "label_evidence", lambda *_: evidence)
    rows = [Labelled(f"{n}", frozenset({NAMES[place]})) for n, place in enumerate(truth.argmax(axis=1).tolist())]

    found = calibrate(scorer, _schema(), rows, 5)

    assert found.before is not None
    assert found.after is not None
    assert found.is_cross_validated
    assert found.after.ece < found.before.ece / 3
    assert 4.0 == pytest.approx(found.temperature, rel=0.15)


def test_the_new_version_corrects_scores_as_the_fit_says_under_this_model_only(scorer: Scorer) -> None:
    rows = [Labelled(f"a text number {n}", frozenset({NAMES[n * n % 3]})) for n in range(60)]

    found = calibrate(scorer, _schema(), rows, 5)

    assert "x@5" == found.schema.reference
    document = found.schema.document()
    assert scorer.model.engine.info.stamp.digest == document["calibration"]["model"]  # type: ignore[index,call-overload]  # plain JSON
    texts = [row.text for row in rows]
    stages = list(scorer.stages(found.schema, texts))
    written = _worker_scores(scorer, stages)
    bias = np.array([found.bias[name] for name in NAMES])
    expected = corrected(label_evidence(scorer, _schema(), texts), Fit(found.temperature, bias), is_multi=False)
    assert np.abs(expected - written).max() < 1e-3  # the document has four digits


def test_with_several_labels_at_once_each_gets_a_threshold(scorer: Scorer) -> None:
    rows = [Labelled(f"text {n}", frozenset(NAMES[: n % 4])) for n in range(60)]

    found = calibrate(scorer, _schema(multi_label=True), rows, 5)

    assert set(NAMES) == set(found.thresholds)
    assert [found.thresholds[label.name] for label in found.schema.labels] == pytest.approx(
        [label.threshold for label in found.schema.labels], abs=1e-4
    )


def test_an_earlier_calibration_is_replaced_not_piled_upon(scorer: Scorer) -> None:
    rows = [Labelled(f"text {n}", frozenset({NAMES[n % 3]})) for n in range(40)]
    first = calibrate(scorer, _schema(), rows, 5)

    second = calibrate(scorer, first.schema, rows, 6)

    assert first.temperature == second.temperature
    assert first.bias == second.bias


def test_matched_priors_make_labels_come_as_often_as_said(scorer: Scorer) -> None:
    texts = [f"text number {n}" for n in range(300)]

    found = match_priors(scorer, _schema(), texts, {"a": 0.7}, 5)

    shares = _worker_scores(scorer, list(scorer.stages(found.schema, texts))).mean(axis=0)
    assert [0.7, 0.15, 0.15] == pytest.approx(shares.tolist(), abs=2e-3)
    assert found.before is None


def test_each_level_of_a_hierarchy_is_fitted_on_the_texts_that_reach_it(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(2)
    roots, below = draw.normal(size=(2, 4000, 2)) * 3
    at_a = draw.random(4000) < corrected(roots, Fit(2.0, np.array([0.5, -0.5])), is_multi=False)[:, 0]
    at_a1 = draw.random(4000) < corrected(below, Fit(2.0, np.array([-1.0, 1.0])), is_multi=False)[:, 0]
    names = np.where(at_a, np.where(at_a1, "a1", "a2"), "b").tolist()
    asked: list[int] = []

    def known(_: Scorer, schema: LabelSchema, texts: Sequence[str]) -> Float64Array:
        asked.append(len(texts))
        evidence = roots if "a" in schema.label_names else below
        return np.asarray(evidence[[int(text) for text in texts]])

    monkeypatch.setattr(levels_module, "label_evidence", known)
    rows = [Labelled(f"{n}", frozenset({name})) for n, name in enumerate(names)]

    found = calibrate(scorer, _schema(labels=TREE), rows, 5)

    assert [4000, int(at_a.sum())] == asked
    assert 2.0 == pytest.approx(found.temperature, rel=0.1)
    assert {"a": 0.5, "b": -0.5, "a1": -1.0, "a2": 1.0} == pytest.approx(dict(found.bias), abs=0.15)
    assert found.before is not None
    assert found.after is not None
    assert found.after.ece < found.before.ece / 3
    assert found.after.macro_f1 > found.before.macro_f1


def test_the_worker_decides_each_level_of_a_hierarchy_as_the_fit_says(scorer: Scorer) -> None:
    tree: JsonValue = [*TREE, {"name": "c", "children": [{"name": "only"}]}]
    labels = ("a1", "a2", "b", "b", "c", "only")
    rows = [Labelled(f"text {n}", frozenset({labels[n % 6]})) for n in range(60)]
    found = calibrate(scorer, _schema(labels=tree, hierarchy={"open_above": 0.0}), rows, 5)
    texts = [f"new text {n}" for n in range(40)]
    records = [Record("t", 0, n, 0, None, json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]

    with open_classifier(EngineChoice(engine="fake"), found.schema, Limits()) as (classifier, _):
        answers = [answer.outcome for answer in classifier.answers(records)]

    seen = set()
    for text, answer in zip(texts, answers, strict=True):
        assert isinstance(answer, Prediction)
        said = {score.label: score.score for score in answer.scores}
        for parent, names in ((None, ("a", "b", "c")), ("a", ("a1", "a2")), ("c", ("only",))):
            if names[0] in said:
                seen.add(names)
                level = _schema(labels=[{"name": name} for name in names])
                fit = Fit(found.temperature, np.array([found.bias[name] for name in names]))
                alone = corrected(label_evidence(scorer, level, [text]), fit, is_multi=len(names) == 1)[0]
                above = 1.0 if parent is None else said[parent]
                assert [said[name] for name in names] == pytest.approx((above * alone).tolist(), abs=1e-3)
    assert {("a", "b", "c"), ("a1", "a2"), ("only",)} == seen


def test_an_only_child_is_fitted_against_the_texts_that_stay_with_its_parent(scorer: Scorer) -> None:
    tree: JsonValue = [{"name": "a", "children": [{"name": "only"}]}, {"name": "b"}]
    below = [Labelled(f"text {n}", frozenset({"only"})) for n in range(20)]
    others = [Labelled(f"other {n}", frozenset({"b"})) for n in range(20)]
    above = [Labelled(f"stays {n}", frozenset({"a"})) for n in range(20)]

    assert 0.0 == calibrate(scorer, _schema(labels=tree), [*below, *others], 5).bias["only"]
    assert 0.0 != calibrate(scorer, _schema(labels=tree), [*below, *others, *above], 5).bias["only"]


def test_several_labels_at_once_are_judged_with_all_that_stand_above_them(scorer: Scorer) -> None:
    schema = _schema(labels=TREE, multi_label=True)
    rows = [Labelled("one", frozenset({"a1"})), Labelled("two", frozenset({"a", "b"})), Labelled("three", frozenset())]

    asked = decisions_of(scorer, schema, rows)

    assert ["a", "a1", "a2", "b"] == [node.label.name for node in schema.tree.nodes]
    assert [[1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]] == asked.truth.tolist()
    assert [[True] * 4, [True] * 4, [True, False, False, True]] == asked.reached.tolist()
    said = asked.said(np.array([[0.4, 0.6, 0.1, 0.2], [0.9, 0.1, 0.1, 0.5], [0.1, 0.1, 0.1, 0.1]]), 0.5)
    assert (asked.truth > 0).tolist() == said.tolist()
    assert 1.0 == asked.quality(asked.truth, said).macro_f1
    none = Fit(1.0, np.zeros(4))
    alone = corrected(asked.evidence, none, is_multi=True)
    assert (alone[:, 0] * alone[:, 1]).tolist() == pytest.approx(asked.scores(none)[:, 1].tolist())


def test_equal_texts_are_held_back_together() -> None:
    texts = [f"text {n % 30}" for n in range(60)]

    folds = folds_of(texts).tolist()

    assert set(range(FOLDS)) == set(folds)
    assert folds[:30] == folds[30:]


def test_priors_of_a_hierarchy_are_refused_with_what_to_do_instead(scorer: Scorer) -> None:
    with pytest.raises(SchemaError, match="--labelled"):
        match_priors(scorer, _schema(labels=TREE), ["a text"], {}, 5)


@pytest.mark.parametrize(
    ("schema", "labels"),
    [
        (_schema(), {"nosuch"}),
        (_schema(), {"a", "b"}),
        (_schema(), set()),
        (_schema(multi_label=True), {"nosuch"}),
        (_schema(labels=TREE), {"a1", "b"}),
        (_schema(labels=TREE, multi_label=True), {"a1", "nosuch"}),
    ],
)
def test_labels_that_the_schema_cannot_have_are_refused(scorer: Scorer, schema: LabelSchema, labels: set[str]) -> None:
    with pytest.raises(SchemaError):
        calibrate(scorer, schema, [Labelled("a text", frozenset(labels))], 5)


def test_priors_without_a_text_to_match_are_refused(scorer: Scorer) -> None:
    with pytest.raises(SchemaError, match="at least one text"):
        match_priors(scorer, _schema(), [], {}, 5)


@pytest.mark.parametrize("priors", [{"nosuch": 0.5}, {"a": 1.5}, {"a": -0.1}, {"a": 0.5, "b": 0.1, "c": 0.1}])
def test_priors_that_cannot_be_are_refused(scorer: Scorer, priors: dict[str, float]) -> None:
    with pytest.raises(SchemaError, match="priors"):
        match_priors(scorer, _schema(), ["a text"], priors, 5)


def _worker_scores(scorer: Scorer, stages: Sequence[ScoredStage]) -> Float64Array:
    info = scorer.model.engine.info
    return np.stack([stage_scores(stage, ModelView(info.head, info.stamp.digest)).scores for stage in stages])
