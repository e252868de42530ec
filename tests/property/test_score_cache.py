"""Scores that are known from before: every pair is answered once, with what would have been scored."""

from collections import Counter
from dataclasses import replace
from itertools import count

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.fake import FakeEngine
from worker.errors import ErrorCode, Stage
from worker.flow import BatchFailed, BatchScored
from worker.pipeline.score_cache import ENTRY_BYTES, Recall, ScoreCache
from worker.types import Batch, PairRef, PairScores, Refusal

REFUSAL = Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, "")

pairs = st.lists(st.integers(0, 3), min_size=1, max_size=4)
batches = st.lists(st.lists(pairs, min_size=1, max_size=12), min_size=1, max_size=6)


def batch_of(each: list[list[int]], numbers: "count[int]") -> Batch:
    return Batch(
        tuple(PairRef(next(numbers), 0) for _ in each),
        np.concatenate([np.array(pair, np.int32) for pair in each]),
        np.concatenate([np.array([token % 2 for token in pair], np.int32) for pair in each]),
        np.array([len(pair) for pair in each], np.int32),
    )


many = st.lists(st.tuples(st.integers(0, 40).map(lambda n: n.to_bytes(16)), st.sampled_from([8, 12, 600])), max_size=12)


@given(st.lists(many, max_size=8), st.integers(0, 30))
def test_many_that_are_kept_together_are_kept_as_one_by_one(drawn: list[list[tuple[bytes, int]]], entries: int) -> None:
    together, apart = ScoreCache(entries * ENTRY_BYTES), ScoreCache(entries * ENTRY_BYTES)
    for each in drawn:
        rows = [bytes([number]) * size for number, (_, size) in enumerate(each)]
        together.put_all([key for key, _ in each], rows)
        for (key, _), row in zip(each, rows, strict=True):
            apart.put(key, row)
        keys = [n.to_bytes(16) for n in range(41)]
        assert (apart.held_bytes, len(apart)) == (together.held_bytes, len(together))
        assert list(apart.look_up(keys)) == list(together.look_up(keys))


@given(batches, st.integers(0, 30), st.integers(1, 5))
def test_every_pair_is_answered_once_with_its_own_scores(
    drawn: list[list[list[int]]], entries: int, part_pairs: int
) -> None:
    """Whatever the size of the cache, and however the engine's work is cut."""
    cache, engine, numbers = ScoreCache(entries * ENTRY_BYTES), FakeEngine(), count()
    for each in drawn:
        batch = batch_of(each, numbers)
        expected = dict(zip(batch.refs, engine.score(batch).logits.tolist(), strict=True))
        answers: list[tuple[Batch, PairScores] | None] = []
        recall = Recall(cache, batch)
        answers.append(recall.known)
        unknown = recall.unknown
        rows = [] if unknown is None else list(range(len(unknown.refs)))
        while unknown is not None and rows:
            part = unknown.take(rows[:part_pairs])
            rows = rows[part_pairs:]
            answers += [(part, engine.score(part)), recall.learn(part, engine.score(part))]
        assert None is recall.left()
        found = [
            (ref, row)
            for answer in answers
            if answer is not None
            for ref, row in zip(answer[0].refs, answer[1].logits.tolist(), strict=True)
        ]
        assert len(batch.refs) == len(found)
        assert expected == dict(found)
        assert cache.held_bytes <= entries * ENTRY_BYTES


@given(batches)
def test_a_pair_that_comes_again_is_not_scored_again(drawn: list[list[list[int]]]) -> None:
    cache, engine, numbers = ScoreCache(10**6), FakeEngine(), count()
    scored: Counter[bytes] = Counter()
    for each in drawn:
        recall = Recall(cache, batch_of(each, numbers))
        if recall.unknown is not None:
            scored.update(cache.hasher.keys(recall.unknown.token_ids, recall.unknown.type_ids, recall.unknown.lengths))
            recall.learn(recall.unknown, engine.score(recall.unknown))
    different = {tuple(pair) for each in drawn for pair in each}
    assert dict.fromkeys(scored, 1) == scored
    assert len(different) == len(scored) == len(cache)


@given(st.lists(pairs, min_size=1, max_size=12), st.sets(pairs.map(tuple), max_size=3))
def test_a_pair_that_waited_for_one_that_failed_is_left_to_be_scored_by_itself(
    each: list[list[int]], breaking: set[tuple[int, ...]]
) -> None:
    cache, engine = ScoreCache(10**6), FakeEngine()
    batch = batch_of(each, count())
    pair_of = dict(zip(batch.refs, map(tuple, each), strict=True))
    recall = Recall(cache, batch)
    unknown = recall.unknown
    assert unknown is not None
    events: list[BatchScored | BatchFailed] = []
    for row, ref in enumerate(unknown.refs):
        part = unknown.take([row])
        if pair_of[ref] in breaking:
            events.append(BatchFailed(part, REFUSAL))
            continue
        events.append(BatchScored(part, engine.score(part)))
        answer = recall.learn(part, engine.score(part))
        if answer is not None:
            events.append(BatchScored(*answer, is_cached=True))
    left = recall.left()
    done = [ref for event in events for ref in event.batch.refs]
    rest = [] if left is None else list(left.refs)
    assert Counter(batch.refs) == Counter(done + rest)
    assert all(pair_of[ref] in breaking for ref in rest)
    assert not breaking & {
        pair_of[ref] for event in events if isinstance(event, BatchScored) for ref in event.batch.refs
    }


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(0, 30))
def test_a_row_that_asks_about_many_labels_is_answered_whole(drawn: list[list[int]], entries: int) -> None:
    """Rows of token n, n times over, ask about n labels each; what a row takes is reckoned by its labels."""
    cache, numbers = ScoreCache(entries * ENTRY_BYTES), count()
    for each in drawn:
        asked = np.array(each, np.int32)
        batch = replace(batch_of([[tokens] * tokens for tokens in each], numbers), hypotheses=asked)
        expected = np.concatenate([np.arange(2 * tokens, dtype=np.float32).reshape(-1, 2) + tokens for tokens in each])
        recall = Recall(cache, batch)
        answers: list[tuple[Batch, PairScores] | None] = [recall.known]
        if (unknown := recall.unknown) is not None:
            ends = batch.answers().tolist()
            rows = [batch.refs.index(ref) for ref in unknown.refs]
            scores = PairScores(np.concatenate([expected[ends[row] - each[row] : ends[row]] for row in rows]))
            answers += [(unknown, scores), recall.learn(unknown, scores)]
        found = {
            ref: logits.tolist()
            for answer in answers
            if answer is not None
            for ref, logits in zip(answer[0].refs, np.split(answer[1].logits, answer[0].answers()[:-1]), strict=True)
        }
        wanted = np.split(expected, batch.answers()[:-1])
        assert {ref: logits.tolist() for ref, logits in zip(batch.refs, wanted, strict=True)} == found
        assert cache.held_bytes <= entries * ENTRY_BYTES
