"""Whatever an engine does, every pair comes out once; no good message pays for an engine that was down for a while."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engines.fake import FakeEngine
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.flow import BatchFailed, BatchScored
from worker.scoring import BatchWork
from worker.token_allowance import TokenAllowance
from worker.types import Batch, EngineInfo, PairRef, PairScores

FAULTS = ("fine", "fine", "fine", "raise", "memory", "nan", "shape", "broken")
MOST_CALLS = 2000


def batch_of(lengths: list[int], messages: list[int]) -> Batch:
    counts: Counter[int] = Counter()
    refs = []
    for message in messages:
        refs.append(PairRef(message, counts[message]))
        counts[message] += 1
    ids = np.concatenate([np.full(length, message) for length, message in zip(lengths, messages, strict=True)])
    ids = ids.astype(np.int32)
    return Batch(tuple(refs), ids, np.zeros_like(ids), np.array(lengths, np.int32))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    messages = draw(st.lists(st.integers(1, 12), min_size=len(lengths), max_size=len(lengths)))
    return batch_of(lengths, messages)


class FaultyEngine:
    """Does what `fault` says of a call, given its number; `poison` messages break it and `most_tokens` fill it."""

    def __init__(self, script: list[str], poison: frozenset[int] = frozenset(), most_tokens: int = 10**9) -> None:
        self._inner, self._script, self._poison, self._most_tokens = FakeEngine(), script, poison, most_tokens
        self.calls = 0

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    def warm_up(self) -> None:
        self._misbehave()

    def score(self, batch: Batch) -> PairScores:
        fault = self._misbehave()
        if int(batch.lengths.max()) * len(batch.refs) > self._most_tokens:
            raise EngineOutOfMemoryError("full")
        if self._poison & {ref.message for ref in batch.refs}:
            raise ValueError("poison")
        scores = self._inner.score(batch)
        if fault == "nan":
            return PairScores(np.full_like(scores.logits, np.nan))
        return PairScores(scores.logits[:-1]) if fault == "shape" else scores

    def close(self) -> None:
        self._inner.close()

    def _misbehave(self) -> str:
        fault = self._script[self.calls] if self.calls < len(self._script) else "fine"
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise KeyboardInterrupt  # nothing that an engine may raise: it is called for ever
        if fault == "raise":
            raise RuntimeError("as scripted")
        if fault == "memory":
            raise EngineOutOfMemoryError("as scripted")
        if fault == "broken":
            raise EngineError("as scripted")
        return fault


def score_to_the_end(engine: FaultyEngine, batch: Batch) -> list[BatchScored | BatchFailed]:
    """As the engine thread does it: again, whenever the engine is found to be broken."""
    work, events = BatchWork(engine, batch, TokenAllowance()), list[BatchScored | BatchFailed]()
    while True:
        try:
            for event in work.events():
                events.append(event)
        except EngineError:
            continue
        return events


@given(batches(), st.lists(st.sampled_from(FAULTS), max_size=60), st.sets(st.integers(1, 12)), st.integers(8, 500))
def test_every_pair_comes_out_once_with_its_own_logits_whatever_fails(
    batch: Batch, script: list[str], poison: set[int], most_tokens: int
) -> None:
    engine = FaultyEngine(script, frozenset(poison), most_tokens)
    events = score_to_the_end(engine, batch)
    assert sorted(batch.refs) == sorted(ref for event in events for ref in event.batch.refs)
    expected = dict(zip(batch.refs, FakeEngine().score(batch).logits.tolist(), strict=True))
    for event in events:
        if isinstance(event, BatchScored):
            for ref, row in zip(event.batch.refs, event.scores.logits.tolist(), strict=True):
                assert expected[ref] == row


@given(
    batches(),
    st.integers(0, 20),
    st.integers(0, 40),
    st.sampled_from(["raise", "memory", "broken"]),
    st.sets(st.integers(1, 12), max_size=3),
)
def test_an_engine_that_is_down_for_any_while_costs_only_bad_messages_their_predictions(
    batch: Batch, start: int, calls: int, fault: str, poison: set[int]
) -> None:
    engine = FaultyEngine(["fine"] * start + [fault] * calls, frozenset(poison))
    events = score_to_the_end(engine, batch)
    refused = {ref.message for event in events if isinstance(event, BatchFailed) for ref in event.batch.refs}
    assert poison & {ref.message for ref in batch.refs} == refused
    assert sorted(batch.refs) == sorted(ref for event in events for ref in event.batch.refs)
