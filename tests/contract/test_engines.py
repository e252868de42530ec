"""What every engine promises, asked of every engine."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.batches import batch_of, random_pairs
from tests.support.tiny_gliclass import write_tiny_gliclass
from worker.engines.artifact import open_folder
from worker.engines.base import Engine, OverlappingEngine
from worker.engines.build import BATCH_BOUNDS
from worker.engines.fake import FakeEngine
from worker.engines.generic_torch import TorchOptions
from worker.engines.gliclass import GliclassEngine
from worker.engines.gliclass_folder import open_gliclass_folder
from worker.engines.layout import warm_up_batches
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError
from worker.types import Batch, LabelRow, NliHead, PairScores

_VOCABULARY = 150


def _bundled(precision: str) -> Engine:
    return OpenVinoEngine(open_folder(BUNDLED_FOLDER), OpenVinoOptions(precision))


def _pytorch(folder: Path) -> Engine:
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        pytest.skip("torch and transformers are not installed")
    from tests.support.tiny_torch import write_tiny_torch_model  # noqa: PLC0415  # it imports torch

    return PyTorchEngine(open_folder(write_tiny_torch_model(folder, "bert")), PyTorchOptions(device="cpu"))


def _gliclass(folder: Path) -> Engine:
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gliclass")):
        pytest.skip("torch, transformers and gliclass are not installed")
    path = write_tiny_gliclass(folder / "tiny", pooling_strategy="avg")
    return GliclassEngine(*open_gliclass_folder(path), TorchOptions(device="cpu"))


_ENGINES: dict[str, Callable[[Path], Engine]] = {
    "fake": lambda _: FakeEngine(),
    "fake-3-class": lambda _: FakeEngine(head=NliHead(3, 2, 0)),
    "openvino-auto": lambda _: _bundled("auto"),
    "openvino-float32": lambda _: _bundled("float32"),
    "openvino-int8": lambda _: _bundled("int8"),
    "pytorch": _pytorch,
    "gliclass": _gliclass,
}
_WITH_TORCH = ("pytorch", "gliclass")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.reference] * (name in _WITH_TORCH)) for name in _ENGINES],
)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = _ENGINES[request.param](tmp_path_factory.mktemp("model"))
    yield made
    made.close()


def _bound(engine: Engine) -> float:
    return BATCH_BOUNDS[engine.info.stamp.precision]


def score(engine: Engine, batch: Batch) -> PairScores:
    """What `engine` says of `batch`; one that reads labels in a row gets each pair as a row with one label."""
    if isinstance(engine.info.reading, LabelRow):
        types = np.zeros_like(batch.type_ids)
        types[np.cumsum(batch.lengths) - batch.lengths + 1] = 1
        batch = replace(batch, type_ids=types)
    return engine.score(batch)


def test_logits_are_float32_with_a_row_per_pair_and_a_column_per_class(engine: Engine) -> None:
    logits = score(engine, batch_of(*random_pairs(5, 30, _VOCABULARY))).logits
    assert (logits.dtype.name, logits.shape) == ("float32", (5, engine.info.head.classes))
    assert np.isfinite(logits).all()


def test_an_empty_batch_has_no_rows(engine: Engine) -> None:
    assert score(engine, batch_of()).logits.shape == (0, engine.info.head.classes)


def test_logits_of_a_pair_do_not_depend_on_its_batch(engine: Engine) -> None:
    """One bad record hurts only itself: alone, among others, and padded to any length a pair is scored alike."""
    pairs = [*random_pairs(7, 40, _VOCABULARY), *random_pairs(1, engine.info.max_pair_tokens, _VOCABULARY, seed=3)]
    together = score(engine, batch_of(*pairs)).logits
    alone = np.concatenate([score(engine, batch_of(pair)).logits for pair in pairs])
    longest = random_pairs(1, engine.info.max_pair_tokens, _VOCABULARY, seed=4)[0]
    padded = np.concatenate([score(engine, batch_of(longest, pair)).logits[1:] for pair in pairs])
    assert np.abs(together - alone).max() <= _bound(engine)
    assert np.abs(padded - alone).max() <= _bound(engine)


def test_rows_come_back_in_the_order_of_the_batch(engine: Engine) -> None:
    pairs = random_pairs(9, 30, _VOCABULARY, seed=1)
    order = np.random.default_rng(0).permutation(len(pairs))
    straight = score(engine, batch_of(*pairs)).logits
    shuffled = score(engine, batch_of(*[pairs[index] for index in order])).logits
    assert np.abs(shuffled - straight[order]).max() <= _bound(engine)


def test_a_batch_that_is_begun_behind_another_is_scored_as_it_is_alone(engine: Engine) -> None:
    if not (isinstance(engine, OverlappingEngine) and engine.can_overlap):
        pytest.skip("this engine has one batch at a time")
    batches = [batch_of(*random_pairs(pairs, 60, _VOCABULARY, seed=pairs)) for pairs in (1, 7, 3, 9)]
    alone = [engine.score(batch).logits for batch in batches]
    running, found = engine.begin(batches[0]), list[PairScores]()
    for batch in batches[1:]:
        following = engine.begin(batch)
        found.append(running())
        running = following
    found.append(running())
    for one, other in zip(alone, found, strict=True):
        assert np.abs(one - other.logits).max() <= _bound(engine)
    assert 0 == len(engine.begin(batch_of())().logits)


def test_different_pairs_get_different_logits(engine: Engine) -> None:
    logits = score(engine, batch_of(*random_pairs(6, 30, _VOCABULARY, seed=2))).logits
    assert len({tuple(row) for row in logits.tolist()}) == 6


def test_the_longest_pair_and_the_fullest_batch_can_be_scored(engine: Engine) -> None:
    info = engine.info
    for batch in warm_up_batches(info.max_pair_tokens, info.token_budget):
        assert score(engine, batch).logits.shape == (len(batch.lengths), info.head.classes)


def test_what_is_said_of_the_engine_is_complete(engine: Engine) -> None:
    info = engine.info
    assert info.stamp.digest.startswith("sha256:")
    assert len(info.stamp.digest) == len("sha256:") + 64
    assert info.stamp.precision in BATCH_BOUNDS
    assert info.token_budget >= info.max_pair_tokens
    assert info.head.entailment != info.head.contradiction
    assert {info.head.entailment, info.head.contradiction} <= set(range(info.head.classes))


@pytest.mark.parametrize(
    "name", ["fake", "openvino-float32", *(pytest.param(name, marks=pytest.mark.reference) for name in _WITH_TORCH)]
)
def test_a_closed_engine_refuses_to_score_and_may_be_closed_again(name: str, tmp_path: Path) -> None:
    engine = _ENGINES[name](tmp_path)
    engine.warm_up()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.score(batch_of([5, 6, 7]))
