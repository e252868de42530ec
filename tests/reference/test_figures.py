"""The figures of an evaluation are scikit-learn's, also where a class is missing from the truth or the predictions."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.support.training_data import write_world
from worker.cli.main import build_app
from worker.training.metrics import (
    ECE_BINS,
    Int64Array,
    accuracy,
    balanced_accuracy,
    calibration_error,
    confusion,
    macro_f1,
    reliability,
)

metrics = pytest.importorskip("sklearn.metrics")
calibration = pytest.importorskip("sklearn.calibration")

CLASSES = 6
NUMBERS = st.integers(0, CLASSES - 1)
ROUNDING = 1e-12


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=80))
def test_whatever_is_true_and_said_the_figures_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    truth, said = (np.array(column, np.int64) for column in zip(*rows, strict=True))

    assert _theirs(truth, said) == pytest.approx(_ours(truth, said), abs=ROUNDING)
    theirs = metrics.confusion_matrix(truth, said, labels=range(CLASSES))
    assert theirs.tolist() == confusion(truth, said, CLASSES).tolist()


@pytest.mark.parametrize(
    ("truths", "sayings"),
    [({0, 1, 2}, {0, 1}), ({0, 1}, {0, 1, 2}), ({0, 1}, {2, 3}), ({4}, {4}), ({4}, {5}), ({0, 2, 4}, {1, 2, 3})],
)
def test_a_class_that_is_never_true_or_never_said_counts_as_it_does_in_scikit_learn(
    truths: set[int], sayings: set[int]
) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        truth, said = (draw.choice(sorted(classes), 40) for classes in (truths, sayings))

        assert _theirs(truth, said) == pytest.approx(_ours(truth, said), abs=ROUNDING)


@pytest.mark.parametrize("seed", range(50))
def test_the_calibration_error_is_that_of_the_bins_of_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    confidence = draw.beta(draw.uniform(0.3, 5.0), draw.uniform(0.3, 5.0), size=int(draw.integers(1, 400)))
    is_right = draw.random(len(confidence)) < confidence ** draw.uniform(0.3, 3.0)

    right, sure = calibration.calibration_curve(is_right, confidence, n_bins=ECE_BINS, strategy="uniform")

    sizes, _ = np.histogram(confidence, ECE_BINS, (0.0, 1.0))
    expected = float(np.abs(right - sure) @ sizes[sizes > 0] / len(confidence))
    bins = reliability(confidence, is_right)
    assert sizes[sizes > 0].tolist() == [each.texts for each in bins]
    assert right.tolist() == pytest.approx([each.accuracy for each in bins])
    assert sure.tolist() == pytest.approx([each.confidence for each in bins])
    assert expected == pytest.approx(calibration_error(bins), abs=ROUNDING)


def test_what_the_command_prints_follows_from_its_confusion_matrix(tmp_path: Path) -> None:
    given_ = ("--sets", str(write_world(tmp_path)), "--data", str(tmp_path), "--engine", "fake", "--json")
    result = CliRunner().invoke(build_app(), ("evaluate", *given_))
    assert 0 == result.exit_code, result.output

    tasks = json.loads(result.stdout)["tasks"]

    assert 3 == len(tasks)
    for task in tasks:
        counts = np.array(task["confusion"])
        truth, said = (np.repeat(places.ravel(), counts.ravel()) for places in np.indices(counts.shape))
        averaged = task["averaged_logits"]
        names = ("macro_f1", "balanced_accuracy", "accuracy")
        assert _theirs(truth, said) == pytest.approx([averaged[name] for name in names], abs=ROUNDING)


def _ours(truth: Int64Array, said: Int64Array) -> list[float]:
    counts = confusion(truth, said, CLASSES)
    return [macro_f1(counts), balanced_accuracy(counts), accuracy(counts)]


def _theirs(truth: Int64Array, said: Int64Array) -> list[float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and never true
        return [
            float(metrics.f1_score(truth, said, average="macro")),
            float(metrics.balanced_accuracy_score(truth, said)),
            float(metrics.accuracy_score(truth, said)),
        ]
