"""How much may be in flight."""

import pytest

from tests.support.strategies import pairs_of, record
from worker.flow import PairQueue
from worker.in_flight import LEAST_ROOM_RECORDS, Bounds, InFlight
from worker.pipeline.batching import Batcher
from worker.pipeline.pacing import FIT_EVERY, Pace


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight(Bounds(records=1000, value_bytes=1_000_000, queued_tokens=100_000))


def test_little_is_admitted_before_it_is_known_what_a_record_costs(in_flight: InFlight) -> None:
    assert LEAST_ROOM_RECORDS == in_flight.room()


def test_records_of_many_pairs_are_admitted_few_at_a_time(in_flight: InFlight) -> None:
    """A thousand labels on a text of 50 tokens: 60,000 tokens a record, and the bound is in tokens."""
    in_flight.note_cost(10, 600_000)
    assert LEAST_ROOM_RECORDS == in_flight.room()
    in_flight.note_cost(10, 10_000)
    assert 100 == in_flight.room()
    in_flight.note_queued_tokens(60_000)
    assert 40 == in_flight.room()
    in_flight.note_queued_tokens(100_000)
    assert 0 == in_flight.room()


def test_records_of_few_pairs_are_bounded_by_their_number(in_flight: InFlight) -> None:
    in_flight.note_cost(10, 500)
    assert 1000 == in_flight.room()
    for offset in range(995):
        in_flight.admit(record(offset=offset))
    assert 5 == in_flight.room()
    in_flight.note_cost(0, 0)
    assert 5 == in_flight.room()


def test_batches_get_smaller_when_the_engine_turns_out_too_slow_for_the_latency_target() -> None:
    queue = PairQueue(Batcher(1000), lambda _tokens: None, Pace(1000, target_seconds=0.4))
    sizes = []
    for number in range(FIT_EVERY + 1):
        # What comes last is no longer queue than the target: it is what a batch has to keep to.
        queue.add(number, pairs_of([10] * (100 if number < FIT_EVERY else 30)))
        batch = queue.pop(0)
        assert batch is not None
        sizes.append(len(batch.refs))
        queue.note_scored(batch, seconds=1.0)
    assert [*[100] * FIT_EVERY, 10] == sizes


def test_a_busy_engine_gets_the_next_batch_only_when_enough_waits_for_two() -> None:
    queue = PairQueue(Batcher(100), lambda _tokens: None)
    queue.add(1, pairs_of([10] * 19))
    assert queue.pop_ahead() is None
    queue.add(2, pairs_of([10] * 3))
    batch = queue.pop_ahead()
    assert batch is not None
    assert (10, 12) == (len(batch.refs), queue.pairs)
    assert queue.pop_ahead() is None


def test_records_are_counted_together_as_they_are_one_by_one(in_flight: InFlight) -> None:
    records = [record(partition=offset % 2, offset=offset) for offset in range(5)]
    in_flight.admit(*records)
    assert (5, 3, 2) == (in_flight.records, *(in_flight.of(each.source) for each in records[:2]))
    in_flight.settle(records[:3])
    assert (2, 1, 1) == (in_flight.records, *(in_flight.of(each.source) for each in records[:2]))
