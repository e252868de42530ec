"""What is kept of scores, and what it takes."""

import gc
import tracemalloc

import numpy as np
import pytest

from worker.pipeline.pair_keys import PairHasher
from worker.pipeline.score_cache import ENTRY_BYTES, ScoreCache
from worker.types import Batch, PairRef


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def test_entries_take_no_more_than_they_are_reckoned_at() -> None:
    """Half full is the worst: both generations' tables are then at their largest for what they hold."""
    rows = np.random.default_rng(0).normal(size=(150_000, 3)).astype(np.float32)
    gc.collect()
    tracemalloc.start()
    try:
        cache = ScoreCache(200_000 * ENTRY_BYTES)
        for number, row in enumerate(rows):
            cache.put(key(number), row.tobytes())
            if number % 10_000 == 9_999:
                taken, _ = tracemalloc.get_traced_memory()
                assert taken <= 200_000 * ENTRY_BYTES
        taken, _ = tracemalloc.get_traced_memory()
        assert taken <= 1.1 * len(cache) * ENTRY_BYTES
    finally:
        tracemalloc.stop()


def test_it_never_holds_more_than_its_bytes() -> None:
    cache = ScoreCache(100 * ENTRY_BYTES)
    for number in range(1000):
        cache.put(key(number), b"row")
        assert cache.held_bytes <= 100 * ENTRY_BYTES
    assert 50 <= len(cache)


def test_what_is_asked_for_again_and_again_stays() -> None:
    cache = ScoreCache(100 * ENTRY_BYTES)
    cache.put(key(0), b"kept")
    for number in range(1, 1000):
        cache.put(key(number), b"row")
        assert b"kept" == cache.get(key(0))
    assert None is cache.get(key(1))


@pytest.mark.parametrize("most_bytes", [0, ENTRY_BYTES])
def test_without_room_nothing_is_kept(most_bytes: int) -> None:
    cache = ScoreCache(most_bytes)
    cache.put(key(0), b"row")
    assert (True, None, 0) == (cache.is_off, cache.get(key(0)), len(cache))


def test_a_pair_is_told_from_one_with_the_same_tokens_in_other_parts() -> None:
    ids = np.array([1, 2, 3, 4], np.int32)
    types = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]
    batch = Batch(
        tuple(PairRef(number, 0) for number in range(3)),
        np.tile(ids, 3),
        np.array(types, np.int32).ravel(),
        np.full(3, 4, np.int32),
    )
    first, second, third = PairHasher().keys(batch.token_ids, batch.type_ids, batch.lengths)
    assert first == third
    assert first != second
