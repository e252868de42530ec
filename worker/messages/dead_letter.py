"""What becomes of a record that cannot be predicted: its original, and why."""

import hashlib

from worker.errors import Stage
from worker.messages.codec import record_bytes, replace_headers
from worker.messages.outbound import MAX_RECORD_BYTES
from worker.types import OutboundRecord, Record, Refusal

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


def dead_letter(
    record: Record, refusal: Refusal, topic: str, *, attempts: int = 1, max_bytes: int = MAX_RECORD_BYTES
) -> OutboundRecord:
    """The dead letter of `record`: key, value, headers and timestamp as they came, and the reason in headers.

    One that would be too large has a null value, and headers that say its size and digest; where that does not
    help, the original headers go too, and then the key.
    """
    why = _why(record, refusal, attempts)
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


def _why(record: Record, refusal: Refusal, attempts: int) -> list[tuple[str, bytes]]:
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
        "nli-attempts": str(attempts),
    }
    return [(name, value.encode("utf-8")) for name, value in told.items()]


def _instead_of_value(record: Record) -> list[tuple[str, bytes]]:
    value = record.value or b""
    return [
        ("nli-value-bytes", str(len(value)).encode()),
        ("nli-value-sha256", hashlib.sha256(value).hexdigest().encode()),
    ]
