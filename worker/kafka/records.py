"""What the Kafka client hands over, as our own record."""

from collections.abc import Callable
from operator import methodcaller

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from worker.types import Headers, Record, TopicPartition

NO_EPOCH = 0
"""The epoch of a record that was read outside a group: nobody can take its partition away."""

_READ_HEADERS: Callable[[Message], list[tuple[str, str | bytes | None]] | None] = methodcaller("headers")
"""`message.headers()` through a call that Python checks.

For a name that is not UTF-8 the client returns a list with a hole in it and an error pending. The interpreter's fast
path for a method without arguments, taken once it is warm, looks at neither: the process dies of a segmentation fault.
"""


def record_of(message: Message, partition: TopicPartition, offset: int, epoch: int = NO_EPOCH) -> Record:
    """The record that `message` holds, which has no error and lies at `offset` of `partition`."""
    kind, timestamp_ms = message.timestamp()
    headers = _headers(message)
    return Record(
        topic=partition.topic,
        partition=partition.partition,
        offset=offset,
        epoch=epoch,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=headers or (),
        timestamp_ms=None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        has_unreadable_headers=headers is None,
    )


def _headers(message: Message) -> Headers | None:
    """The headers in their order; None where the client cannot hand them over: it takes their names for UTF-8."""
    try:
        headers = _READ_HEADERS(message)
    except (SystemError, UnicodeDecodeError):
        return None
    return tuple([(name, _bytes(value)) for name, value in headers]) if headers else ()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
