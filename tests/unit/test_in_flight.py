"""Who waits for room in flight."""

import threading

from tests.support.strategies import record
from tests.support.wait import wait_until
from worker.in_flight import Bounds, InFlight

LONG_SECONDS = 600.0


def waiting(in_flight: InFlight) -> tuple[threading.Thread, list[bool]]:
    """A thread that waits for room, and what it was told."""
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(in_flight.wait_for_room(LONG_SECONDS)), daemon=True)
    thread.start()
    wait_until(lambda: in_flight._is_waited_for)
    return thread, told


def test_who_waits_is_told_once_a_quarter_of_the_records_is_done() -> None:
    in_flight, records = InFlight(Bounds(8, 1000, 1000)), [record(offset=offset) for offset in range(8)]
    in_flight.admit(*records)
    thread, told = waiting(in_flight)
    in_flight.settle(records[:1])
    in_flight.settle(records[1:2])
    assert [] == told
    in_flight.settle(records[2:3])
    thread.join(LONG_SECONDS)
    assert [True] == told


def test_who_waits_is_told_once_a_quarter_of_the_tokens_is_scored() -> None:
    in_flight = InFlight(Bounds(8, 1000, 1000))
    in_flight.note_queued_tokens(1000)
    thread, told = waiting(in_flight)
    in_flight.note_queued_tokens(800)
    assert [] == told
    in_flight.note_queued_tokens(700)
    thread.join(LONG_SECONDS)
    assert [True] == told


def test_after_the_wait_any_room_is_enough() -> None:
    in_flight = InFlight(Bounds(8, 1000, 1000))
    in_flight.note_queued_tokens(999)
    assert in_flight.wait_for_room(0.01)
    in_flight.note_queued_tokens(1000)
    assert not in_flight.wait_for_room(0.01)
