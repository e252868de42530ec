"""The demo's events: good ones, ones with their own label set, and broken ones, always in the same order.

One line of `events.jsonl` is one event: `topic`, `key` (text or null) and one of

    value       the event as JSON: what an ordinary producer sends
    raw         text to be sent as its UTF-8 bytes, whatever it is
    raw_base64  bytes to be sent as they are
    null        true: a record without a value
    repeat      {"text": T, "times": N}: the event {"text": T repeated N times}, a text too large to be kept here

and, for a broken one, `breaks`: the error code that its dead letter carries.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import NotRequired, TypedDict, cast

import orjson

from worker.types import JsonValue


@dataclass(frozen=True, slots=True)
class DemoEvent:
    """One record to be produced."""

    topic: str
    """`support` (single-label) or `posts` (multi-label)."""
    key: bytes | None
    value: bytes | None
    breaks: str | None
    """The error code that a worker gives it; None for an event that can be predicted."""


class _Repeat(TypedDict):
    text: str
    times: int


class _Line(TypedDict):
    topic: str
    key: str | None
    value: NotRequired[dict[str, JsonValue]]
    raw: NotRequired[str]
    raw_base64: NotRequired[str]
    null: NotRequired[bool]
    repeat: NotRequired[_Repeat]
    breaks: NotRequired[str]


def demo_events(count: int) -> Iterator[DemoEvent]:
    """`count` events, in the file's order and from its start again when it is used up.

    From the second round on ids carry the round as a suffix, so that no two good events share one.
    """
    lines = _read_lines()
    for number in range(count):
        rounds_done, index = divmod(number, len(lines))
        yield _event(lines[index], rounds_done)


def _read_lines() -> list[_Line]:
    text = resources.files("worker.bundled").joinpath("events.jsonl").read_bytes()
    return [cast("_Line", orjson.loads(line)) for line in text.splitlines()]


def _event(line: _Line, rounds_done: int) -> DemoEvent:
    key = line["key"]
    return DemoEvent(
        topic=line["topic"],
        key=None if key is None else key.encode(),
        value=_value(line, rounds_done),
        breaks=line.get("breaks"),
    )


def _value(line: _Line, rounds_done: int) -> bytes | None:
    if "value" in line:
        return orjson.dumps(_in_round(line["value"], rounds_done))
    if "raw" in line:
        return line["raw"].encode()
    if "raw_base64" in line:
        return base64.b64decode(line["raw_base64"], validate=True)
    if "repeat" in line:
        return orjson.dumps({"text": line["repeat"]["text"] * line["repeat"]["times"]})
    return None


def _in_round(event: dict[str, JsonValue], rounds_done: int) -> dict[str, JsonValue]:
    return event if rounds_done == 0 else {**event, "id": f"{event['id']}-{rounds_done + 1}"}
