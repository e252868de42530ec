"""Step 1: records from the broker, and what happens when partitions come and go."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
)
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import FatalError
from worker.kafka.offsets import Assignment
from worker.types import Record, TopicPartition

REQUEST_SECONDS = 5.0
"""How long one request to the broker may take before it is tried again."""

log = structlog.get_logger(__name__)


class RebalanceListener(Protocol):
    """Who is told when partitions come and go. Called on the poll thread, inside `poll`."""

    def waiting(self) -> None:
        """Called again and again while a rebalance waits for the broker: the thread is alive."""
        ...

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are ours now."""
        ...

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are about to go: the last moment to commit what is finished. May block, within a budget."""
        ...

    def gone(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are no longer ours: forget what is in flight."""
        ...


class RecordConsumer:
    """A member of the consumer group. All methods but `group_metadata` and `committed` belong to the poll thread."""

    def __init__(
        self, settings: Mapping[str, object], start: str, assignment: Assignment, listener: RebalanceListener
    ) -> None:
        """`start` is `earliest`, `latest` or `error`: where a partition without a committed offset begins."""
        self._consumer = Consumer({**settings, "enable.partition.eof": True})
        self._start = start
        self._assignment = assignment
        self._listener = listener
        self._held: Callable[[TopicPartition], bool] = lambda _: False
        self._paused: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}

    def subscribe(self, topics: Sequence[str], held: Callable[[TopicPartition], bool]) -> None:
        """Join the group. `held` says which partitions are to stay paused; see `apply_holds`."""
        self._held = held
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """Up to `max_records` records; also serves rebalances. Blocks for at most the timeout.

        Raises:
            FatalError: the client cannot go on, or a position is out of range.
        """
        records = []
        for message in self._consumer.consume(max_records, timeout_seconds):
            error = message.error()
            if error is not None:
                self._note_error(error, message)
            elif (record := self._record(message)) is not None:
                records.append(record)
        return records

    def apply_holds(self) -> int:
        """Pause what is held, resume what is not; returns how many partitions are paused."""
        owned = self._assignment.partitions()
        wanted = {partition for partition in owned if self._held(partition)}
        self._paused &= owned
        if wanted != self._paused:
            if more := wanted - self._paused:
                self._consumer.pause(_kafka_partitions(more))
            if less := self._paused - wanted:
                self._consumer.resume(_kafka_partitions(less))
            self._paused = wanted
        return len(self._paused)

    def group_metadata(self) -> Any:  # noqa: ANN401  an opaque handle of librdkafka
        """The membership to commit under. Thread-safe."""
        return self._consumer.consumer_group_metadata()

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets, waiting for open transactions to end; without an entry where there is none.

        Thread-safe, blocks for a few seconds at most.

        Raises:
            KafkaException: the coordinator does not answer, or a transaction is still open.
        """
        answer = self._consumer.committed(_kafka_partitions(partitions), timeout=REQUEST_SECONDS)
        for each in answer:
            if each.error is not None:
                raise KafkaException(each.error)
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer if p.offset >= 0}

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commit without a transaction (at-least-once). Thread-safe, blocks.

        Raises:
            KafkaException: it was not committed.
        """
        offsets = [KafkaPartition(p.topic, p.partition, offset) for p, offset in positions.items()]
        for each in self._consumer.commit(offsets=offsets, asynchronous=False):
            if each.error is not None:
                raise KafkaException(each.error)

    def lag(self) -> dict[TopicPartition, int]:
        """Records between our position and the last stable offset, per owned partition; from the client's own picture."""
        lag = {}
        for partition in self._assignment.partitions():
            position = self._positions.get(partition)
            # With read_committed the cached high watermark is the last stable offset.
            _, high = self._consumer.get_watermark_offsets(
                KafkaPartition(partition.topic, partition.partition), cached=True
            )
            if position is not None and high >= 0:
                lag[partition] = max(0, high - position)
        return lag

    def end_offsets(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The end of every partition of `topics`, now. Blocks.

        Raises:
            KafkaException: the broker does not answer.
        """
        ends = {}
        for topic in topics:
            metadata = self._consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
            for number in metadata.partitions:
                _, high = self._consumer.get_watermark_offsets(KafkaPartition(topic, number), timeout=REQUEST_SECONDS)
                ends[TopicPartition(topic, number)] = high
        return ends

    def is_at(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether every owned partition has been read up to `ends`; false while none is owned."""
        owned = self._assignment.partitions()
        return bool(owned) and all(self._ends.get(p, -1) >= ends.get(p, 0) for p in owned)

    def close(self) -> None:
        """Leave the group. Blocks until the broker knows."""
        self._consumer.close()

    def _record(self, message: Message) -> Record | None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if topic is None or number is None or offset is None:
            bug = "This is a bug. A message without an error has no position."
            raise RuntimeError(bug)
        partition = TopicPartition(topic, number)
        epoch = self._assignment.epoch(partition)
        if epoch is None:  # fetched before the partition was taken from us
            return None
        self._positions[partition] = offset + 1
        kind, timestamp_ms = message.timestamp()
        return Record(
            topic=topic,
            partition=number,
            offset=offset,
            epoch=epoch,
            key=_bytes(message.key()),
            value=_bytes(message.value()),
            headers=tuple((name, _bytes(value)) for name, value in message.headers() or ()),
            timestamp_ms=None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        )

    def _note_error(self, error: KafkaError, message: Message) -> None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF and topic is not None and number is not None:  # noqa: SLF001
            self._ends[TopicPartition(topic, number)] = offset or 0
            self._positions[TopicPartition(topic, number)] = offset or 0
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET and topic is not None and number is not None:  # noqa: SLF001
            raise FatalError(self._out_of_range(TopicPartition(topic, number)))
        if error.fatal():
            text = f"the Kafka consumer cannot go on ({error.name()})"
            raise FatalError(text)
        log.warning("consumer.error_reported", reason=error.name(), topic=topic, partition=number)

    def _out_of_range(self, partition: TopicPartition) -> str:
        where = f"{partition.topic}/{partition.partition}"
        low, _ = self._consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=REQUEST_SECONDS)
        position = self._positions.get(partition, -1)
        gap = f"{low - position} records are gone" if 0 <= position < low else "records may be gone"
        return (
            f"the position of {where} is out of range: {gap}; the oldest offset is {low}. "
            "To go on from there, set the group's offset with kafka-consumer-groups --reset-offsets"
        )

    def _on_assign(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        new = frozenset(TopicPartition(p.topic, p.partition) for p in partitions)
        positions = self._start_positions(new)
        self._assignment.assign(new)
        for position in positions:
            partition = TopicPartition(position.topic, position.partition)
            self._ends.pop(partition, None)
            self._positions.pop(partition, None)
            if position.offset >= 0:
                self._positions[partition] = position.offset
        self._consumer.incremental_assign(positions)
        self._paused -= new
        self.apply_holds()
        self._listener.assigned(new)

    def _on_revoke(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        leaving = frozenset(TopicPartition(p.topic, p.partition) for p in partitions)
        self._listener.revoking(leaving)
        self._let_go(leaving, partitions)

    def _on_lost(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        self._let_go(frozenset(TopicPartition(p.topic, p.partition) for p in partitions), partitions)

    def _let_go(self, leaving: frozenset[TopicPartition], partitions: list[KafkaPartition]) -> None:
        # Ownership ends before the broker is told: whatever is published from here on leaves these out.
        self._assignment.revoke(leaving)
        self._paused -= leaving
        self._listener.gone(leaving)
        self._consumer.incremental_unassign(partitions)

    def _start_positions(self, partitions: frozenset[TopicPartition]) -> list[KafkaPartition]:
        """Committed offsets; the rest by `kafka.start`. Tries for as long as the broker takes."""
        topics = {partition.topic for partition in partitions}
        while True:
            self._listener.waiting()
            try:
                committed = self.committed(self._all_partitions(topics) | partitions)
                break
            except KafkaException as error:
                log.warning("consumer.committed_offsets_awaited", reason=error.args[0].name())
        known_topics = {partition.topic for partition in committed}
        return [KafkaPartition(*p, committed.get(p, self._first(p, known_topics))) for p in sorted(partitions)]

    def _all_partitions(self, topics: Iterable[str]) -> frozenset[TopicPartition]:
        if self._start != "latest":
            return frozenset()
        return frozenset(
            TopicPartition(topic, number)
            for topic in topics
            for number in self._consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic].partitions
        )

    def _first(self, partition: TopicPartition, known_topics: set[str]) -> int:
        if self._start == "error":
            message = f"{partition.topic}/{partition.partition} has no committed offset and kafka.start is `error`"
            raise FatalError(message)
        # `latest` never skips records of a partition that was added to a topic the group already reads.
        is_new_to_group = partition.topic not in known_topics
        return OFFSET_END if self._start == "latest" and is_new_to_group else OFFSET_BEGINNING


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _kafka_partitions(partitions: Iterable[TopicPartition]) -> list[KafkaPartition]:
    return [KafkaPartition(p.topic, p.partition) for p in partitions]
