"""A plain producer and a plain subscriber, as those have who produce events and read predictions."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock, SystemClock
from worker.errors import FatalError, RetryableError
from worker.kafka.clients import ClientSettings
from worker.kafka.records import record_of
from worker.types import Record, TopicPartition

_REQUEST_SECONDS = 10.0
_FLUSH_SECONDS = 30.0
_POLL_SECONDS = 0.1
_POLL_RECORDS = 500


class EventProducer:
    """Writes events; a topic's partitions are chosen by key."""

    def __init__(self, bootstrap_servers: str) -> None:
        """Nothing is connected before the first `send`."""
        self._producer = Producer({**_connection(bootstrap_servers), "enable.idempotence": True})
        self._failures: list[KafkaError] = []

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Queue one event; blocks while the queue is full."""
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(_POLL_SECONDS)
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """Block until the broker has everything.

        Raises:
            RetryableError: it does not.
        """
        unsent = self._producer.flush(_FLUSH_SECONDS)
        if self._failures:
            raise RetryableError(f"events could not be produced ({self._failures[0].name()})")
        if unsent:
            raise RetryableError(f"the broker does not acknowledge {unsent} events")

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failures.append(error)


class CommittedReader:
    """Reads topics from their beginning, committed records only, in no group. A context manager."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], clock: Clock | None = None) -> None:
        """The topics have to be there. Blocks until the broker answers.

        Raises:
            RetryableError: it does not.
        """
        self._clock = clock or SystemClock()
        self._consumer = Consumer(
            {
                **_connection(bootstrap_servers),
                "group.id": "committed-reader",  # asked for by the client; no group is joined, nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "fetch.queue.backoff.ms": 50,
            }
        )
        try:
            found = self._consumer.list_topics(timeout=_REQUEST_SECONDS).topics
        except KafkaException as error:
            raise RetryableError(f"the topics cannot be listed ({error.args[0].name()})") from error
        self._partitions = [TopicPartition(topic, n) for topic in topics for n in sorted(found[topic].partitions)]
        self._consumer.assign([KafkaPartition(*partition, OFFSET_BEGINNING) for partition in self._partitions])
        self._ends: dict[TopicPartition, int] = {}

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def poll(self, timeout_seconds: float = _POLL_SECONDS) -> list[Record]:
        """What has been committed since, in each partition's order. Blocks for at most the timeout.

        Raises:
            FatalError: the client cannot go on.
        """
        records = []
        for message in self._consumer.consume(_POLL_RECORDS, timeout_seconds):
            topic, number, offset = message.topic(), message.partition(), message.offset()
            error = message.error()
            if error is not None and error.fatal():
                raise FatalError(f"the subscriber cannot go on ({error.name()})")
            if topic is None or number is None or offset is None:
                continue
            if error is None:
                records.append(record_of(message, TopicPartition(topic, number), offset))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are named so
                self._ends[TopicPartition(topic, number)] = offset
        return records

    def read_to_end(self, timeout_seconds: float = _FLUSH_SECONDS) -> Iterator[Record]:
        """Every record up to the present end of every partition. Blocks for at most about the timeout.

        Raises:
            RetryableError: the broker does not answer.
            FatalError: the client cannot go on.
        """
        deadline = self._clock.monotonic() + timeout_seconds
        try:
            ends = {partition: self._end(partition) for partition in self._partitions}
        except KafkaException as error:
            raise RetryableError(f"the end of the topics could not be read ({error.args[0].name()})") from error
        while self._clock.monotonic() < deadline and any(self._ends.get(p, 0) < end for p, end in ends.items()):
            yield from self.poll()

    def _end(self, partition: TopicPartition) -> int:
        _, end = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=_REQUEST_SECONDS)
        return int(end)


def _connection(bootstrap_servers: str) -> ClientSettings:
    return {"bootstrap.servers": bootstrap_servers, "allow.auto.create.topics": False, "log_level": 2}
