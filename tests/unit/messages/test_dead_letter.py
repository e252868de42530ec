"""Nothing that cannot be predicted is lost."""

import hashlib

import pytest

from worker.errors import ErrorCode, MessageError, Stage
from worker.messages.codec import record_bytes
from worker.messages.dead_letter import dead_letter
from worker.types import Record, Refusal

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
    letter = dead_letter(record(b"x"), REFUSAL, "in.dlq", attempts=2)
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
        "nli-attempts": b"2",
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
