"""A logistic layer learns, few-shot samples nest, and swapped labels are found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ConfigError, SchemaError
from worker.labels.schema import parse_schema
from worker.training import clean as clean_module
from worker.training.clean import KEPT_OF_A_CLASS, find_noise
from worker.training.data import Row
from worker.training.fewshot import (
    LOGISTIC,
    NEAREST_EXAMPLES,
    ZERO_SHOT,
    apart,
    cheap_points,
    checked,
    different,
    enough,
    first_of_each,
    split,
)
from worker.training.linear import cross_validated, fit_logistic, nearest_examples

WORDS = {"fruit": "apple pear plum cherry", "tool": "hammer saw drill chisel", "sky": "cloud moon star rain"}


def _rows(each: int) -> list[Row]:
    draw = np.random.default_rng(0)
    return [
        Row(" ".join(draw.choice(words.split(), 3)) + f" {n}", label)
        for n in range(each)
        for label, words in WORDS.items()
    ]


def test_a_logistic_layer_comes_to_rest_at_the_least_loss() -> None:
    draw = np.random.default_rng(0)
    features, labels = draw.normal(size=(200, 4)), draw.integers(0, 3, 200)

    layer = fit_logistic(features, labels, 3, pull=0.01)

    slope = features.T @ (layer.shares(features) - np.eye(3)[labels]) / 200 + 0.01 * layer.weights
    assert np.abs(slope).max() < 2e-4


def test_no_row_has_a_hand_in_its_own_score() -> None:
    features = np.eye(40)  # each row alone has its feature: seen, it would be certain
    labels = np.arange(40) % 2

    shares = cross_validated(features, labels, 2, folds=5, seed=0)

    assert np.abs(shares - 0.5).max() < 0.1


def test_the_nearest_examples_decide() -> None:
    examples = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])

    said = nearest_examples(np.array([[2.0, 0.1], [0.1, 3.0]]), examples, np.array([0, 0, 1]), nearest=1)

    assert [0, 1] == said.tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_few_examples_are_among_more_and_no_class_has_too_many(labels: list[int], small: int, more: int) -> None:
    places = np.array(labels, np.int64)

    few, many = (first_of_each(places, k, seed=2) for k in (small, small + more))

    assert set(few.tolist()) <= set(many.tolist())
    assert [min(small, labels.count(c)) for c in sorted(set(labels))] == [
        int((places[few] == c).sum()) for c in sorted(set(labels))
    ]


def test_what_is_held_back_is_not_learnt_from_and_has_every_class() -> None:
    rows = _rows(10)

    learnt, back = split(rows, seed=1)

    assert set(rows) == set(learnt) | set(back)
    assert not set(learnt) & set(back)
    assert set(WORDS) == {row.label for row in back}
    assert 2 * 3 == len(back)


def test_a_text_that_comes_twice_is_never_both_learnt_from_and_measured_on() -> None:
    rows = [Row(f"text {number % 10}", "a" if number % 2 else "b") for number in range(40)]

    learnt, back = split(rows, seed=0)

    assert set() == {row.text for row in learnt} & {row.text for row in back}
    assert 10 == len(learnt) + len(back)
    assert [Row("text 3", "a")] == apart(rows[:4], rows[:3])


def test_the_only_text_of_a_label_is_learnt_from() -> None:
    learnt, back = split([Row("one", "a"), Row("two", "b"), Row("three", "b")], seed=0)

    assert {"a", "b"} == {row.label for row in learnt}
    assert ["b"] == [row.label for row in back]


@pytest.mark.parametrize(
    ("learnt", "back", "said"),
    [("aaa", "a", "two labels"), ("", "ab", "two labels"), ("ab", "", "--test")],
)
def test_examples_that_show_nothing_are_refused(learnt: str, back: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        enough(*([Row(label, label) for label in labels] for labels in (learnt, back)))


def test_a_k_that_takes_no_more_rows_than_the_one_before_is_no_point_of_the_curve() -> None:
    assert [8, 16, 64] == different([8, 16, 64, 500], np.array([0] * 30 + [1] * 9))
    assert [8, 16] == different([8, 16, 64], np.array([0] * 16))


def test_the_curve_rises_where_the_evidence_leans() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 3, 600)
    evidence = draw.normal(size=(600, 3)) + 2.0 * np.eye(3)[labels] + np.array([6.0, 0.0, 0.0])  # always says class 0

    points = cheap_points((evidence[:300], labels[:300]), (evidence[300:], labels[300:]), [8, 64], seed=0)

    f1 = {(point.method, point.k): point.macro_f1 for point in points}
    assert f1[ZERO_SHOT, 0] < 0.35
    for method in ("calibrated", LOGISTIC, NEAREST_EXAMPLES):
        assert f1[method, 64] > 0.6


def test_examples_that_the_schema_does_not_know_are_refused_by_number() -> None:
    schema = parse_schema({"name": "x", "version": 1, "labels": [{"name": "a"}]}, "x")

    with pytest.raises(SchemaError, match="example 2"):
        checked(schema, [Row("t", "a"), Row("t", "secret")])
    with pytest.raises(SchemaError, match="multi_label"):
        checked(parse_schema({"name": "x", "version": 1, "multi_label": True, "labels": [{"name": "a"}]}, "x"), [])


def test_labels_that_were_swapped_are_found_and_the_rest_stays() -> None:
    rows = _rows(60)
    wrong = {7, 30, 31, 90, 120, 151}
    names = sorted(WORDS)
    swapped = [
        Row(row.text, names[(names.index(row.label) + 1) % 3]) if n in wrong else row for n, row in enumerate(rows)
    ]

    report = find_noise(swapped)

    found = {suspect.row for suspect in report.suspects}
    assert len(found & wrong) >= 5
    assert len(found - wrong) <= 3
    assert all(s.suggested == rows[s.row].label for s in report.suspects if s.row in wrong)
    assert len(found) == sum(each.removed for each in report.classes)
    assert report.accuracy > 0.9


def test_many_rows_are_scored_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _rows(100)
    swapped = [Row(row.text, "sky") if n in {0, 150} else row for n, row in enumerate(rows)]
    monkeypatch.setattr(clean_module, "PORTION_ROWS", 120)

    report = find_noise(swapped)

    assert {0, 150} <= {suspect.row for suspect in report.suspects}
    assert len(report.suspects) <= 6
    assert report.accuracy > 0.9


def test_what_a_model_says_counts_too() -> None:
    draw = np.random.default_rng(0)
    labels = [n % 2 for n in range(200)]
    rows = [Row(f"nothing to tell them apart {n}", str(label)) for n, label in enumerate(labels)]
    evidence = draw.normal(size=(200, 2)) * 0.3 + 3.0 * np.eye(2)[labels]

    assert find_noise(rows).accuracy < 0.7
    assert find_noise(rows, evidence).accuracy > 0.95


def test_no_class_is_cut_below_its_least_size() -> None:
    rows = [*_rows(40), *(Row(f"apple pear {n}", "rare") for n in range(KEPT_OF_A_CLASS))]

    report = find_noise(rows)

    assert 0 == next(each.removed for each in report.classes if each.label == "rare")


def test_a_file_of_one_class_has_no_noise_to_find() -> None:
    with pytest.raises(ConfigError, match="two classes"):
        find_noise([Row(f"{n}", "a") for n in range(50)])
