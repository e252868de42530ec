"""Who waits for room in flight."""

import threading

from tests.support.strategies import record
from tests.support.wait import conclusive, stays, wait_until
from worker.in_flight import Bounds, InFlight

LONG_SECONDS = 600.0
AWHILE_SECONDS = 0.3


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
    stays(thread.is_alive, AWHILE_SECONDS)
    in_flight.settle(records[2:3])
    thread.join(LONG_SECONDS)
    assert [True] == told


def test_who_waits_is_told_once_a_quarter_of_the_tokens_is_scored() -> None:
    in_flight = InFlight(Bounds(8, 1000, 1000))
    in_flight.note_queued_tokens(1000)
    thread, told = waiting(in_flight)
    in_flight.note_queued_tokens(800)
    stays(thread.is_alive, AWHILE_SECONDS)
    in_flight.note_queued_tokens(700)
    thread.join(LONG_SECONDS)
    assert [True] == told


def test_after_the_wait_any_room_is_enough() -> None:
    in_flight = InFlight(Bounds(8, 1000, 1000))
    in_flight.note_queued_tokens(999)
    assert in_flight.wait_for_room(0.01)
    in_flight.note_queued_tokens(1000)
    assert not in_flight.wait_for_room(0.01)


def test_room_that_came_and_went_while_it_was_waited_for_counts() -> None:
    in_flight = InFlight(Bounds(8, 1000, 1000))
    in_flight.note_queued_tokens(1000)
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(in_flight.wait_for_room(AWHILE_SECONDS)), daemon=True)
    thread.start()
    wait_until(lambda: in_flight._is_waited_for or bool(told))
    in_flight.note_queued_tokens(900)
    in_flight.note_queued_tokens(1000)
    thread.join(LONG_SECONDS)
    conclusive(not in_flight._is_waited_for and in_flight._had_room, "the wait was over before the room came")
    assert [True] == told


def test_of_two_places_one_is_enough() -> None:
    in_flight, records = InFlight(Bounds(2, 1000, 1000)), [record(offset=offset) for offset in range(2)]
    in_flight.admit(*records)
    thread, told = waiting(in_flight)
    in_flight.settle(records[:1])
    thread.join(LONG_SECONDS)
    assert [True] == told
