"""Telling the message that breaks the engine from an engine that is broken."""

from collections.abc import Callable

import numpy as np
import pytest

from worker.engines.fake import FakeEngine
from worker.errors import EngineError
from worker.flow import BatchFailed, BatchScored
from worker.scoring import score_or_isolate
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
