"""An engine without a model: repeatable nonsense, so that everything but scores can be tried without weights."""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from worker.errors import EngineError
from worker.types import Batch, EngineInfo, ModelStamp, NliHead, PairScores

TWO_CLASS_HEAD: Final = NliHead(classes=2, entailment=0, contradiction=1)
_SPREAD: Final = 4.0
"""Logits lie within plus and minus this."""
_COLUMN_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
"""How far the hashes of two columns of a pair lie apart."""


class FakeEngine:
    """Logits that are a hash of each pair's token ids: the same pair always gets the same ones, whatever its batch."""

    def __init__(self, head: NliHead = TWO_CLASS_HEAD, max_pair_tokens: int = 512, token_budget: int = 8192) -> None:
        """`head` decides how many columns the logits have."""
        digest = hashlib.sha256(b"fake").hexdigest()
        self._info = EngineInfo(
            stamp=ModelStamp(name="fake", digest=f"sha256:{digest}", engine="fake", precision="float32"),
            head=head,
            max_pair_tokens=max_pair_tokens,
            token_budget=token_budget,
            details={"device": "none", "why": "asked for; its scores mean nothing"},
        )
        self._is_closed = False

    @property
    def info(self) -> EngineInfo:
        """What was asked for; constant for the life of the engine."""
        return self._info

    def warm_up(self) -> None:
        """Nothing to warm."""

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order.

        Raises:
            EngineError: the engine is closed.
        """
        if self._is_closed:
            message = "the fake engine is closed"
            raise EngineError(message)
        if not len(batch.lengths):
            return PairScores(np.empty((0, self._info.head.classes), np.float32))
        seeds = _hashes(batch)
        columns = np.arange(self._info.head.classes, dtype=np.uint64) * _COLUMN_STEP
        shares = (_mixed(seeds[:, np.newaxis] + columns) >> np.uint64(40)) / (1 << 24)
        return PairScores((shares * (2 * _SPREAD) - _SPREAD).astype(np.float32))

    def close(self) -> None:
        """Refuse all further scoring."""
        self._is_closed = True


def _hashes(batch: Batch) -> npt.NDArray[np.uint64]:
    """uint64 [pairs]: a hash of each pair's tokens, their types and their places, whatever stands beside it."""
    starts = np.cumsum(batch.lengths) - batch.lengths
    places = np.arange(len(batch.token_ids)) - np.repeat(starts, batch.lengths)
    words = (batch.token_ids.astype(np.uint64) << np.uint64(33)) + (places.astype(np.uint64) << np.uint64(1))
    return _mixed(np.add.reduceat(_mixed(words + batch.type_ids.astype(np.uint64)), starts))


def _mixed(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014): every bit of a word changes half of the others."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
