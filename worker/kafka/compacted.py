"""A compacted topic of one partition, read from its beginning without a group."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from worker.errors import ConfigError, RetryableError
from worker.kafka.clients import ClientSettings, checked_settings, no_answer, right_for
from worker.types import Headers

REQUEST_SECONDS = 5.0
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


class CompactedReader:
    """Reads committed records in their order. Belongs to one thread; a context manager: closed on exit."""

    def __init__(self, settings: ClientSettings, topic: str) -> None:
        """`settings` are those of `clients.reader_settings`. Blocks.

        Raises:
            RetryableError: no broker answers, or the topic is not there.
            ConfigError: the topic has more than one partition.
        """
        self._topic = topic
        self._settings = settings
        with checked_settings():
            self._consumer = Consumer(dict(settings))
        self._position = 0
        try:
            self._require_one_partition()
            self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def position(self) -> int:
        """The offset up to which the topic was read."""
        return self._position

    def read(self, seconds: float) -> list[Entry]:
        """What comes within `seconds`. Blocks for at most that.

        Raises:
            RetryableError: the topic is out of reach, or gone.
        """
        entries = []
        for message in self._consumer.consume(_BATCH, seconds):
            error = message.error()
            if error is None:
                entries.append(_entry(message))
                self._position = entries[-1].offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are named so
                self._position = message.offset() or 0
            elif not error.retriable() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise RetryableError(f"topic {self._topic} cannot be read ({error.name()}){right_for(error.name())}")
        return entries

    def end(self) -> int:
        """The offset up to which it has committed records now. Blocks.

        Raises:
            RetryableError: no broker answers.
        """
        try:
            # Asked of the broker with the consumer's own isolation level: the last stable offset.
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), timeout=REQUEST_SECONDS)
        except KafkaException as error:
            raise RetryableError(f"the end of topic {self._topic} is not known ({error.args[0].name()})") from None
        return int(end)

    def read_to_end(self, is_over: Callable[[], bool]) -> list[Entry]:
        """Everything between the position and the present end. Blocks.

        Raises:
            RetryableError: the topic is out of reach, or `is_over` said so before the end was reached.
        """
        end, entries = self.end(), list[Entry]()
        while self._position < end:
            if is_over():
                raise RetryableError(f"the end of topic {self._topic} was not reached in time")
            entries += self.read(0.1)
        return entries

    def close(self) -> None:
        """Let go of the broker."""
        with contextlib.suppress(RuntimeError):  # closed already
            self._consumer.close()

    def _require_one_partition(self) -> None:
        try:
            found = self._consumer.list_topics(self._topic, timeout=REQUEST_SECONDS).topics[self._topic]
        except KafkaException as error:
            raise RetryableError(no_answer(self._settings, error)) from None
        if found.error is not None:
            name = found.error.name()
            fix = right_for(name) or ": create it, or set schemas.create: true"
            raise RetryableError(f"topic {self._topic} is not there, or may not be seen ({name}){fix}")
        if len(found.partitions) != 1:
            message = f"topic {self._topic}: expected one partition, not {len(found.partitions)}: their order decides"
            raise ConfigError(message)


def _entry(message: Message) -> Entry:
    _, timestamp_ms = message.timestamp()
    headers = message.headers() or []
    listed = headers.items() if isinstance(headers, dict) else headers
    return Entry(
        message.offset() or 0,
        _bytes(message.key()),
        _bytes(message.value()),
        tuple((name, _bytes(value)) for name, value in listed),
        timestamp_ms,
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
