"""Batches that are begun before the last one is finished: every pair comes out once, as if each had been alone."""

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.faulty_engine import FAULTS, LineOfTwo, batch_of, scorer_of
from worker.clock import ManualClock
from worker.engine_retry import RetryingScorer, Started
from worker.engines.fake import FakeEngine
from worker.flow import BatchScored
from worker.pipeline.score_cache import ScoreCache
from worker.types import Batch, PairScores


def score_all(scorer: RetryingScorer, batches: list[Batch]) -> None:
    """As the engine thread does it while there is always enough for the next batch."""
    running: Started | None = None
    for batch in batches:
        started = None
        if running is not None and scorer.can_overlap:
            started = scorer.start(batch, running)
        if running is not None:
            scorer.finish(running)
        running = started if started is not None else scorer.start(batch)
    if running is not None:
        scorer.finish(running)


@st.composite
def streams(draw: st.DrawFn) -> list[Batch]:
    """Batches of messages of their own whose pairs are often like those of others."""
    made, numbers = list[Batch](), count(1)
    for _ in range(draw(st.integers(1, 8))):
        lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=10))
        messages = [next(numbers) for _ in lengths]
        batch = batch_of(lengths, messages)
        alike = np.concatenate([np.full(length, draw(st.integers(0, 2)), np.int32) for length in lengths])
        made.append(Batch(batch.refs, alike, np.zeros_like(alike), batch.lengths))
    return made


scripts = st.lists(st.sampled_from(FAULTS), max_size=30)


@given(streams(), scripts, st.sets(st.integers(1, 80), max_size=6), st.integers(8, 60), st.booleans())
def test_every_pair_comes_out_once_with_its_own_logits_whatever_fails(
    batches: list[Batch], script: list[str], poison: set[int], most_tokens: int, has_cache: bool
) -> None:
    engine = LineOfTwo(script, frozenset(poison), most_tokens)
    scorer, emitted = scorer_of(engine, ScoreCache(10**5) if has_cache else None)
    score_all(scorer, batches)
    refs = [ref for event in emitted for ref in event.batch.refs]
    assert sorted(ref for batch in batches for ref in batch.refs) == sorted(refs)
    expected: dict[object, list[float]] = {}
    for batch in batches:
        expected |= dict(zip(batch.refs, FakeEngine().score(batch).logits.tolist(), strict=True))
    for event in emitted:
        if isinstance(event, BatchScored):
            for ref, row in zip(event.batch.refs, event.scores.logits.tolist(), strict=True):
                assert expected[ref] == row
    assert engine.most_at_once <= 2
    assert [] == engine.violations


@given(streams())
def test_a_pair_that_is_being_scored_is_not_scored_again_for_the_next_batch(batches: list[Batch]) -> None:
    engine = LineOfTwo([])
    scorer, _ = scorer_of(engine, ScoreCache(10**5))
    asked = list[bytes]()
    begin = engine.begin

    def counting(batch: Batch) -> Callable[[], PairScores]:
        asked.extend(batch.token_ids[end - length : end].tobytes() for end, length in _ends(batch))
        return begin(batch)

    engine.begin = counting  # type: ignore[method-assign]  # what it is asked for is counted
    score_all(scorer, batches)
    assert len(asked) == len(set(asked))


def _ends(batch: Batch) -> list[tuple[int, int]]:
    return list(zip(np.cumsum(batch.lengths).tolist(), batch.lengths.tolist(), strict=True))


def test_the_next_batch_is_on_its_way_while_the_last_one_is_waited_for() -> None:
    engine = LineOfTwo([])
    scorer, _ = scorer_of(engine, None)
    score_all(scorer, [batch_of([3], [number]) for number in range(1, 6)])
    assert 2 == engine.most_at_once


def test_after_memory_ran_out_batches_go_one_by_one() -> None:
    engine = LineOfTwo(["memory"])
    scorer, _ = scorer_of(engine, None)
    scorer.score(batch_of([3, 3], [1, 2]))
    assert not scorer.can_overlap


def test_a_batch_that_fails_beside_another_is_scored_alone_before_anything_is_held_against_it() -> None:
    """What the first one does to the engine is not the second one's fault: nothing is halved, waited for or counted."""
    engine = LineOfTwo(["memory", "memory"])  # both fail when they are waited for; alone both fit
    scorer, emitted = scorer_of(engine, None)
    score_all(scorer, [batch_of([3, 3], [1, 2]), batch_of([4, 4], [3, 4])])
    assert [2, 2] == [len(event.batch.refs) for event in emitted]
    assert scorer.can_overlap
    assert 4 == engine.calls


class TimedLine(LineOfTwo):
    """Takes a second for each batch, one after the other, on the scorer's own clock."""

    def __init__(self, clock: ManualClock, script: list[str]) -> None:
        super().__init__(script)
        self._clock = clock

    def _misbehave(self) -> str:
        self._clock.advance(1.0)
        return super()._misbehave()


@pytest.mark.parametrize("script", [[], ["memory"], ["raise"]])
def test_what_a_batch_is_said_to_take_is_its_own_time(script: list[str]) -> None:
    """Of a batch that was waited for because another one failed nothing is said."""
    clock, told = ManualClock(), list[float]()
    engine = TimedLine(clock, script)
    scorer, _ = scorer_of(engine, None, clock, lambda _batch, seconds: told.append(seconds))
    score_all(scorer, [batch_of([3], [number]) for number in range(1, 5)])
    assert len(told) >= 2
    assert {1.0} == set(told)
