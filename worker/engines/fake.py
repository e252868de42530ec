"""An engine without a model: repeatable nonsense, so that everything but scores can be tried without weights."""

import hashlib
from collections.abc import Iterator
from typing import Final
from zlib import crc32

import numpy as np

from worker.errors import EngineError
from worker.types import Batch, EngineInfo, ModelStamp, NliHead, PairScores

TWO_CLASS_HEAD: Final = NliHead(classes=2, entailment=0, contradiction=1)
_SPREAD: Final = 4.0
"""Logits lie within plus and minus this."""
_MIXER: Final = 0x9E3779B1
"""An odd multiple of it stirs a checksum for each column of the logits (Knuth 1997, section 6.4: multiplicative)."""


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
        seeds = np.fromiter(_checksums(batch), np.uint32, len(batch.lengths))
        factors = [np.uint32(_MIXER * (2 * column + 1) % (1 << 32)) for column in range(self._info.head.classes)]
        shares = np.stack([(seeds * factor) >> np.uint32(8) for factor in factors], axis=1) / (1 << 24)
        return PairScores((shares * (2 * _SPREAD) - _SPREAD).astype(np.float32))

    def close(self) -> None:
        """Refuse all further scoring."""
        self._is_closed = True


def _checksums(batch: Batch) -> Iterator[int]:
    """One for each pair, of its tokens and their types, whatever stands beside it.

    By row: that costs less than the passes over arrays, of which each gives up Python's lock.
    """
    ids, types = memoryview(batch.token_ids.tobytes()), memoryview(batch.type_ids.tobytes())
    end = 0
    for size in (batch.lengths * batch.token_ids.itemsize).tolist():
        start, end = end, end + size
        yield crc32(types[start:end], crc32(ids[start:end]))
