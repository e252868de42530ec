"""How much may be in flight."""

import pytest

from tests.support.strategies import record
from worker.flow import LEAST_ROOM_RECORDS, Bounds, InFlight


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
