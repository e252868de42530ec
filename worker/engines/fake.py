"""An engine without a model: repeatable nonsense, so that everything but scores can be tried without weights."""

import hashlib
from typing import Final

import numpy as np

from worker.errors import EngineError
from worker.types import Batch, EngineInfo, ModelStamp, NliHead, PairScores

TWO_CLASS_HEAD: Final = NliHead(classes=2, entailment=0, contradiction=1)
_SPREAD: Final = 4.0
"""Logits lie within plus and minus this."""


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
        logits = np.empty((len(batch.lengths), self._info.head.classes), dtype=np.float32)
        end = 0
        for row, length in enumerate(batch.lengths.tolist()):
            start, end = end, end + length
            seed = batch.token_ids[start:end].tobytes() + b"/" + batch.type_ids[start:end].tobytes()
            logits[row] = self._logits_of(seed)
        return PairScores(logits)

    def close(self) -> None:
        """Refuse all further scoring."""
        self._is_closed = True

    def _logits_of(self, seed: bytes) -> np.typing.NDArray[np.float64]:
        """One row, from four bytes of the hash per class."""
        classes = self._info.head.classes
        digest = hashlib.shake_128(seed).digest(4 * classes)
        return np.frombuffer(digest, dtype="<u4") / 0xFFFFFFFF * (2 * _SPREAD) - _SPREAD
