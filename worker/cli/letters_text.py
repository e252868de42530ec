"""How dead letters are printed, and how what was asked of them is read."""

import json
from collections.abc import Iterator
from pathlib import Path

from worker.clock import SystemClock
from worker.config import load_config
from worker.dead_letters.desk import LetterDesk
from worker.dead_letters.selection import Skip, Tally, Wanted, parse_time
from worker.errors import ConfigError, ErrorCode
from worker.messages.codec import utc_timestamp
from worker.messages.dead_letter import DeadLetter, is_ours, read_dead_letter
from worker.observability.logging import configure_logging
from worker.types import JsonValue, Record

_COLUMNS = ("code", "stage", "tried", "bytes", "event time", "source", "reason")
_PLACE_CHARACTERS = 13
"""Of `/partition/offset` in a column."""
_WHY: dict[Skip, str] = {
    "filtered": "not asked for",
    "replayed_before": "replayed before",
    "attempts_exhausted": "tried as often as --max-attempts allows",
    "value_dropped": "too large for the dead letter topic, so without their value",
    "no_such_input": "from a topic or partition that this configuration does not read",
    "not_ours": "no dead letters of a worker",
}


def desk_of(config_file: Path) -> LetterDesk:
    """The desk for a configuration.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    configure_logging("warning")
    return LetterDesk(load_config(config_file), SystemClock())


def wanted_of(
    desk: LetterDesk, topic: str | None, codes: list[str] | None, span: tuple[str | None, str | None]
) -> Wanted:
    """What the options ask for; `span` is since and until.

    Raises:
        ConfigError: an option has no value that can be used.
    """
    known = {code.value for code in ErrorCode}
    if not known.issuperset(codes or ()):
        raise ConfigError(f"--code: expected one of {', '.join(sorted(known))}")
    now_seconds = SystemClock().wall()
    since, until = span
    return Wanted(
        codes=frozenset(codes or ()),
        since_ms=None if since is None else parse_time(since, now_seconds, "--since"),
        until_ms=None if until is None else parse_time(until, now_seconds, "--until"),
        originals=desk.originals(topic),
    )


def as_object(letter: DeadLetter) -> dict[str, JsonValue]:
    """`letter` as plain JSON, without a word of the event."""
    record = letter.record
    return {
        "position": position_of(record),
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "code": letter.code,
        "stage": letter.stage,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "timestamp": _time(record),
        "source": {
            "topic": letter.original.topic,
            "partition": letter.original.partition,
            "offset": letter.original_offset,
        },
        "value_bytes": letter.value_bytes,
        "value_dropped": letter.is_cut,
    }


def position_of(record: Record) -> str:
    """`topic/partition/offset`."""
    return f"{record.topic}/{record.partition}/{record.offset}"


class Lines:
    """Prints dead letters as they come: aligned for people, or JSON."""

    def __init__(self, topics: tuple[str, ...], *, as_json: bool) -> None:
        """`topics` may come up in the first column."""
        self._as_json = as_json
        self._width = max(map(len, topics)) + _PLACE_CHARACTERS

    def head(self) -> None:
        """Print the names of the columns."""
        if not self._as_json:
            self._print(("dead letter", *_COLUMNS))

    def letter(self, letter: DeadLetter) -> None:
        """Print one dead letter."""
        if self._as_json:
            print(json.dumps(as_object(letter)), flush=True)
            return
        source = f"{letter.original.topic}/{letter.original.partition}/{letter.original_offset}"
        size = f"{letter.value_bytes}{' dropped' if letter.is_cut else ''}"
        time = _time(letter.record) or "-"
        cells = (letter.code, letter.stage, str(letter.attempts), size, time, source, printable(letter.reason))
        self._print((position_of(letter.record), *cells))

    def _print(self, cells: tuple[str, ...]) -> None:
        widths = (self._width, 22, 8, 5, 8, 24, self._width, 0)
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def counts_line(what: str, tally: Tally) -> str:
    """How many, and how many of each code."""
    codes = ", ".join(f"{code} {count}" for code, count in sorted(tally.by_code.items(), key=lambda each: -each[1]))
    return f"{what}: {tally.total}{f' ({codes})' if codes else ''}"


def skipped_lines(tally: Tally) -> Iterator[str]:
    """How many were left out, and why."""
    for reason, count in sorted(tally.skipped.items()):
        yield f"left out: {count} {_WHY[reason]}"


def summary_of(tally: Tally, *, is_sent: bool) -> dict[str, JsonValue]:
    """What became of all dead letters, as plain JSON."""
    return {
        "sent": tally.total if is_sent else 0,
        "would_be_sent": 0 if is_sent else tally.total,
        "codes": dict(tally.by_code),
        "left_out": {str(reason): count for reason, count in tally.skipped.items()},
    }


def details(record: Record, *, show_text: bool) -> dict[str, JsonValue]:
    """Everything about one dead letter, as plain JSON; of the event itself names and sizes, unless `show_text`."""
    letter = read_dead_letter(record)
    told: dict[str, JsonValue] = {"position": position_of(record)} if letter is None else as_object(letter)
    told["key_bytes"], told["value_bytes"] = (
        _size(record.key),
        _size(record.value) if letter is None else letter.value_bytes,
    )
    told["headers"] = [
        {"name": name, "value": _text(value)}
        if show_text or (letter is not None and is_ours(name))
        else {"name": name, "bytes": _size(value)}
        for name, value in record.headers
    ]
    if show_text:
        told["key"], told["value"] = _text(record.key), _text(record.value)
    return told


def print_details(told: dict[str, JsonValue]) -> None:
    """Print what `details` gave, a line for each."""
    headers = told.pop("headers")
    for name, value in told.items():
        print(f"{name:<14} {printable(value if isinstance(value, str) else json.dumps(value), limit=None)}")
    for header in headers if isinstance(headers, list) else ():
        if isinstance(header, dict):
            shown = header["value"] if "value" in header else f"({header['bytes']} bytes)"
            print(f"header         {printable(str(header['name']))}: {printable(str(shown), limit=None)}")


def printable(text: str, limit: int | None = 300) -> str:
    """`text` on one line, with nothing in it that a terminal would obey."""
    shown = "".join(character if character.isprintable() else "?" for character in text[:limit])
    return shown if limit is None or len(text) <= limit else shown + "…"


def _time(record: Record) -> str | None:
    return None if record.timestamp_ms is None else utc_timestamp(record.timestamp_ms)


def _size(value: bytes | None) -> int | None:
    return None if value is None else len(value)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
