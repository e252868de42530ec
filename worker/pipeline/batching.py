"""Step 6: pairs of all topics, partitions and schemas in one queue, cut into batches of like length.

Pure: the caller brings the lock, and there is no clock. A batch is cut when the engine asks for one; age is
counted in batches cut since a pair arrived.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from worker.types import Batch, PairRef, TokenizedPairs

BUCKET_TOKENS = 8
"""Lengths are told apart in steps of 8 tokens: within a step padding costs at most 7 tokens a pair."""
NEIGHBOUR_SHARE = 0.75
"""A batch is filled up from shorter buckets down to this share of its width: bounds padding to a quarter."""
OLDEST_WAITS_BATCHES = 16
"""A pair that has seen this many batches go by without it leads the next one."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    ref: PairRef
    pairs: TokenizedPairs
    start: int
    length: int
    arrived_after: int  # batches cut before it came


class Batcher:
    """The queue of pairs between tokenization and the engine.

    The cost of a batch is what a padding engine pays: its longest pair times its number of pairs.
    """

    def __init__(self, token_budget: int) -> None:
        """Batches cost at most `token_budget` padded tokens; a longer single pair is a batch of its own."""
        self._token_budget = token_budget
        self._buckets: dict[int, deque[_Waiting]] = {}
        self._tokens = 0
        self._pairs = 0
        self._batches = 0

    @property
    def tokens(self) -> int:
        """Tokens waiting, without padding."""
        return self._tokens

    @property
    def pairs(self) -> int:
        """Pairs waiting."""
        return self._pairs

    def add(self, message: int, pairs: TokenizedPairs) -> None:
        """Queue every pair of `message`."""
        start = 0
        for index, length in enumerate(pairs.lengths.tolist()):
            waiting = _Waiting(PairRef(message, index), pairs, start, length, self._batches)
            self._buckets.setdefault(-(-length // BUCKET_TOKENS), deque()).append(waiting)
            start += length
        self._tokens += start
        self._pairs += len(pairs.lengths)

    def drop(self, messages: set[int]) -> None:
        """Forget the waiting pairs of `messages`."""
        for width, bucket in list(self._buckets.items()):
            kept = deque(waiting for waiting in bucket if waiting.ref.message not in messages)
            self._pairs -= len(bucket) - len(kept)
            self._tokens -= sum(w.length for w in bucket) - sum(w.length for w in kept)
            if kept:
                self._buckets[width] = kept
            else:
                del self._buckets[width]

    def pop(self) -> Batch | None:
        """The next batch, or None when nothing waits.

        The fullest bucket leads, unless the oldest pair has waited too long; shorter neighbours fill up.
        """
        if not self._buckets:
            return None
        widest = self._leading_bucket()
        taken: list[_Waiting] = []
        longest = 0
        for width in range(widest, 0, -1):
            if taken and width < widest * NEIGHBOUR_SHARE:
                break
            longest = self._take(width, taken, longest)
        self._batches += 1
        self._pairs -= len(taken)
        self._tokens -= sum(waiting.length for waiting in taken)
        return _batch(taken)

    def _leading_bucket(self) -> int:
        oldest = min(self._buckets, key=lambda width: self._buckets[width][0].arrived_after)
        if self._batches - self._buckets[oldest][0].arrived_after >= OLDEST_WAITS_BATCHES:
            return oldest
        return max(self._buckets, key=lambda width: width * len(self._buckets[width]))

    def _take(self, width: int, taken: list[_Waiting], longest: int) -> int:
        bucket = self._buckets.get(width)
        while bucket:
            length = max(longest, bucket[0].length)
            if taken and length * (len(taken) + 1) > self._token_budget:
                return longest
            taken.append(bucket.popleft())
            longest = length
        self._buckets.pop(width, None)
        return longest


def _batch(taken: list[_Waiting]) -> Batch:
    return Batch(
        refs=tuple(waiting.ref for waiting in taken),
        token_ids=np.concatenate([w.pairs.token_ids[w.start : w.start + w.length] for w in taken]),
        type_ids=np.concatenate([w.pairs.type_ids[w.start : w.start + w.length] for w in taken]),
        lengths=np.array([waiting.length for waiting in taken], np.int32),
    )
