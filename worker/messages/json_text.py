"""Bytes to JSON values, each way of not being JSON with its own code."""

import json
import re

import orjson

from worker.errors import ErrorCode, MessageError, Stage
from worker.types import JsonValue

MAX_DEPTH = 64
"""Objects and arrays within each other; deeper events are refused: not every subscriber could read them."""

_PARSER_DEPTH = 1000
"""Depth past which the parser gives up, so that its refusal says nothing about what it was given (it does at 1024)."""

_INTEGER_DIGITS = 100
"""Digits past which an integer is read as a float: Python refuses to convert some thousands of them."""

# Closed or not, so that no byte is looked at twice.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKETS_ALIKE = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def parse_event(value: bytes) -> dict[str, JsonValue]:
    """The JSON object that `value` is.

    Raises:
        MessageError: it is none: `utf8_invalid`, `json_invalid`, `value_too_deep` or `value_not_object`.
    """
    try:
        event: JsonValue = orjson.loads(value)
    except orjson.JSONDecodeError:
        event = _parse_refused(value)
    if _is_too_deep(value, MAX_DEPTH):
        raise _too_deep()
    if not isinstance(event, dict):
        raise _refused(ErrorCode.VALUE_NOT_OBJECT, "value: expected a JSON object")
    return event


def decode_utf8(value: bytes) -> str:
    """The characters of `value`.

    Raises:
        MessageError: `utf8_invalid`.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(ErrorCode.UTF8_INVALID, f"value: byte {error.start} is not UTF-8") from None


def _parse_refused(value: bytes) -> JsonValue:
    """What the standard parser says of a value that the fast one refused: why, or that it is JSON all the same."""
    text = decode_utf8(value)
    if value.startswith(_BYTE_ORDER_MARK):
        raise _refused(ErrorCode.JSON_INVALID, "value: expected JSON without a byte order mark")
    if _is_too_deep(value, _PARSER_DEPTH):
        raise _too_deep()
    try:
        # Numbers beyond a double are JSON; as they are carried through byte for byte, their value is of no interest.
        event: JsonValue = json.loads(text, parse_int=_integer, parse_constant=_refuse_constant)
        # Only a lone surrogate cannot be written as UTF-8.
        json.dumps(event, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _refused(ErrorCode.UTF8_INVALID, "value: a string holds half of a surrogate pair") from None
    except (ValueError, RecursionError):
        raise _refused(ErrorCode.JSON_INVALID, "value: expected JSON") from None
    return event


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INTEGER_DIGITS else float(digits)


def _refuse_constant(_: str) -> float:
    raise ValueError("NaN and Infinity are not JSON")


def _is_too_deep(value: bytes, limit: int) -> bool:
    """Whether more than `limit` levels are open at once; of what is no JSON, a guess that errs for odd input only."""
    if value.count(b"[") + value.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", value).translate(_BRACKETS_ALIKE, _ALL_BUT_BRACKETS)
    too_many_open = b"[" * (limit + 1)
    # Each round closes the innermost level everywhere: a pass in C over ever fewer bytes, not one step per bracket.
    for _ in range(limit):
        if too_many_open in brackets:
            return True
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            return False
        brackets = fewer
    return b"[" in brackets


def _too_deep() -> MessageError:
    return _refused(ErrorCode.VALUE_TOO_DEEP, f"value: expected at most {MAX_DEPTH} levels of objects and arrays")


def _refused(code: ErrorCode, reason: str) -> MessageError:
    return MessageError(code, Stage.DECODE, reason)
