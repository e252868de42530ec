"""What becomes of a record that cannot be predicted: its original, and why; and reading that again."""

import hashlib
import re
from dataclasses import dataclass

from worker.errors import Stage
from worker.messages.codec import record_bytes, replace_headers
from worker.messages.outbound import MAX_RECORD_BYTES
from worker.types import Headers, OutboundRecord, Record, Refusal, TopicPartition

_PREFIX = "__connect.errors."
"""Kafka Connect's own names, so that tools made for its dead letter queues read ours."""

_STEPS = {
    Stage.DECODE: "worker.messages.codec",
    Stage.RESOLVE: "worker.labels.registry",
    Stage.PLAN: "worker.pipeline.planning",
    Stage.TOKENIZE: "worker.pipeline.tokenization",
    Stage.SCORE: "worker.engines",
    Stage.DECIDE: "worker.pipeline.decision",
    Stage.ENCODE: "worker.messages.codec",
}

ATTEMPTS = "nli-attempts"
"""The attempt that this is: in a dead letter the one that failed, in a replayed record the one to come."""

_VALUE_BYTES = "nli-value-bytes"
_OURS = frozenset(
    {
        *(f"{_PREFIX}{name}" for name in ("topic", "partition", "offset", "stage", "class.name")),
        *(f"{_PREFIX}exception.{name}" for name in ("class.name", "message")),
        *("nli-error-code", "nli-error-stage", ATTEMPTS, _VALUE_BYTES, "nli-value-sha256"),
    }
)
_NUMBER = re.compile(r"[0-9]{1,18}")
_ATTEMPTS = re.compile(r"[1-9][0-9]{0,5}")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it was read: the record as it lies in the dead letter topic, and what its headers say."""

    record: Record
    code: str
    """An `ErrorCode`, or one that a later version of the worker has added."""
    stage: str
    reason: str
    attempts: int
    original: TopicPartition
    original_offset: int
    is_cut: bool
    """It was too large for its topic: its value, perhaps headers and key too, did not come along."""
    value_bytes: int
    """Of the original."""


def dead_letter(record: Record, refusal: Refusal, topic: str, *, max_bytes: int = MAX_RECORD_BYTES) -> OutboundRecord:
    """The dead letter of `record`: key, value, headers and timestamp as they came, and the reason in headers.

    A record that was replayed says which attempt it is, and so does its dead letter.

    One that would be too large has a null value, and headers that say its size and digest; where that does not
    help, the original headers go too, and then the key.
    """
    why = _why(record, refusal)
    key, value, headers = record.key, record.value, replace_headers(record.headers, why)
    if record_bytes(key, value, headers) > max_bytes:
        why += _instead_of_value(record)
        value, headers = None, replace_headers(record.headers, why)
    if record_bytes(key, value, headers) > max_bytes:
        headers = tuple(why)
    if record_bytes(key, value, headers) > max_bytes:
        key = None
    return OutboundRecord(
        topic=topic, key=key, value=value, headers=headers, timestamp_ms=record.timestamp_ms, source=record.source
    )


def read_dead_letter(record: Record) -> DeadLetter | None:
    """What `record` says of itself as a dead letter; None where no worker of ours wrote it."""
    told = {name: _text(value) for name, value in record.headers if name in _OURS}
    code, stage, topic = (
        told.get("nli-error-code", ""),
        told.get("nli-error-stage", ""),
        told.get(f"{_PREFIX}topic", ""),
    )
    partition, offset = told.get(f"{_PREFIX}partition", ""), told.get(f"{_PREFIX}offset", "")
    if not (_WORD.fullmatch(code) and _WORD.fullmatch(stage) and _TOPIC.fullmatch(topic)):
        return None
    if not (_NUMBER.fullmatch(partition) and _NUMBER.fullmatch(offset)):
        return None
    size = told.get(_VALUE_BYTES, "")
    is_cut = record.value is None and _NUMBER.fullmatch(size) is not None
    return DeadLetter(
        record=record,
        code=code,
        stage=stage,
        reason=told.get(f"{_PREFIX}exception.message", "").removeprefix(f"{code}: "),
        attempts=_attempts(record.headers),
        original=TopicPartition(topic, int(partition)),
        original_offset=int(offset),
        is_cut=is_cut,
        value_bytes=int(size) if is_cut else len(record.value or b""),
    )


def replayed(letter: DeadLetter) -> OutboundRecord:
    """The record that `letter` was made of, one attempt on: key, value, headers and timestamp as they first came."""
    record = letter.record
    theirs = tuple(header for header in record.headers if header[0] not in _OURS)
    return OutboundRecord(
        topic=letter.original.topic,
        key=record.key,
        value=record.value,
        headers=(*theirs, (ATTEMPTS, str(letter.attempts + 1).encode())),
        timestamp_ms=record.timestamp_ms,
        source=letter.original,
    )


def is_ours(header: str) -> bool:
    """Whether dead letters have a header of this name for themselves."""
    return header in _OURS


def _attempts(headers: Headers) -> int:
    """Which attempt a record is: what its last header of that name says, 1 where it says nothing of use."""
    said = [_text(value) for name, value in headers if name == ATTEMPTS]
    return int(said[-1]) if said and _ATTEMPTS.fullmatch(said[-1]) else 1


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _why(record: Record, refusal: Refusal) -> list[tuple[str, bytes]]:
    told = {
        f"{_PREFIX}topic": record.topic,
        f"{_PREFIX}partition": str(record.partition),
        f"{_PREFIX}offset": str(record.offset),
        f"{_PREFIX}stage": refusal.stage.value,
        f"{_PREFIX}class.name": _STEPS[refusal.stage],
        f"{_PREFIX}exception.class.name": "worker.errors.MessageError",
        f"{_PREFIX}exception.message": f"{refusal.code.value}: {refusal.reason}",
        "nli-error-code": refusal.code.value,
        "nli-error-stage": refusal.stage.value,
        ATTEMPTS: str(_attempts(record.headers)),
    }
    return [(name, value.encode("utf-8")) for name, value in told.items()]


def _instead_of_value(record: Record) -> list[tuple[str, bytes]]:
    value = record.value or b""
    return [
        (_VALUE_BYTES, str(len(value)).encode()),
        ("nli-value-sha256", hashlib.sha256(value).hexdigest().encode()),
    ]
