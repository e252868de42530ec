"""The keys of pairs: those of a definition in whole numbers, and with their pairs wherever these go."""

import threading

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import messages, pairs_of
from worker.flow import PairQueue
from worker.pipeline.batching import Batcher
from worker.pipeline.pair_keys import KEY_BYTES, PairHasher
from worker.types import Int32Array

AWHILE_SECONDS = 0.5

pairs = st.lists(st.tuples(st.integers(0, 2**28 - 1), st.integers(0, 15)), min_size=1, max_size=6)


def arrays(drawn: list[list[tuple[int, int]]]) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Token ids, types and lengths."""
    tokens = [token for pair in drawn for token in pair]
    lengths = np.array([len(pair) for pair in drawn], np.int32)
    return np.array([t for t, _ in tokens], np.int32), np.array([t for _, t in tokens], np.int32), lengths


def key_by_hand(hasher: PairHasher, pair: list[tuple[int, int]]) -> bytes:
    """The multilinear hash as it is written down: products and sums of whole numbers, modulo 2^64."""
    key = b""
    for alone, of_length, *factors in hasher._factors.tolist():
        total = alone + of_length * len(pair)
        total += sum(factor * (token + (kind << 28)) for factor, (token, kind) in zip(factors, pair, strict=False))
        key += (total % 2**64 >> 32).to_bytes(4, "little")
    return key


@given(st.lists(pairs, min_size=1, max_size=8))
def test_a_key_is_the_multilinear_hash_of_its_pair(drawn: list[list[tuple[int, int]]]) -> None:
    hasher = PairHasher()
    assert tuple(key_by_hand(hasher, pair) for pair in drawn) == hasher.keys(*arrays(drawn))


def test_a_longer_pair_than_ever_changes_no_key_that_was_given() -> None:
    hasher, short = PairHasher(), [[(7, 0), (8, 1)]]
    before = hasher.keys(*arrays(short))
    longest = [[(number % 11, number % 2) for number in range(5000)]]
    assert (key_by_hand(hasher, longest[0]),) != (key := hasher.keys(*arrays(longest)))
    assert (key_by_hand(hasher, longest[0]),) == key
    assert before == hasher.keys(*arrays(short))


def test_a_key_given_while_another_thread_brings_a_longer_pair_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher, drawn = PairHasher(), PairHasher._drawn
    long, longer = ([[(1, 0)] * length] for length in (2000, 3000))
    found: list[tuple[bytes, ...]] = []
    other = threading.Thread(target=lambda: found.append(hasher.keys(*arrays(long))), daemon=True)

    def drawn_meanwhile(count: int) -> npt.NDArray[np.uint64]:
        if other.ident is None:
            other.start()
            other.join(AWHILE_SECONDS)  # for as long as it may take to get in between, if it can
        return drawn(count)

    monkeypatch.setattr(PairHasher, "_drawn", staticmethod(drawn_meanwhile))
    mine = hasher.keys(*arrays(longer))
    other.join(60)
    assert [hasher.keys(*arrays(long))] == found
    assert hasher.keys(*arrays(longer)) == mine


@given(messages, st.integers(40, 400), st.data())
def test_a_key_goes_with_its_pair_into_batches_and_parts_of_batches(
    drawn: list[list[int]], token_budget: int, data: st.DataObject
) -> None:
    hasher = PairHasher()
    queue = PairQueue(Batcher(token_budget), lambda _tokens: None, None, hasher)
    # Tokens are numbered through: no two pairs are alike, so a key that is another's is seen.
    made = [pairs_of(lengths, 10_000 * number) for number, lengths in enumerate(drawn)]
    queue.add_all(list(enumerate(made)))
    while (batch := queue.pop(0)) is not None:
        rows = data.draw(st.lists(st.sampled_from(range(len(batch.refs))), min_size=1, unique=True))
        for each in (batch, batch.take(rows)):
            assert hasher.keys(each.token_ids, each.type_ids, each.lengths) == each.keys
            assert each.keys is not None
            assert {KEY_BYTES} == {len(key) for key in each.keys}
    assert 0 == queue.pairs


@given(messages)
def test_without_a_hasher_there_are_no_keys(drawn: list[list[int]]) -> None:
    queue = PairQueue(Batcher(200), lambda _tokens: None)
    queue.add_all([(number, pairs_of(lengths)) for number, lengths in enumerate(drawn)])
    batch = queue.pop(0)
    assert batch is not None
    assert None is batch.keys
