"""Each figure is what its name says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.training.metrics import (
    accuracy,
    balanced_accuracy,
    bootstrap,
    calibration_error,
    confusion,
    macro_f1,
    reliability,
)

TRUTH = np.array([0, 0, 0, 0, 1, 1, 2], np.int64)
SAID = np.array([0, 0, 1, 1, 1, 0, 0], np.int64)


def test_the_figures_of_a_small_example_are_those_done_by_hand() -> None:
    counts = confusion(TRUTH, SAID, 4)

    assert [[2, 2, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]] == counts.tolist()
    assert 3 / 7 == accuracy(counts)
    assert (2 / 4 + 1 / 2 + 0) / 3 == balanced_accuracy(counts)
    # F1 of class 0: 4 / 8, of class 1: 2 / 5, of class 2: 0; class 3 occurs nowhere.
    assert (0.5 + 0.4 + 0.0) / 3 == pytest.approx(macro_f1(counts))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_no_figure_leaves_0_to_1_and_all_are_1_when_everything_is_right(rows: list[tuple[int, int]]) -> None:
    truth, said = (np.array(column, np.int64) for column in zip(*rows, strict=True))

    for figure in (accuracy, balanced_accuracy, macro_f1):
        assert 0.0 <= figure(confusion(truth, said, 5)) <= 1.0
        assert 1.0 == figure(confusion(truth, truth, 5))


def test_scores_that_are_as_sure_as_they_are_right_have_no_calibration_error() -> None:
    confidence = np.full(10, 0.7)
    right, wrong = np.arange(10) < 7, np.arange(10) < 2

    assert 0.0 == pytest.approx(calibration_error(reliability(confidence, right)))
    assert 0.5 == pytest.approx(calibration_error(reliability(confidence, wrong)))


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)

    interval = bootstrap(400, lambda rows: float(values[rows].mean()), 1000, seed=1)

    # 1.96 standard errors of 1 / 20 on either side, within a tenth.
    assert 2 * 1.96 / 20 == pytest.approx(interval.high - interval.low, rel=0.1)
    assert interval.low < values.mean() < interval.high
