"""Telling the message that breaks the engine from an engine that is broken."""

from collections.abc import Callable

import numpy as np
import pytest

from worker.engines.fake import FakeEngine
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.flow import BatchFailed, BatchScored
from worker.scoring import BatchWork, score_or_isolate
from worker.token_allowance import TokenAllowance
from worker.types import Batch, EngineInfo, PairRef, PairScores

POISON = 666


class ScriptedEngine:
    """The fake engine, with something before each batch and something done to its logits."""

    def __init__(
        self,
        before: Callable[[Batch], None] = lambda _batch: None,
        after: Callable[[Batch, PairScores], PairScores] = lambda _batch, scores: scores,
    ) -> None:
        self.inner, self.before, self.after = FakeEngine(), before, after
        self.scored: list[tuple[int, ...]] = []
        self.warm_up_error: Exception | None = None

    @property
    def info(self) -> EngineInfo:
        return self.inner.info

    def warm_up(self) -> None:
        if self.warm_up_error is not None:
            raise self.warm_up_error

    def score(self, batch: Batch) -> PairScores:
        self.scored.append(tuple(sorted({ref.message for ref in batch.refs})))
        self.before(batch)
        return self.after(batch, self.inner.score(batch))

    def close(self) -> None:
        self.inner.close()


def batch_of(**messages: int) -> Batch:
    """Two pairs of three tokens for each message, interleaved; `poison_2=1` makes message 2 a poisonous one."""
    numbers = [int(name.rsplit("_", 1)[1]) for name in messages]
    refs = [PairRef(number, pair) for pair in range(2) for number in numbers]
    first = {number: POISON if name.startswith("poison") else 1 for number, name in zip(numbers, messages, strict=True)}
    tokens = [[first[ref.message], ref.message, ref.pair] for ref in refs]
    ids = np.array(tokens, np.int32).reshape(-1)
    return Batch(tuple(refs), ids, np.zeros_like(ids), np.full(len(refs), 3, np.int32))


def refuse_poison(batch: Batch) -> None:
    if POISON in batch.token_ids:
        raise RuntimeError("boom")


def outcomes(events: list[BatchScored | BatchFailed]) -> dict[int, str]:
    return {
        ref.message: "scored" if isinstance(event, BatchScored) else event.refusal.code.value
        for event in events
        for ref in event.batch.refs
    }


def test_a_batch_that_the_engine_takes_is_scored_in_one_call() -> None:
    engine = ScriptedEngine()
    assert {1: "scored", 2: "scored"} == outcomes(score_or_isolate(engine, batch_of(good_1=1, good_2=1)))
    assert [(1, 2)] == engine.scored


def test_one_poison_message_is_refused_and_the_rest_of_its_batch_scored() -> None:
    engine = ScriptedEngine(before=refuse_poison)
    events = score_or_isolate(engine, batch_of(good_1=1, poison_2=1, good_3=1))
    assert {1: "scored", 2: "engine_failed", 3: "scored"} == outcomes(events)


def test_what_is_scored_alone_has_the_logits_that_its_batch_would_have_given() -> None:
    healthy = {
        ref: row
        for event in score_or_isolate(ScriptedEngine(), batch_of(good_1=1, good_3=1))
        if isinstance(event, BatchScored)
        for ref, row in zip(event.batch.refs, event.scores.logits.tolist(), strict=True)
    }
    isolated = {
        ref: row
        for event in score_or_isolate(ScriptedEngine(before=refuse_poison), batch_of(good_1=1, poison_2=1, good_3=1))
        if isinstance(event, BatchScored)
        for ref, row in zip(event.batch.refs, event.scores.logits.tolist(), strict=True)
    }
    assert healthy == isolated


def test_two_poison_messages_alone_in_a_batch_are_refused_and_the_engine_lives() -> None:
    events = score_or_isolate(ScriptedEngine(before=refuse_poison), batch_of(poison_1=1, poison_2=1))
    assert {1: "engine_failed", 2: "engine_failed"} == outcomes(events)


def test_an_engine_that_fails_on_a_single_message_and_on_its_own_warm_up_is_broken() -> None:
    engine = ScriptedEngine(before=refuse_poison)
    engine.warm_up_error = RuntimeError("out of order")
    with pytest.raises(EngineError, match="fails whatever it is given"):
        score_or_isolate(engine, batch_of(poison_1=1))


def test_an_engine_that_says_it_cannot_score_at_all_is_believed() -> None:
    def give_up(_batch: Batch) -> None:
        raise EngineError("closed")

    with pytest.raises(EngineError, match="closed"):
        score_or_isolate(ScriptedEngine(before=give_up), batch_of(good_1=1, good_2=1))


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_message_whose_logits_are_no_numbers_is_refused_alone(number: float) -> None:
    def spoil(batch: Batch, scores: PairScores) -> PairScores:
        logits = scores.logits.copy()
        logits[[ref.message == 2 for ref in batch.refs], 0] = number
        return PairScores(logits)

    events = score_or_isolate(ScriptedEngine(after=spoil), batch_of(good_1=1, good_2=1, good_3=1))
    assert {1: "scored", 2: "engine_failed", 3: "scored"} == outcomes(events)


