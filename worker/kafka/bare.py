"""A bare transactional loop: consume, produce, send the offsets, commit. What any worker on this client can reach."""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock, SystemClock
from worker.errors import RetryableError
from worker.kafka.clients import ClientSettings, checked_settings
from worker.types import Headers

_CALL_SECONDS = 30.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class BareJob:
    """What the loop copies: each record of a topic becomes one of given values, on the same partition and key."""

    consumer: ClientSettings
    producer: ClientSettings
    source: str
    target: str
    values: Sequence[bytes]
    """What is produced, one after the other and from the start again: values of the size that a worker produces."""
    headers: Headers
    records: int
    """How many there are in `source`."""
    records_per_transaction: int = 1000


def copy_records(job: BareJob, clock: Clock | None = None) -> float:
    """Copy all records; the seconds from the first one read to the last commit. Blocks.

    Raises:
        RetryableError: the topic ends before all were read.
        KafkaException: the broker refuses something.
    """
    clock = clock or SystemClock()
    with checked_settings():
        consumer, producer = Consumer(job.consumer), Producer(job.producer)
    try:
        producer.init_transactions(_CALL_SECONDS)
        consumer.subscribe([job.source])
        started, done = None, 0
        while done < job.records:
            messages = consumer.consume(job.records_per_transaction, _POLL_SECONDS)
            if not messages:
                if started is not None:
                    raise RetryableError(f"{job.source} ended after {done} of {job.records} records")
                continue
            started = clock.monotonic() if started is None else started
            done += _copy(job, messages, consumer, producer)
        return clock.monotonic() - (started or 0.0)
    finally:
        consumer.close()


def _copy(job: BareJob, messages: Sequence[Message], consumer: Consumer, producer: Producer) -> int:
    positions: dict[int, int] = {}
    values, target = job.values, job.target
    headers: list[tuple[str, str | bytes | None]] = [*job.headers]
    producer.begin_transaction()
    for number, message in enumerate(messages):
        partition = message.partition() or 0
        value, timestamp_ms = values[number % len(values)], message.timestamp()[1]
        producer.produce(target, value, message.key(), partition, headers=headers, timestamp=timestamp_ms)
        positions[partition] = (message.offset() or 0) + 1
    offsets = [KafkaPartition(job.source, partition, offset) for partition, offset in positions.items()]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), _CALL_SECONDS)
    producer.commit_transaction(_CALL_SECONDS)
    return len(messages)
