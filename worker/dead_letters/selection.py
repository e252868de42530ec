"""Which dead letters are meant, and which of them can be replayed. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from worker.errors import ConfigError
from worker.messages.dead_letter import DeadLetter
from worker.types import TopicPartition

Skip = Literal["replayed_before", "filtered", "attempts_exhausted", "value_dropped", "no_such_input", "not_ours"]
"""Why a record of a dead letter topic is not sent again."""

_AGE = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_POSITION = re.compile(r"([A-Za-z0-9._-]{1,249})/([0-9]{1,9})/([0-9]{1,18})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """One record of one topic, written `topic/partition/offset`."""

    place: TopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant; an empty filter lets everything through."""

    codes: frozenset[str] = frozenset()
    since_ms: int | None = None
    """Milliseconds since the Unix epoch, of the event's own timestamp, which its dead letter keeps."""
    until_ms: int | None = None
    """Exclusive."""
    originals: frozenset[str] = frozenset()
    """Input topics."""

    def includes(self, letter: DeadLetter) -> bool:
        """Whether `letter` is meant. One without a timestamp is not where a time was asked for."""
        moment = letter.record.timestamp_ms
        if self.codes and letter.code not in self.codes:
            return False
        if self.originals and letter.original.topic not in self.originals:
            return False
        if self.since_ms is not None and (moment is None or moment < self.since_ms):
            return False
        return self.until_ms is None or (moment is not None and moment < self.until_ms)


@dataclass(frozen=True, slots=True)
class ReplayRules:
    """What may be replayed."""

    wanted: Wanted
    inputs: Mapping[str, frozenset[TopicPartition]]
    """Dead letter topic -> the input partitions whose dead letters it takes, as they are now."""
    max_attempts: int

    def skip(self, letter: DeadLetter) -> Skip | None:
        """Why `letter` is not sent again; None where it is."""
        if not self.wanted.includes(letter):
            return "filtered"
        if letter.original not in self.inputs.get(letter.record.topic, frozenset()):
            return "no_such_input"
        if letter.is_cut:
            return "value_dropped"
        return "attempts_exhausted" if letter.attempts >= self.max_attempts else None


@dataclass(slots=True)
class Tally:
    """How many dead letters were seen, by what became of them."""

    by_code: dict[str, int] = field(default_factory=dict)
    skipped: dict[Skip, int] = field(default_factory=dict)

    def count(self, code: str) -> None:
        """One that is listed, or sent."""
        self.by_code[code] = self.by_code.get(code, 0) + 1

    def skip(self, reason: Skip) -> None:
        """One that is not."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    @property
    def total(self) -> int:
        """All that were listed, or sent."""
        return sum(self.by_code.values())


def parse_position(text: str) -> Position:
    """The record that `topic/partition/offset` names.

    Raises:
        ConfigError: it names none.
    """
    match = _POSITION.fullmatch(text)
    if match is None:
        raise ConfigError("expected the position of a dead letter as topic/partition/offset")
    return Position(TopicPartition(match[1], int(match[2])), int(match[3]))


def parse_time(text: str, now_seconds: float, option: str) -> int:
    """Milliseconds since the Unix epoch of a moment in RFC 3339, or of an age such as `10m`, `2h`, `1d` before now.

    Raises:
        ConfigError: it is neither.
    """
    if (age := _AGE.fullmatch(text)) is not None:
        return int((now_seconds - int(age[1]) * _UNIT_SECONDS[age[2]]) * 1000)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        expected = "expected a time with its zone, as 2026-01-31T08:00:00Z, or an age, as 10m, 2h or 1d"
        raise ConfigError(f"{option}: {expected}")
    return int((moment - _EPOCH).total_seconds() * 1000)
