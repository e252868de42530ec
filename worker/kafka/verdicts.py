"""What a call of the transactional producer asks for when it fails, and what mends it."""

from dataclasses import dataclass

from confluent_kafka import KafkaError

from worker.kafka.triage import Reports


class AbortAndRedo(Exception):  # noqa: N818  a verdict, not an error
    """The transaction is lost but the producer is not."""


class Replace(Exception):  # noqa: N818  a verdict, not an error
    """The producer can no longer say what became of its transaction."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A transaction that was not committed, or may not have been. Not an exception: those keep their frames alive."""

    reason: str
    is_in_doubt: bool


HOPELESS = {
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
}
"""What a worker that was just started ends with; one that has worked before waits: rights come back."""

_FIXES = {
    "GROUP_AUTHORIZATION_FAILED": "grant Read on the consumer group",
    "INVALID_TRANSACTION_TIMEOUT": "lower kafka.transaction_timeout_ms to the broker's maximum",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "grant Write and Describe on the transactional id",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "use delivery: at_least_once",
}


def outcome_of(trouble: Reports | Lost | None) -> str:
    """How the metrics call what became of a transaction."""
    if trouble is None:
        return "committed"
    return "in_doubt" if isinstance(trouble, Lost) and trouble.is_in_doubt else "aborted"


def fix_of(name: str) -> str:
    """What mends an error of that name, to be put after it; empty where nothing is known to."""
    return f": {_FIXES[name]}" if name in _FIXES else ""
