"""Batching: every pair once, no batch over its budget, nobody waits for ever."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import messages, pairs_of
from worker.pipeline.batching import NEIGHBOUR_SHARE, OLDEST_WAITS_BATCHES, Batcher, BatchLimit, best_length
from worker.types import Batch, PairRef


def drain(batcher: Batcher) -> list[Batch]:
    batches = []
    while (batch := batcher.pop()) is not None:
        batches.append(batch)
    return batches


@given(messages, st.integers(16, 400))
def test_every_pair_leaves_exactly_once_with_its_own_tokens(lengths: list[list[int]], budget: int) -> None:
    batcher, expected, first = Batcher(budget), {}, 0
    for number, each in enumerate(lengths):
        pairs = pairs_of(each, first)
        ends = np.cumsum(each)
        for index, length in enumerate(each):
            expected[PairRef(number, index)] = pairs.token_ids[ends[index] - length : ends[index]].tolist()
        batcher.add(number, pairs)
        first += sum(each)
    assert sum(map(sum, lengths)) == batcher.tokens
    seen = {}
    for batch in drain(batcher):
        ends = np.cumsum(batch.lengths)
        for ref, length, end in zip(batch.refs, batch.lengths, ends, strict=True):
            assert ref not in seen
            seen[ref] = batch.token_ids[end - length : end].tolist()
    assert expected == seen
    assert (0, 0) == (batcher.tokens, batcher.pairs)


@given(messages, st.integers(16, 400))
def test_no_batch_of_several_pairs_costs_more_than_the_budget(lengths: list[list[int]], budget: int) -> None:
    batcher = Batcher(budget)
    for number, each in enumerate(lengths):
        batcher.add(number, pairs_of(each))
    for batch in drain(batcher):
        assert len(batch.refs) == 1 or int(batch.lengths.max()) * len(batch.refs) <= budget


@given(messages, st.integers(64, 400))
def test_padding_stays_under_the_neighbour_share(lengths: list[list[int]], budget: int) -> None:
    batcher = Batcher(budget)
    for number, each in enumerate(lengths):
        batcher.add(number, pairs_of(each))
    for batch in drain(batcher):
        assert int(batch.lengths.min()) >= NEIGHBOUR_SHARE * int(batch.lengths.max())


@given(messages, st.sets(st.integers(0, 39)))
def test_dropped_messages_leave_no_pair_behind(lengths: list[list[int]], dropped: set[int]) -> None:
    batcher = Batcher(200)
    for number, each in enumerate(lengths):
        batcher.add(number, pairs_of(each))
    batcher.drop(dropped)
    left = {ref.message for batch in drain(batcher) for ref in batch.refs}
    assert set(range(len(lengths))) - dropped == left
    assert (0, 0) == (batcher.tokens, batcher.pairs)


def test_a_pair_of_rare_length_is_not_overtaken_for_ever() -> None:
    batcher = Batcher(64)
    batcher.add(0, pairs_of([8]))
    for number in range(1, 200):
        batcher.add(number, pairs_of([32, 32]))
    waited = 0
    while (batch := batcher.pop()) is not None and PairRef(0, 0) not in batch.refs:
        waited += 1
    assert waited <= OLDEST_WAITS_BATCHES


@given(st.dictionaries(st.integers(1, 60), st.integers(1, 20), min_size=1), st.integers(16, 400))
def test_the_leading_length_is_the_one_whose_batch_holds_most_tokens(waiting: dict[int, int], budget: int) -> None:
    def held(leader: int) -> int:
        candidates = [n for n in sorted(waiting, reverse=True) for _ in range(waiting[n])]
        fitting = [n for n in candidates if leader * NEIGHBOUR_SHARE <= n <= leader]
        return min(budget, sum(fitting[: max(1, budget // leader)]))

    assert max(map(held, waiting)) == held(best_length(waiting, budget))


@given(messages, st.integers(1, 300))
def test_a_limit_given_for_one_batch_holds_for_it(lengths: list[list[int]], tokens: int) -> None:
    batcher = Batcher(10_000)
    for number, each in enumerate(lengths):
        batcher.add(number, pairs_of(each))
    while (batch := batcher.pop(BatchLimit(tokens))) is not None:
        assert len(batch.refs) == 1 or int(batch.lengths.max()) * len(batch.refs) <= tokens
    assert 0 == batcher.pairs
