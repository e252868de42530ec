"""What pairs are told apart by: a hash of their tokens, of many pairs at once."""

import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from secrets import token_bytes

import numpy as np
import numpy.typing as npt

from worker.types import Int32Array, TokenizedPairs

KEY_BYTES = 16

_SUMS = KEY_BYTES // 4
_RESERVED = 2
"""Factors of a sum before those of its words: a number by itself, and one for the length."""
_FIRST_FACTORS = 1024
_TYPE_SHIFT = np.uint64(28)
"""A word is a token id below its type: no vocabulary has 2^28 tokens, no model 16 types."""


class PairHasher:
    """128-bit hashes: equal for equal pairs, and for no others that anyone could find. Thread-safe.

    Each is the upper halves of four sums of products with secret random numbers, which is strongly universal: two
    different pairs have equal hashes with a probability of 2^-128, whoever chose them (Lemire and Kaser 2014, "Strongly
    universal string hashing is fast"). Another hasher has other numbers, and gives other hashes.
    """

    def __init__(self) -> None:
        self._growing = threading.Lock()
        self._factors = self._drawn(_FIRST_FACTORS)

    def keys(self, token_ids: Int32Array, type_ids: Int32Array, lengths: Int32Array) -> tuple[bytes, ...]:
        """The hash of each pair.

        `token_ids` and `type_ids` are int32 [sum of lengths], the pairs one after the other; `lengths` is int32
        [pairs], each at least 1.
        """
        if not len(lengths):
            return ()
        words = token_ids.astype(np.uint64) + (type_ids.astype(np.uint64) << _TYPE_SHIFT)
        sizes = lengths.astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        places = np.arange(_RESERVED, _RESERVED + len(words)) - np.repeat(starts, sizes)
        hashes = np.empty((len(sizes), _SUMS), np.uint32)
        for column, factors in enumerate(self._enough_for(int(sizes.max()))):
            products = factors[places]
            products *= words
            sums = np.add.reduceat(products, starts) + factors[0] + factors[1] * sizes.astype(np.uint64)
            hashes[:, column] = sums >> np.uint64(32)
        content = hashes.tobytes()
        return tuple([content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)])

    def keys_of_each(self, messages: Sequence[TokenizedPairs]) -> Iterator[tuple[bytes, ...]]:
        """The hashes of each message's rows, of all of them in a few passes."""
        if not messages:
            return
        token_ids = np.concatenate([each.token_ids for each in messages])
        type_ids = np.concatenate([each.type_ids for each in messages])
        keys = iter(self.keys(token_ids, type_ids, np.concatenate([each.lengths for each in messages])))
        for each in messages:
            yield tuple(islice(keys, len(each.lengths)))

    def _enough_for(self, length: int) -> npt.NDArray[np.uint64]:
        """uint64 [sums, factors]: those of a pair so long. What is in use stays as it is when more are drawn."""
        factors = self._factors
        if _RESERVED + length > factors.shape[1]:
            with self._growing:
                missing = _RESERVED + length - self._factors.shape[1]
                if missing > 0:
                    self._factors = np.concatenate([self._factors, self._drawn(missing)], axis=1)
                factors = self._factors
        return factors

    @staticmethod
    def _drawn(count: int) -> npt.NDArray[np.uint64]:
        return np.frombuffer(token_bytes(_SUMS * count * 8), np.uint64).reshape(_SUMS, count)
