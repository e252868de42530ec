"""What pairs are told apart by: a hash of their tokens, of many pairs at once."""

from secrets import token_bytes

import numpy as np
import numpy.typing as npt

from worker.types import Int32Array

KEY_BYTES = 16

_SUMS = KEY_BYTES // 4
_RESERVED = 2
"""Factors of a sum before those of its words: a number by itself, and one for the length."""
_FIRST_FACTORS = 1024
_TYPE_SHIFT = np.uint64(28)
"""No vocabulary has as many tokens as fit into the bits below."""


def pair_keys(token_ids: Int32Array, type_ids: Int32Array, lengths: Int32Array) -> tuple[bytes, ...]:
    """A 128-bit hash of each pair: equal for equal pairs, and for no others that anyone could find.

    `token_ids` and `type_ids` are int32 [sum of lengths], the pairs one after the other; `lengths` is int32 [pairs].
    Good for this process alone.
    """
    if not len(lengths):
        return ()
    words = token_ids.astype(np.uint64) + (type_ids.astype(np.uint64) << _TYPE_SHIFT)
    content = _MULTILINEAR.hashes(words, lengths.astype(np.int64))
    return tuple([content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)])


class _Multilinear:
    """Hashes of strings of 32-bit words: each the upper halves of four sums of products with secret random numbers.

    Strongly universal: two different strings have equal hashes with a probability of 2^-128, whoever chose them, as
    long as the numbers stay in this process (Lemire and Kaser 2014, "Strongly universal string hashing is fast").
    """

    def __init__(self) -> None:
        self._factors = self._drawn(_FIRST_FACTORS)

    @staticmethod
    def _drawn(count: int) -> npt.NDArray[np.uint64]:
        return np.frombuffer(token_bytes(_SUMS * count * 8), np.uint64).reshape(_SUMS, count)

    def hashes(self, words: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]) -> bytes:
        """`KEY_BYTES` for each of the strings that stand one after the other in `words`."""
        missing = _RESERVED + int(lengths.max()) - self._factors.shape[1]
        if missing > 0:  # those that are in use stay as they are
            self._factors = np.concatenate([self._factors, self._drawn(missing)], axis=1)
        starts = np.cumsum(lengths) - lengths
        places = np.arange(_RESERVED, _RESERVED + len(words)) - np.repeat(starts, lengths)
        sums = np.add.reduceat(self._factors[:, places] * words, starts, axis=1)
        sums += self._factors[:, :1] + self._factors[:, 1:_RESERVED] * lengths.astype(np.uint64)
        return (sums >> np.uint64(32)).astype(np.uint32).T.tobytes()


_MULTILINEAR = _Multilinear()
