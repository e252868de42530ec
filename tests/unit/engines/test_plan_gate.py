from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import fake_tensorrt
from tests.support.plans import open_tiny
from worker.engines.artifact import open_folder
from worker.engines.build import GateReport
from worker.engines.golden import Golden, edge_pairs, encode_pairs, golden_texts
from worker.engines.layout import checked_logits
from worker.engines.plan_gate import Sample, fullest, verify_plan, worst_of
from worker.engines.profiles import Profile
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


def _at_most(engine: TensorRtEngine, spoil_above: int) -> Callable[[int, Batch], Float32Array]:
    """Right in batches of up to so many pairs."""
    score_in = engine.score_in

    def spoilt(index: int, batch: Batch) -> Float32Array:
        return score_in(index, batch) + np.float32(0.1 * (len(batch.lengths) > spoil_above))

    return spoilt


def test_a_plan_that_is_wrong_only_when_a_profile_is_full_is_refused(
    root: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More pairs than there are golden ones: these come again and again until there is no room."""
    engine = open_tiny(root / "wide", "lengths", token_budget=4096)
    most = engine.profiles[0].pairs
    assert most > len(golden.pairs)
    monkeypatch.setattr(engine, "score_in", _at_most(engine, most - 1))
    report = verify_plan(engine, open_folder(root / "model"), golden)
    engine.close()
    assert not report.passed
    assert f"in a batch of {most}, logits differ from float32 by 0.1" in report.reason


@pytest.mark.parametrize("layout", ["lengths", "packed"])
def test_every_profile_is_run_at_its_largest_shape_with_a_pair_as_long_as_it_takes(
    layout: str, root: Path, golden: Golden
) -> None:
    engine, folder = open_tiny(root / f"full-{layout}", layout), open_folder(root / "model")
    lengths = [engine.info.max_pair_tokens] if layout == "packed" else [profile.tokens for profile in engine.profiles]
    singles = edge_pairs(folder, lengths)
    assert sorted({single.token_ids.size for single in singles}) == lengths
    edges = Sample(singles, np.concatenate([engine.score(single).logits for single in singles]))
    fake_tensorrt.state.calls.clear()
    report = verify_plan(engine, folder, golden, edges)
    ran = [call[1] for call in fake_tensorrt.state.named("execute_async_v3")]
    engine.close()
    assert (report.passed, report.pairs) == (True, len(golden.pairs) + len(singles))
    if layout == "packed":
        tokens, pairs = ({shapes[name] for shapes in ran} for name in ("input_ids", "cumulative_lengths"))
        assert all((profile.tokens,) in tokens and (profile.pairs + 1,) in pairs for profile in engine.profiles)
    else:
        shapes = {shapes["input_ids"] for shapes in ran}
        assert all((profile.pairs, profile.tokens) in shapes for profile in engine.profiles)


def test_a_plan_that_is_wrong_only_at_the_last_place_of_a_profile_is_refused(
    engine: TensorRtEngine, golden: Golden, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, last = open_folder(root / "model"), engine.profiles[0].tokens
    singles = edge_pairs(folder, [profile.tokens for profile in engine.profiles])
    edges = Sample(singles, np.concatenate([engine.score(single).logits for single in singles]))
    score_in = engine.score_in

    def spoilt(index: int, batch: Batch) -> Float32Array:
        is_last = (batch.lengths == last).astype(np.float32)
        logits: Float32Array = score_in(index, batch) + np.float32(0.1) * is_last[:, None]
        return logits

    monkeypatch.setattr(engine, "score_in", spoilt)
    assert verify_plan(engine, folder, golden).passed, "no golden pair is just so long"
    assert "logits differ from float32 by 0.1" in verify_plan(engine, folder, golden, edges).reason


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    tokens=st.integers(40, 400),
    pairs=st.integers(1, 60),
    layout=st.sampled_from(["padded", "packed"]),
)
def test_what_fills_a_profile_up_fits_it_and_leaves_no_room(
    sizes: list[int], tokens: int, pairs: int, layout: str
) -> None:
    batches = fullest(sizes, Profile(tokens, pairs), layout)
    assert sizes[batches[0][0]] == max(sizes)
    for rows in batches:
        held = sum(sizes[row] for row in rows)
        assert len(rows) <= pairs
        assert held <= tokens or layout == "padded"
        assert len(rows) == pairs or tokens - held < min(sizes)
