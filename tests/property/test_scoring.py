"""Whatever an engine does, every pair comes out once; no good message pays for an engine that was down for a while."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.faulty_engine import FAULTS, FaultyEngine, batch_of
from worker.engines.fake import FakeEngine
from worker.errors import EngineError
from worker.flow import BatchFailed, BatchScored
from worker.scoring import BatchWork
from worker.token_allowance import TokenAllowance
from worker.types import Batch


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    messages = draw(st.lists(st.integers(1, 12), min_size=len(lengths), max_size=len(lengths)))
    return batch_of(lengths, messages)


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
