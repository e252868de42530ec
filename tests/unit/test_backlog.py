"""Whose record is next, and who is read while others are held."""

from collections import Counter

from tests.support.strategies import record
from worker.backlog import DISAPPOINTED_SECONDS, FAVOUR_SECONDS, STARVES_SECONDS, Backlog
from worker.clock import ManualClock
from worker.types import Record, TopicPartition

FLOOD, TRICKLE = TopicPartition("flood", 0), TopicPartition("trickle", 0)


def records(topic: str, count: int, start: int = 0) -> list[Record]:
    return [record(topic, offset=offset) for offset in range(start, start + count)]


def scene() -> tuple[Backlog, ManualClock]:
    clock = ManualClock()
    return Backlog(clock), clock


def starve(backlog: Backlog, clock: ManualClock) -> None:
    """The flood waits here, the trickle has unread records, and that lasts."""
    backlog.add(records("flood", 256))
    backlog.look({FLOOD: 1000, TRICKLE: 50})
    clock.advance(STARVES_SECONDS)
    backlog.look({FLOOD: 1000, TRICKLE: 50})


def test_topics_take_turns_and_each_keeps_its_order() -> None:
    backlog, _ = scene()
    backlog.add([*records("flood", 100), *records("trickle", 3)])
    first = backlog.take(6)
    assert Counter(flood=3, trickle=3) == Counter(each.topic for each in first)
    assert [0, 1, 2] == [each.offset for each in first if each.topic == "flood"]
    assert list(range(3, 100)) == [each.offset for each in backlog.take(1000)]
    assert 0 == len(backlog)


def test_a_topic_whose_records_cost_ten_times_as_much_has_a_tenth_of_the_turns() -> None:
    backlog, _ = scene()
    backlog.note_cost("flood", 1000)
    backlog.note_cost("trickle", 100)
    backlog.add([*records("flood", 300), *records("trickle", 300)])
    turns = Counter(each.topic for each in backlog.take(220))
    assert 19 <= turns["flood"] <= 21


def test_a_topic_that_was_away_has_no_claim_on_what_others_had_meanwhile() -> None:
    backlog, _ = scene()
    backlog.add([*records("flood", 1000), *records("trickle", 1)])
    backlog.take(500)
    backlog.add(records("trickle", 100, 1))
    turns = Counter(each.topic for each in backlog.take(20))
    assert 9 <= turns["flood"] <= 11


def test_what_waits_is_counted_by_partition_and_dropped_by_it() -> None:
    backlog, _ = scene()
    backlog.add([record("flood", partition=n % 2, offset=n) for n in range(10)])
    backlog.drop({TopicPartition("flood", 0)})
    assert (0, 5, 5) == (backlog.of(TopicPartition("flood", 0)), backlog.of(TopicPartition("flood", 1)), len(backlog))
    assert [1, 3, 5, 7, 9] == [each.offset for each in backlog.take(100)]
    backlog.add(records("flood", 3))
    backlog.clear()
    assert [] == backlog.take(1)


def test_without_starvation_all_topics_are_held_alike_when_there_is_no_room() -> None:
    backlog, clock = scene()
    backlog.add(records("flood", 10))
    backlog.look({FLOOD: 1000, TRICKLE: 0})
    clock.advance(100)
    backlog.look({FLOOD: 1000, TRICKLE: 0})
    assert (False, True) == (backlog.is_held("flood", is_full=False), backlog.is_held("flood", is_full=True))
    assert backlog.is_held("trickle", is_full=True)


def test_a_topic_that_starves_is_read_alone_even_when_there_is_no_room() -> None:
    backlog, clock = scene()
    starve(backlog, clock)
    assert {"trickle"} == backlog.favoured
    assert backlog.is_held("flood", is_full=False)
    assert not backlog.is_held("trickle", is_full=True)


def test_a_topic_that_got_its_records_is_favoured_no_longer() -> None:
    backlog, clock = scene()
    starve(backlog, clock)
    backlog.add(records("trickle", 1))
    assert set() == backlog.favoured
    assert backlog.is_held("trickle", is_full=True)


def test_a_topic_that_turns_out_to_have_nothing_is_favoured_no_longer() -> None:
    backlog, clock = scene()
    starve(backlog, clock)
    backlog.look({FLOOD: 1000, TRICKLE: 0})
    assert set() == backlog.favoured


def test_favour_ends_after_a_moment_and_comes_back_ever_later() -> None:
    backlog, clock = scene()
    starve(backlog, clock)
    unread, waits = {FLOOD: 1000, TRICKLE: 50}, list[float]()
    for _ in range(3):
        clock.advance(FAVOUR_SECONDS)
        backlog.look(unread)
        assert set() == backlog.favoured
        started = clock.monotonic()
        while not backlog.favoured:
            clock.advance(1.0)
            backlog.look(unread)
        waits.append(clock.monotonic() - started)
    assert [DISAPPOINTED_SECONDS, 2 * DISAPPOINTED_SECONDS, 4 * DISAPPOINTED_SECONDS] == waits
    backlog.add(records("trickle", 1))
    backlog.take(1000)
    starve(backlog, clock)
    assert {"trickle"} == backlog.favoured


def test_a_single_topic_is_never_favoured() -> None:
    backlog, clock = scene()
    backlog.look({FLOOD: 1000})
    clock.advance(100)
    backlog.look({FLOOD: 1000})
    assert set() == backlog.favoured


def test_a_topic_that_leaves_is_favoured_no_longer() -> None:
    backlog, clock = scene()
    starve(backlog, clock)
    backlog.drop({TRICKLE})
    assert set() == backlog.favoured
