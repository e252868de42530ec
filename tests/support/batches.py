"""Batches of any pairs, for tests of what scores them."""

import numpy as np

from worker.types import Batch, PairRef


def batch_of(*pairs: list[int]) -> Batch:
    """A batch of pairs given as token ids; the second half of each is the hypothesis."""
    types = [[0] * (len(pair) // 2) + [1] * (len(pair) - len(pair) // 2) for pair in pairs]
    return Batch(
        refs=tuple(PairRef(0, index) for index in range(len(pairs))),
        token_ids=np.array([token for pair in pairs for token in pair], dtype=np.int32),
        type_ids=np.array([kind for row in types for kind in row], dtype=np.int32),
        lengths=np.array([len(pair) for pair in pairs], dtype=np.int32),
    )


def random_pairs(count: int, longest: int, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Pairs of random tokens and random lengths from 3 to `longest`."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, longest, count, endpoint=True)
    return [random.integers(5, vocabulary, length).tolist() for length in lengths]
