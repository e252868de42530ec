import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_openvino import TinyModel, write_tiny_model
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.build import judge, verify
from worker.engines.fake import FakeEngine
from worker.engines.golden import Golden, golden_texts, score_alone
from worker.types import Batch, EngineInfo, Float32Array, PairScores


class _Drifting(FakeEngine):
    """The fake engine, its logits moved by a constant or by the size of the batch."""

    def __init__(self, *, precision: str = "float32", by: float = 0.0, by_batch: float = 0.0) -> None:
        super().__init__(max_pair_tokens=64)
        self.precision = precision
        self.by = by
        self.by_batch = by_batch

    @property
    def info(self) -> EngineInfo:
        info = super().info
        return dataclasses.replace(info, stamp=dataclasses.replace(info.stamp, precision=self.precision))

    def score(self, batch: Batch) -> PairScores:
        moved = super().score(batch).logits + self.by + self.by_batch * (len(batch.lengths) - 1)
        return PairScores(moved.astype(np.float32))


class _Moving(FakeEngine):
    """The fake engine, but for one pair, known by its logits, which gets others."""

    def __init__(self, precision: str, pair: Float32Array, moved: tuple[float, float]) -> None:
        super().__init__(max_pair_tokens=64)
        self.precision = precision
        self.pair = pair
        self.moved = moved

    @property
    def info(self) -> EngineInfo:
        info = super().info
        return dataclasses.replace(info, stamp=dataclasses.replace(info.stamp, precision=self.precision))

    def score(self, batch: Batch) -> PairScores:
        logits = super().score(batch).logits
        logits[(logits == self.pair).all(axis=1)] = self.moved
        return PairScores(logits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    path: Path = tmp_path_factory.mktemp("model")
    return open_folder(write_tiny_model(path, TinyModel(golden_offset=None)))


@pytest.fixture(scope="module")
def truth(folder: ModelFolder) -> Float32Array:
    return score_alone(FakeEngine(max_pair_tokens=64), folder, golden_texts())


def test_an_engine_that_agrees_passes_and_the_report_says_how_well(folder: ModelFolder, truth: Float32Array) -> None:
    report = verify(_Drifting(), folder, Golden(golden_texts(), truth))
    assert (report.passed, report.reason, report.label_flips) == (True, "", 0)
    assert (report.pairs, report.largest_logit_error, report.batch_dependence) == (len(truth), 0.0, 0.0)


@pytest.mark.parametrize(
    ("precision", "by", "passes"),
    [
        ("float32", 0.0009, True),
        ("float32", 0.0011, False),
        ("float16", 0.019, True),
        ("float16", 0.021, False),
        ("bfloat16", 0.049, True),
        ("bfloat16", 0.051, False),
    ],
)
def test_the_bound_on_logits_is_that_of_the_precision(
    folder: ModelFolder, truth: Float32Array, precision: str, by: float, passes: bool
) -> None:
    report = verify(_Drifting(precision=precision, by=by), folder, Golden(golden_texts(), truth))
    assert report.passed is passes
    assert report.largest_logit_error == pytest.approx(by, rel=1e-2)
    assert ("logits differ from float32" in report.reason) is not passes


@pytest.mark.parametrize(("precision", "by_batch"), [("float32", 1.1e-4), ("float16", 2.1e-2), ("bfloat16", 5.1e-2)])
def test_an_engine_whose_logits_depend_on_the_batch_is_refused(
    folder: ModelFolder, truth: Float32Array, precision: str, by_batch: float
) -> None:
    report = verify(
        _Drifting(precision=precision, by_batch=by_batch), folder, Golden(golden_texts(), truth), has_8bit_weights=True
    )
    assert not report.passed
    assert "logits differ between batches" in report.reason
    assert report.batch_dependence >= by_batch * 0.99


def test_8bit_weights_may_move_logits_but_not_labels(folder: ModelFolder, truth: Float32Array) -> None:
    moved = verify(_Drifting(by=0.3), folder, Golden(golden_texts(), truth), has_8bit_weights=True)
    assert (moved.passed, moved.label_flips) == (True, 0)

    flipped = truth.copy()
    flipped[3] = flipped[3][::-1]
    report = verify(_Drifting(), folder, Golden(golden_texts(), flipped), has_8bit_weights=True)
    assert (report.passed, report.label_flips) == (False, 1)
    assert report.reason == f"1 of {len(truth)} labels differ from float32"


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_label_that_float32_is_sure_of_may_flip_in_no_precision(
    folder: ModelFolder, truth: Float32Array, precision: str
) -> None:
    """A margin of 0.0225 in probability, between two classes, is 0.045 in logits."""
    narrow = truth.copy()
    narrow[3] = [0.045, 0.0]
    report = verify(_Moving(precision, truth[3], (-0.004, 0.0)), folder, Golden(golden_texts(), narrow))
    flips = f"1 of {len(truth)} labels differ from float32"
    assert (report.passed, report.label_flips) == (False, 1)
    assert report.largest_logit_error == pytest.approx(0.049)
    assert flips in report.reason
    assert (report.reason == flips) is (precision == "bfloat16"), "its bound on logits allows as much"


def test_a_flip_where_float32_is_unsure_does_not_count(folder: ModelFolder, truth: Float32Array) -> None:
    unsure = truth.copy()
    unsure[3] = [0.01, 0.0] if truth[3, 0] < truth[3, 1] else [0.0, 0.01]
    report = verify(_Drifting(), folder, Golden(golden_texts(), unsure), has_8bit_weights=True)
    assert (report.passed, report.label_flips) == (True, 0)


def test_logits_that_are_not_numbers_never_pass(folder: ModelFolder, truth: Float32Array) -> None:
    assert not verify(_Drifting(by=float("nan")), folder, Golden(golden_texts(), truth)).passed


@pytest.mark.parametrize(("size", "is_passed"), [(5.0, False), (100.0, True)])
def test_large_logits_may_be_off_by_more_as_float32_itself_is(size: float, *, is_passed: bool) -> None:
    expected = np.array([[size, -size], [-size, size]], np.float32)

    report = judge(expected, expected, 5e-4, "float32", has_8bit_weights=False)

    assert is_passed == report.passed


def test_a_logit_that_is_no_number_is_told_of_with_8_bit_weights_too() -> None:
    expected = np.array([[1.0, -1.0]], np.float32)

    report = judge(expected, np.array([[np.nan, -1.0]], np.float32), 0.0, "float32", has_8bit_weights=True)

    assert not report.passed
