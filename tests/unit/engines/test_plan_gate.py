from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import fake_tensorrt
from tests.support.plans import open_tiny
from worker.engines.artifact import open_folder
from worker.engines.build import GateReport
from worker.engines.golden import Golden, encode_pairs, golden_texts
from worker.engines.layout import checked_logits
from worker.engines.plan_gate import verify_plan, worst_of
from worker.engines.trt import TensorRtEngine
from worker.types import Batch, Float32Array


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("engine")
    return path


@pytest.fixture(scope="module")
def engine(root: Path) -> Iterator[TensorRtEngine]:
    fake_tensorrt.state.reset()
    made = open_tiny(root, "lengths")
    yield made
    made.close()


@pytest.fixture(scope="module")
def golden(engine: TensorRtEngine, root: Path) -> Golden:
    folder = open_folder(root / "model")
    texts = golden_texts()
    logits = np.concatenate([engine.score(single).logits for single in encode_pairs(folder, texts)])
    return Golden(texts, logits)


@pytest.fixture
def spoiling(
    engine: TensorRtEngine, golden: Golden, root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int, "Spoiler"], GateReport]:
    """What the gate says of the engine when the logits of one profile are changed."""
    score_in = engine.score_in

    def verify_spoilt(profile: int, spoiler: Spoiler) -> GateReport:
        def spoilt(index: int, batch: Batch) -> Float32Array:
            logits = score_in(index, batch)
            changed = spoiler(logits, batch) if index == profile else logits
            return checked_logits(changed, len(batch.lengths), engine.info.head)

        monkeypatch.setattr(engine, "score_in", spoilt)
        return verify_plan(engine, open_folder(root / "model"), golden)

    return verify_spoilt


def test_a_plan_that_agrees_in_every_profile_passes(engine: TensorRtEngine, golden: Golden, root: Path) -> None:
    report = verify_plan(engine, open_folder(root / "model"), golden)
    assert (report.passed, report.reason) == (True, "")
    assert report.largest_logit_error <= 2e-2


Spoiler = Callable[[Float32Array, Batch], Float32Array]
SPOILERS: dict[str, tuple[Spoiler, str]] = {
    "wrong": (lambda logits, _: logits + np.float32(0.1), "logits differ from float32 by 0.1"),
    "by-row": (
        lambda logits, _: logits + np.arange(len(logits), dtype=np.float32)[:, None] * np.float32(0.01),
        "logits differ",
    ),
    "by-batch": (lambda logits, batch: logits + np.float32(0.03) * (len(batch.lengths) > 1), "logits differ"),
    "shifted": (lambda logits, _: np.roll(logits, 1, axis=0), "logits differ"),
    "nan": (lambda logits, _: logits * np.float32(np.nan), "not finite"),
}


@pytest.mark.parametrize("profile", [0, 1, 2])
@pytest.mark.parametrize("name", SPOILERS)
def test_one_profile_that_does_not_agree_refuses_the_plan_and_is_named(
    spoiling: Callable[[int, Spoiler], GateReport], engine: TensorRtEngine, profile: int, name: str
) -> None:
    spoiler, reason = SPOILERS[name]
    report = spoiling(profile, spoiler)
    kind = engine.profiles[profile]
    assert not report.passed
    assert f"profile of {kind.pairs} pairs and {kind.tokens} tokens: " in report.reason
    assert reason in report.reason


def test_rows_that_depend_on_their_order_alone_are_found(
    engine: TensorRtEngine, golden: Golden, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right in rising lengths, as the other checks score them, and wrong the other way round."""
    score_in = engine.score_in

    def falling_is_wrong(index: int, batch: Batch) -> Float32Array:
        logits = score_in(index, batch)
        is_falling = len(batch.lengths) > 8 and batch.lengths[0] > batch.lengths[-1]
        return logits + np.float32(0.05 * is_falling)

    monkeypatch.setattr(engine, "score_in", falling_is_wrong)
    report = verify_plan(engine, open_folder(root / "model"), golden)
    assert not report.passed
    assert "with the order of rows" in report.reason


@pytest.mark.parametrize("error", [ValueError("not finite"), RuntimeError("it did not run")])
def test_an_engine_that_gives_no_logits_as_a_whole_does_not_pass(
    engine: TensorRtEngine, golden: Golden, root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Every profile is right by itself, and the lanes together are not."""

    def fail(_batch: Batch) -> None:
        raise error

    monkeypatch.setattr(engine, "score", fail)
    report = verify_plan(engine, open_folder(root / "model"), golden)
    assert (report.passed, report.reason) == (False, str(error))


def test_the_worst_number_of_all_reports_is_kept_and_a_nan_is_worse_than_any(
    engine: TensorRtEngine, golden: Golden, root: Path
) -> None:
    import dataclasses  # noqa: PLC0415  # only here

    good = verify_plan(engine, open_folder(root / "model"), golden)
    bad = dataclasses.replace(good, largest_logit_error=float("nan"), passed=False, reason="bad")
    worst = worst_of([good, bad, good])
    assert np.isnan(worst.largest_logit_error)
    assert (worst.passed, worst.reason) == (False, "bad")
