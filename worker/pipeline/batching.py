"""Step 6: pairs of all topics, partitions and schemas in one queue, cut into batches of like length.

Pure: the caller brings the lock, and there is no clock. A batch is cut when the engine asks for one; age is
counted in batches cut since a pair arrived.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.types import Batch, PairRef, TokenizedPairs

NEIGHBOUR_SHARE = 0.85
"""A batch is filled up with pairs down to this share of its longest: a bound on its padding."""
OLDEST_WAITS_BATCHES = 16
"""A pair that has seen this many batches go by without it leads the next one."""


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """How large the next batch may be, and how long a pair may be passed over."""

    tokens: int
    """Padded tokens; a longer single pair is a batch of its own."""
    waits_batches: int = OLDEST_WAITS_BATCHES


class _Run(NamedTuple):
    """Consecutive pairs of one message that are equally long."""

    message: int
    first: int
    pairs: int
    tokenized: TokenizedPairs
    start: int  # of the first one's tokens
    length: int  # of each
    arrived_after: int  # batches cut before it came
    keys: tuple[bytes, ...]  # of all pairs of the message, or none


class Batcher:
    """The queue of pairs between tokenization and the engine.

    The cost of a batch is what a padding engine pays: its longest pair times its number of pairs.
    """

    def __init__(self, token_budget: int) -> None:
        """Batches cost at most `token_budget` padded tokens; a longer single pair is a batch of its own."""
        self._limit = BatchLimit(token_budget)
        self._buckets: dict[int, deque[_Run]] = {}  # by length
        self._waiting: dict[int, int] = {}  # pairs, by length
        self._tokens = 0
        self._pairs = 0
        self._batches = 0

    @property
    def limit(self) -> BatchLimit:
        """What holds for a batch for which no other limit is given."""
        return self._limit

    @property
    def tokens(self) -> int:
        """Tokens waiting, without padding."""
        return self._tokens

    @property
    def pairs(self) -> int:
        """Pairs waiting."""
        return self._pairs

    def add(self, message: int, pairs: TokenizedPairs, keys: tuple[bytes, ...] = ()) -> None:
        """Queue every pair of `message`; `keys` are those of its rows, where anyone will ask for them."""
        start = 0
        for first, count, length in _equally_long(pairs.lengths.tolist()):
            self._put(_Run(message, first, count, pairs, start, length, self._batches, keys))
            start += count * length
        self._tokens += start
        self._pairs += len(pairs.lengths)

    def drop(self, messages: set[int]) -> None:
        """Forget the waiting pairs of `messages`."""
        kept = [run for bucket in self._buckets.values() for run in bucket if run.message not in messages]
        self._buckets, self._waiting = {}, {}
        for run in kept:
            self._put(run)
        self._pairs = sum(run.pairs for run in kept)
        self._tokens = sum(run.pairs * run.length for run in kept)

    def pop(self, limit: BatchLimit | None = None) -> Batch | None:
        """The next batch, or None when nothing waits; under `limit` where one is given.

        It is led by the length with which most of the limit is used on tokens that are no padding, unless the oldest
        pair has waited too long; the next shorter ones fill it up.
        """
        if not self._buckets:
            return None
        limit = limit or self._limit
        longest = self._leading_length(limit)
        most = max(1, limit.tokens // longest)
        taken: list[_Run] = []
        for length in sorted((each for each in self._buckets if each <= longest), reverse=True):
            if most == 0 or length < longest * NEIGHBOUR_SHARE:
                break
            most -= self._take(length, most, taken)
        self._batches += 1
        self._pairs -= sum([run.pairs for run in taken])
        self._tokens -= sum([run.pairs * run.length for run in taken])
        return _batch(taken)

    def _put(self, run: _Run) -> None:
        bucket = self._buckets.get(run.length)
        if bucket is None:
            bucket = self._buckets[run.length] = deque()
            self._waiting[run.length] = 0
        bucket.append(run)
        self._waiting[run.length] += run.pairs

    def _leading_length(self, limit: BatchLimit) -> int:
        oldest = min(self._buckets, key=lambda length: self._buckets[length][0].arrived_after)
        if self._batches - self._buckets[oldest][0].arrived_after >= limit.waits_batches:
            return oldest
        return best_length(self._waiting, limit.tokens)

    def _take(self, length: int, most: int, taken: list[_Run]) -> int:
        """Move up to `most` pairs of this length over to `taken`; how many they are."""
        bucket, count = self._buckets[length], 0
        while bucket and count < most:
            run = bucket.popleft()
            room = most - count
            if run.pairs > room:
                rest = run._replace(first=run.first + room, pairs=run.pairs - room, start=run.start + room * length)
                bucket.appendleft(rest)
                run = run._replace(pairs=room)
            taken.append(run)
            count += run.pairs
        self._waiting[length] -= count
        if not bucket:
            del self._buckets[length], self._waiting[length]
        return count


def best_length(waiting: Mapping[int, int], token_budget: int) -> int:
    """Which length, of those `waiting` (pairs by length), is the best to lead a batch: the one that holds most tokens.

    Padding and room that is left count alike: both are tokens that could have been in it.
    """
    lengths = np.array(sorted(waiting, reverse=True))
    counts = np.array([waiting[length] for length in lengths.tolist()])
    pairs_until = np.concatenate([[0], np.cumsum(counts)])
    tokens_until = np.concatenate([[0], np.cumsum(counts * lengths)])
    # Where a batch led by each length would end: at its budget, or where pairs are too short for it.
    by_budget = pairs_until[:-1] + np.maximum(1, token_budget // lengths)
    by_share = pairs_until[np.searchsorted(-lengths, -lengths * NEIGHBOUR_SHARE, side="right")]
    ends = np.minimum(by_budget, by_share)
    held = _tokens_before(ends, pairs_until, tokens_until, lengths) - tokens_until[:-1]
    # A pair beyond the budget is a batch of its own and would always hold the most.
    return int(lengths[np.argmax(np.minimum(held, token_budget))])


def _tokens_before(
    ends: npt.NDArray[np.int64],
    pairs_until: npt.NDArray[np.int64],
    tokens_until: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The tokens of the first `ends` pairs, longest first."""
    place = np.searchsorted(pairs_until, ends, side="right") - 1
    beyond = ends - pairs_until[place]
    return np.asarray(tokens_until[place] + beyond * lengths[np.minimum(place, len(lengths) - 1)])


def _equally_long(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Consecutive pairs of one length: the first one, how many, their length."""
    first = 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or lengths[index] != lengths[first]:
            yield first, index - first, lengths[first]
            first = index


def _batch(taken: list[_Run]) -> Batch:
    # Pairs of one message side by side, so that its scores are one piece: within a batch any order costs the same.
    taken.sort(key=itemgetter(0, 1))
    refs: list[PairRef] = []
    ids, types, lengths = [], [], []
    asked: list[int] = []
    keys: list[bytes] = []
    for message, first, count, tokenized, start, length, _, its_keys in taken:
        refs.extend(map(PairRef, repeat(message, count), range(first, first + count)))
        end = start + count * length
        ids.append(tokenized.token_ids[start:end])
        types.append(tokenized.type_ids[start:end])
        lengths += [length] * count
        asked += [tokenized.hypotheses] * count
        keys += its_keys[first : first + count]
    return Batch(
        tuple(refs),
        np.concatenate(ids),
        np.concatenate(types),
        np.array(lengths, np.int32),
        None if max(asked) == 1 else np.array(asked, np.int32),
        tuple(keys) if len(keys) == len(refs) else None,
    )
