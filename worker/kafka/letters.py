"""Reading dead letter topics: committed records only, up to the ends seen at start, in no group."""

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock
from worker.errors import ConfigError, RetryableError
from worker.kafka.clients import ClientSettings, checked_settings, no_answer
from worker.kafka.records import record_of
from worker.types import Record, TopicPartition

_REQUEST_SECONDS = 10.0
_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_POLL_RECORDS = 500


class LetterReader:
    """Reads partitions of topics. A context manager."""

    def __init__(self, client: ClientSettings, clock: Clock) -> None:
        """`client` holds librdkafka's connection settings. Nothing is connected yet."""
        self._clock = clock
        self._settings: ClientSettings = {
            **client,
            "group.id": "dead-letters",  # asked for by the client; no group is joined, nothing is committed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
        }
        with checked_settings():
            self._consumer = Consumer(dict(self._settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def partitions(self, topics: Iterable[str]) -> dict[str, list[TopicPartition]]:
        """The partitions of each of `topics` that there is. Blocks.

        Raises:
            ConfigError: one of them may not be looked at.
            RetryableError: no broker answers.
        """
        topics = list(topics)
        try:
            found = self._consumer.list_topics(timeout=_REQUEST_SECONDS).topics
            for topic in set(topics) - set(found):  # one that may not be seen is left out there, as if it were not
                error = self._consumer.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic].error
                if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    fix = "grant Describe on this topic, and Read where it holds dead letters"
                    raise ConfigError(f"{topic} may not be looked at: {fix}")
        except KafkaException as error:
            raise RetryableError(no_answer(self._settings, error)) from error
        return {t: [TopicPartition(t, n) for n in sorted(found[t].partitions)] for t in topics if t in found}

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """The first offset and the one after the last, now. Blocks; to be asked before `read`.

        Raises:
            ConfigError: a topic may not be read.
            RetryableError: the broker does not answer.
        """
        return {partition: self._watermarks(partition) for partition in partitions}

    def read(self, spans: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
        """Records from the first offset of a span to before its second, each partition in order. Blocks.

        What is written meanwhile is not read, a record that becomes a dead letter again included.

        Raises:
            ConfigError: a topic may not be read.
            RetryableError: the broker stopped answering.
        """
        left = {partition: span for partition, span in spans.items() if span[0] < span[1]}
        self._consumer.assign([KafkaPartition(*p, span[0] or OFFSET_BEGINNING) for p, span in left.items()])
        silent_seconds, trouble = 0.0, "_TIMED_OUT"
        while left:
            asked = self._clock.monotonic()
            messages = self._consumer.consume(_POLL_RECORDS, _POLL_SECONDS)
            # Only what we wait for the broker: whoever takes the records may take his time.
            silent_seconds += self._clock.monotonic() - asked
            for message in messages:
                place, offset = TopicPartition(message.topic() or "", message.partition() or 0), message.offset() or 0
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  so named
                    trouble = _bearable(error, place.topic)
                    continue
                silent_seconds = 0.0
                end = left[place][1] if place in left else 0
                if error is not None or offset >= end - 1:
                    left.pop(place, None)
                if error is None and offset < end:
                    yield record_of(message, place, offset)
            if silent_seconds > _PATIENCE_SECONDS:
                raise RetryableError(f"the broker stopped answering ({trouble}): try again")
        self._consumer.unassign()

    def _watermarks(self, partition: TopicPartition) -> tuple[int, int]:
        deadline = self._clock.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=_REQUEST_SECONDS)
            except KafkaException as exception:
                name = _bearable(exception.args[0], partition.topic)
                if self._clock.monotonic() > deadline:
                    message = f"the ends of {partition.topic} could not be read ({name}): try again"
                    raise RetryableError(message) from exception
                self._consumer.poll(_POLL_SECONDS)  # a leader is being found: nothing is assigned, so nothing comes
            else:
                return int(low), int(high)


def _bearable(error: KafkaError, topic: str) -> str:
    """The name of an error that may pass.

    Raises:
        ConfigError: the topic may not be read.
        RetryableError: the client cannot go on.
    """
    if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise ConfigError(f"{topic} may not be read: grant Read and Describe on this topic")
    if error.fatal():
        raise RetryableError(f"{topic or 'a topic'} could not be read ({error.name()})")
    return error.name()
