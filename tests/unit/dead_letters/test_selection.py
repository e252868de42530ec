"""Only the dead letters that are asked for are touched, and only those that can be replayed are."""

from dataclasses import replace

import pytest

from worker.dead_letters.selection import (
    Position,
    ReplayRules,
    Skip,
    Tally,
    Wanted,
    parse_position,
    parse_time,
)
from worker.errors import ConfigError
from worker.messages.dead_letter import DeadLetter
from worker.types import Record, TopicPartition

LETTER = DeadLetter(
    record=Record("in.dlq", 2, 9, 0, None, b"x", timestamp_ms=1_000),
    code="json_invalid",
    stage="decode",
    reason="value: expected JSON",
    attempts=1,
    original=TopicPartition("in", 2),
    original_offset=40,
    is_cut=False,
    value_bytes=1,
)
TIMELESS = replace(LETTER, record=replace(LETTER.record, timestamp_ms=None))
INPUTS = {"in.dlq": frozenset({TopicPartition("in", 2)})}


@pytest.mark.parametrize(
    ("wanted", "letter", "expected"),
    [
        (Wanted(), LETTER, True),
        (Wanted(), TIMELESS, True),
        (Wanted(codes=frozenset({"json_invalid", "text_empty"})), LETTER, True),
        (Wanted(codes=frozenset({"text_empty"})), LETTER, False),
        (Wanted(originals=frozenset({"in"})), LETTER, True),
        (Wanted(originals=frozenset({"other"})), LETTER, False),
        (Wanted(since_ms=1_000), LETTER, True),
        (Wanted(since_ms=1_001), LETTER, False),
        (Wanted(until_ms=1_001), LETTER, True),
        (Wanted(until_ms=1_000), LETTER, False),
        (Wanted(since_ms=0), TIMELESS, False),
        (Wanted(until_ms=9_999), TIMELESS, False),
    ],
)
def test_a_filter_lets_through_what_it_asks_for(wanted: Wanted, letter: DeadLetter, expected: bool) -> None:
    assert expected == wanted.includes(letter)


@pytest.mark.parametrize(
    ("letter", "expected"),
    [
        (LETTER, None),
        (replace(LETTER, code="text_empty"), "filtered"),
        (replace(LETTER, attempts=2), None),
        (replace(LETTER, attempts=3), "attempts_exhausted"),
        (replace(LETTER, is_cut=True), "value_dropped"),
        (replace(LETTER, original=TopicPartition("in", 3)), "no_such_input"),
        (replace(LETTER, original=TopicPartition("other", 2)), "no_such_input"),
        (replace(LETTER, record=replace(LETTER.record, topic="other.dlq")), "no_such_input"),
    ],
)
def test_what_cannot_or_must_not_be_replayed_is_left_out(letter: DeadLetter, expected: Skip | None) -> None:
    rules = ReplayRules(Wanted(codes=frozenset({"json_invalid"})), INPUTS, max_attempts=3)
    assert expected == rules.skip(letter)


def test_a_position_is_read_as_it_is_printed() -> None:
    assert Position(TopicPartition("a.b-c_d.dlq", 3), 120934) == parse_position("a.b-c_d.dlq/3/120934")


@pytest.mark.parametrize("text", ["", "in.dlq", "in.dlq/1", "in.dlq/1/-2", "in.dlq/x/2", "a b/1/2", "a/b/1/2"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="topic/partition/offset"):
        parse_position(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 9_400_000),
        ("2h", 2_800_000),
        ("30s", 9_970_000),
        ("0d", 10_000_000),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01.250+01:00", 1_250),
    ],
)
def test_a_time_is_a_moment_or_an_age(text: str, expected: int) -> None:
    assert expected == parse_time(text, 10_000.0, "--since")


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "yesterday", "2026-01-31T08:00:00", "-1h", "9999999999w"])
def test_what_is_no_time_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--until: expected a time"):
        parse_time(text, 10_000.0, "--until")


def test_a_tally_counts_by_code_and_by_reason() -> None:
    tally = Tally()
    for code in ("a", "b", "a"):
        tally.count(code)
    tally.skip("filtered")
    assert (3, {"a": 2, "b": 1}, {"filtered": 1}) == (tally.total, tally.by_code, tally.skipped)
