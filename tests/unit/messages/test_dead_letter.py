"""Nothing that cannot be predicted is lost."""

import hashlib

import pytest

from worker.errors import ErrorCode, MessageError, Stage
from worker.messages.codec import record_bytes
from worker.messages.dead_letter import DeadLetter, dead_letter, is_ours, read_dead_letter, replayed
from worker.types import Headers, OutboundRecord, Record, Refusal, TopicPartition

REFUSAL = Refusal.of(MessageError(ErrorCode.TEXT_EMPTY, Stage.DECODE, "text: expected more than white space"))


def record(value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = (), key: bytes = b"\xff") -> Record:
    return Record("in", 2, 9, 1, key, value, headers, 1234)


def test_the_original_goes_out_as_it_came() -> None:
    original = record(b"\x00\xff", (("x", b"\xfe"), ("x", None)))
    letter = dead_letter(original, REFUSAL, "in.dlq")
    assert ("in.dlq", b"\xff", b"\x00\xff", 1234) == (letter.topic, letter.key, letter.value, letter.timestamp_ms)
    assert original.headers == letter.headers[:2]
    assert original.source == letter.source


def test_the_reason_stands_in_the_headers() -> None:
    letter = dead_letter(record(b"x"), REFUSAL, "in.dlq")
    assert {
        "__connect.errors.topic": b"in",
        "__connect.errors.partition": b"2",
        "__connect.errors.offset": b"9",
        "__connect.errors.stage": b"decode",
        "__connect.errors.class.name": b"worker.messages.codec",
        "__connect.errors.exception.class.name": b"worker.errors.MessageError",
        "__connect.errors.exception.message": b"text_empty: text: expected more than white space",
        "nli-error-code": b"text_empty",
        "nli-error-stage": b"decode",
        "nli-attempts": b"1",
    } == dict(letter.headers)


def test_the_headers_of_an_earlier_refusal_are_replaced() -> None:
    first = dead_letter(record(b"x"), REFUSAL, "in.dlq")
    again = dead_letter(record(b"x", first.headers), REFUSAL, "in.dlq")
    assert first.headers == again.headers


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_a_name_in_the_headers(stage: Stage) -> None:
    letter = dead_letter(record(b"x"), Refusal(ErrorCode.ENGINE_FAILED, stage, "r"), "in.dlq")
    assert stage.value.encode() == dict(letter.headers)["nli-error-stage"]


def test_a_value_that_is_too_large_is_told_by_size_and_digest() -> None:
    letter = dead_letter(record(b"x" * 5000, (("h", b"1"),)), REFUSAL, "in.dlq", max_bytes=2000)
    headers = dict(letter.headers)
    assert letter.value is None
    assert b"5000" == headers["nli-value-bytes"]
    assert hashlib.sha256(b"x" * 5000).hexdigest().encode() == headers["nli-value-sha256"]
    assert b"1" == headers["h"]


def test_headers_and_key_that_are_too_large_go_too() -> None:
    letter = dead_letter(record(b"x", (("h", b"1" * 5000),)), REFUSAL, "in.dlq", max_bytes=2000)
    assert "h" not in dict(letter.headers)
    assert b"\xff" == letter.key
    letter = dead_letter(record(b"x", key=b"k" * 5000), REFUSAL, "in.dlq", max_bytes=2000)
    assert letter.key is None
    assert record_bytes(letter.key, letter.value, letter.headers) <= 2000


def stored(letter: OutboundRecord, offset: int = 4) -> Record:
    """`letter` as a reader of the dead letter topic gets it."""
    return Record(letter.topic, 2, offset, 0, letter.key, letter.value, letter.headers, letter.timestamp_ms)


def read_back(letter: OutboundRecord) -> DeadLetter:
    found = read_dead_letter(stored(letter))
    assert found is not None
    return found


def test_a_dead_letter_reads_as_what_it_was_written_from() -> None:
    found = read_back(dead_letter(record(b"x" * 7), REFUSAL, "in.dlq"))
    assert ("text_empty", "decode", "text: expected more than white space") == (found.code, found.stage, found.reason)
    assert (TopicPartition("in", 2), 9, 1) == (found.original, found.original_offset, found.attempts)
    assert (7, False) == (found.value_bytes, found.is_cut)


def test_a_replayed_record_is_the_original_with_the_attempt_to_come() -> None:
    original = record(b"x", (("h", b"\xfe"), ("h", None)))
    again = replayed(read_back(dead_letter(original, REFUSAL, "in.dlq")))
    assert (original.key, original.value, original.timestamp_ms) == (again.key, again.value, again.timestamp_ms)
    assert (*original.headers, ("nli-attempts", b"2")) == again.headers
    assert ("in", original.source) == (again.topic, again.source)


def test_attempts_are_counted_through_any_number_of_replays() -> None:
    original = record(b"x", (("h", b"1"),))
    for attempt in range(1, 13):
        found = read_back(dead_letter(original, REFUSAL, "in.dlq"))
        assert attempt == found.attempts
        again = replayed(found)
        original = Record("in", 2, 100 + attempt, 1, again.key, again.value, again.headers, again.timestamp_ms)
    assert [("h", b"1"), ("nli-attempts", b"13")] == list(original.headers)


@pytest.mark.parametrize("said", [b"", b"0", b"-3", b"two", b"\xff", b"9" * 40, None])
def test_attempts_that_are_no_number_count_as_the_first(said: bytes | None) -> None:
    assert 1 == read_back(dead_letter(record(b"x", (("nli-attempts", said),)), REFUSAL, "in.dlq")).attempts


def test_a_dead_letter_without_its_value_says_so_and_how_large_it_was() -> None:
    found = read_back(dead_letter(record(b"x" * 5000), REFUSAL, "in.dlq", max_bytes=2000))
    assert (True, 5000) == (found.is_cut, found.value_bytes)


def test_a_null_value_is_no_missing_value() -> None:
    found = read_back(dead_letter(record(None), REFUSAL, "in.dlq"))
    assert (False, 0) == (found.is_cut, found.value_bytes)


@pytest.mark.parametrize(
    "name", ["nli-error-code", "nli-error-stage", *(f"__connect.errors.{n}" for n in ("topic", "partition", "offset"))]
)
@pytest.mark.parametrize("value", [None, b"", b"\x1b[2J", b"-1 x"])
def test_a_record_without_our_headers_is_no_dead_letter_of_ours(name: str, value: bytes | None) -> None:
    letter = dead_letter(record(b"x"), REFUSAL, "in.dlq")
    headers: Headers = tuple((n, value if n == name else v) for n, v in letter.headers)
    assert read_dead_letter(Record("in.dlq", 2, 4, 0, None, b"x", headers)) is None
    assert read_dead_letter(Record("in.dlq", 2, 4, 0, None, b"x")) is None


def test_every_header_that_a_dead_letter_adds_is_known_as_ours() -> None:
    letter = dead_letter(record(b"x" * 5000), REFUSAL, "in.dlq", max_bytes=2000)
    assert [] == [name for name, _ in letter.headers if not is_ours(name)]