def test_a_message_for_which_the_shape_is_wrong_is_refused_alone() -> None:
    def cut(batch: Batch, scores: PairScores) -> PairScores:
        return PairScores(scores.logits[:-1]) if any(ref.message == 2 for ref in batch.refs) else scores

    events = score_or_isolate(ScriptedEngine(after=cut), batch_of(good_1=1, good_2=1))
    assert {1: "scored", 2: "engine_failed"} == outcomes(events)


def many(count: int, *poisonous: int) -> Batch:
    return batch_of(**{f"{'poison' if number in poisonous else 'good'}_{number}": 1 for number in range(count)})


@pytest.mark.parametrize("bad", [0, 1, 30, 62, 63])
def test_one_bad_message_is_found_by_bisection(bad: int) -> None:
    """64 messages: the batch, two halves on each of six levels, and the suspect once more after the engine's proof."""
    engine = ScriptedEngine(before=refuse_poison)
    events = score_or_isolate(engine, many(64, bad))
    assert {number: "engine_failed" if number == bad else "scored" for number in range(64)} == outcomes(events)
    assert len(engine.scored) <= 1 + 2 * 6 + 1


def test_an_engine_that_is_broken_is_found_out_by_one_message_not_by_all() -> None:
    def fail(_batch: Batch) -> None:
        raise RuntimeError("out of order")

    engine = ScriptedEngine(before=fail)
    engine.warm_up_error = RuntimeError("out of order")
    with pytest.raises(EngineError):
        score_or_isolate(engine, many(64))
    assert 7 == len(engine.scored)


def test_a_message_that_failed_while_the_engine_was_down_for_a_moment_is_scored_after_all() -> None:
    fails = iter([True, True, False])

    def stumble(_batch: Batch) -> None:
        if next(fails, False):
            raise RuntimeError("for a moment")

    events = score_or_isolate(ScriptedEngine(before=stumble), many(2))
    assert {0: "scored", 1: "scored"} == outcomes(events)


def short_of_memory(most_pairs: int) -> Callable[[Batch], None]:
    def run_out(batch: Batch) -> None:
        if len(batch.refs) > most_pairs:
            raise EngineOutOfMemoryError("the device has no memory left")

    return run_out


def test_a_batch_too_large_for_the_memory_is_scored_in_parts_and_the_next_one_is_cut_at_once() -> None:
    engine, allowance, failures = ScriptedEngine(before=short_of_memory(4)), TokenAllowance(), list[str]()
    first = list(BatchWork(engine, many(8), allowance, failures.append).events())
    assert set(outcomes(first).values()) == {"scored"}
    assert ["out_of_memory"] * 2 == failures  # 16 pairs, then 8; from then on nothing larger than 4 is tried
    assert 12 == allowance.tokens
    second = list(BatchWork(engine, many(8), allowance, failures.append).events())
    assert set(outcomes(second).values()) == {"scored"}
    assert ["out_of_memory"] * 2 == failures


def test_a_pair_for_which_alone_there_is_no_memory_is_refused_and_its_neighbours_are_scored() -> None:
    def run_out(batch: Batch) -> None:
        if POISON in batch.token_ids:
            raise MemoryError

    events = score_or_isolate(ScriptedEngine(before=run_out), batch_of(good_1=1, poison_2=1, good_3=1))
    assert {1: "scored", 2: "engine_failed", 3: "scored"} == outcomes(events)


def test_an_engine_without_memory_for_the_smallest_pair_is_broken_and_no_message_is_at_fault() -> None:
    with pytest.raises(EngineError, match="smallest pair"):
        score_or_isolate(ScriptedEngine(before=short_of_memory(0)), many(3))


def test_a_bad_message_is_found_also_where_the_memory_does_not_suffice_for_the_warm_up() -> None:
    engine = ScriptedEngine(before=refuse_poison)
    engine.warm_up_error = EngineOutOfMemoryError("the device has no memory left")
    assert {0: "scored", 1: "engine_failed"} == outcomes(score_or_isolate(engine, many(2, 1)))


def test_what_was_scored_before_the_engine_broke_is_not_scored_again() -> None:
    engine = ScriptedEngine(before=refuse_poison)
    work = BatchWork(engine, many(4, 3), TokenAllowance())
    engine.warm_up_error = RuntimeError("out of order")
    before: list[BatchScored | BatchFailed] = []
    with pytest.raises(EngineError):
        before.extend(work.events())
    engine.warm_up_error = None
    after = list(work.events())
    assert {3: "engine_failed"} == outcomes(after)
