"""The latest records of a topic, to try things on."""

import contextlib

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock
from worker.errors import RetryableError
from worker.kafka.clients import ClientSettings, checked_settings, no_answer
from worker.types import Record

REQUEST_SECONDS = 10.0
READ_SECONDS = 60.0


class MissingTopicError(RetryableError):
    """There is no such topic, or it may not be seen."""


def latest_records(settings: ClientSettings, topic: str, count: int, clock: Clock) -> list[Record]:
    """About the last `count` committed records of `topic`, evenly over its partitions, by timestamp. Blocks.

    `settings` are those of `clients.reader_settings`: no group is joined and nothing is committed.

    Raises:
        MissingTopicError: there is no such topic.
        RetryableError: the topic cannot be read.
    """
    with checked_settings():
        consumer = Consumer(dict(settings))
    try:
        _require(consumer, topic, settings)
        return _read(consumer, topic, count, clock.monotonic() + READ_SECONDS, clock)
    except KafkaException as error:
        raise RetryableError(f"topic {topic} cannot be read ({error.args[0].name()})") from None
    finally:
        with contextlib.suppress(RuntimeError):
            consumer.close()


def _require(consumer: Consumer, topic: str, settings: ClientSettings) -> None:
    try:
        found = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
    except KafkaException as error:
        raise RetryableError(no_answer(settings, error)) from None
    if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise MissingTopicError(f"topic {topic}: there is no such topic, or it may not be seen")


def _read(consumer: Consumer, topic: str, count: int, deadline: float, clock: Clock) -> list[Record]:
    found = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    share = -(-count // max(1, len(found.partitions)))
    starts = []
    for number in sorted(found.partitions):
        low, high = consumer.get_watermark_offsets(KafkaPartition(topic, number), timeout=REQUEST_SECONDS)
        if high > low:
            starts.append(KafkaPartition(topic, number, max(low, high - share)))
    consumer.assign(starts)
    open_partitions, records = {start.partition for start in starts}, list[Record]()
    while open_partitions:
        if clock.monotonic() > deadline:
            raise RetryableError(f"topic {topic}: its last records did not come in time")
        for message in consumer.consume(1000, 0.2):
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are named so
                open_partitions.discard(message.partition() or 0)
            elif not error.retriable():
                raise KafkaException(error)
    records.sort(key=lambda record: (record.timestamp_ms or 0, record.partition, record.offset))
    return records[-count:]


def _record(message: Message) -> Record:
    _, timestamp_ms = message.timestamp()
    return Record(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        epoch=0,
        key=message.key(),
        value=message.value(),
        timestamp_ms=timestamp_ms,
    )
