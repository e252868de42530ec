"""Cutting a batch in two: nothing lost, and the halves are halves."""

from itertools import pairwise

import numpy as np
from hypothesis import given

from tests.support.strategies import messages, pairs_of
from worker.pipeline.batching import Batcher
from worker.pipeline.cutting import halve_messages, halve_tokens, padded_tokens
from worker.types import Batch


def whole(lengths: list[list[int]]) -> list[Batch]:
    batcher, first = Batcher(100_000), 0
    for number, each in enumerate(lengths):
        batcher.add(number, pairs_of(each, first))
        first += sum(each)
    return list(iter(batcher.pop, None))


def rows_of(*batches: Batch) -> dict[object, list[int]]:
    return {
        ref: batch.token_ids[end - length : end].tolist()
        for batch in batches
        for ref, length, end in zip(batch.refs, batch.lengths.tolist(), np.cumsum(batch.lengths).tolist(), strict=True)
    }


@given(messages)
def test_halves_by_message_keep_messages_together_and_every_pair_its_tokens(lengths: list[list[int]]) -> None:
    for batch in whole(lengths):
        halves = halve_messages(batch)
        members = [{ref.message for ref in half.refs} for half in halves]
        assert rows_of(batch) == rows_of(*halves)
        assert len(batch.refs) == sum(len(half.refs) for half in halves)
        assert all(not before & after for before, after in pairwise(members))
        counts = [len(each) for each in members]
        assert max(counts) - min(counts) <= 1


@given(messages)
def test_halves_by_tokens_cost_about_half_and_keep_every_pair_its_tokens(lengths: list[list[int]]) -> None:
    for batch in whole(lengths):
        halves = halve_tokens(batch)
        assert rows_of(batch) == rows_of(*halves)
        assert len(batch.refs) == sum(len(half.refs) for half in halves)
        assert len(halves) == min(2, len(batch.refs))
        longest = int(batch.lengths.max())
        if len(halves) > 1:
            assert all(padded_tokens(half) <= padded_tokens(batch) / 2 + longest for half in halves)
            assert all(len(half.refs) < len(batch.refs) for half in halves)
