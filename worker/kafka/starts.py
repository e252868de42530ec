"""Where reading begins in a partition that has just come."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import FatalError, RetryableError
from worker.kafka.group_offsets import GroupOffsets
from worker.types import TopicPartition

REQUEST_SECONDS = 5.0
"""How long one request to the broker may take before it is tried again."""
ENDS_TRIES = 5
"""How often the ends of topics are asked for before it is given up."""
BEGINNING_TRIES = 3
"""How often the first offsets are asked for and committed: what one partition does not tell holds up no other."""

_NO_MEMBER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.STALE_MEMBER_EPOCH,
}
"""The assignment is over already; waiting on would keep the client from hearing of the next one."""

log = structlog.get_logger(__name__)


class Starts:
    """Committed offsets, and what holds where there are none. Belongs to the poll thread."""

    def __init__(self, consumer: Callable[[], Consumer], group: GroupOffsets, start: str) -> None:
        """`consumer()` is the present client; `start` is `earliest`, `latest` or `error`."""
        self._consumer = consumer
        self._group = group
        self._start = start
        self._fresh: frozenset[TopicPartition] = frozenset()

    def prepare(self, topics: Iterable[str]) -> None:
        """With `latest`: note what is there before the group has read anything of it. Blocks.

        Raises:
            RetryableError: the broker does not answer.
        """
        if self._start != "latest":
            return
        try:
            present = self._all_partitions(topics)
            topics_read = {partition.topic for partition in self._group.committed(present)}
        except KafkaException as error:
            raise RetryableError(f"the group's offsets cannot be read ({error.args[0].name()})") from error
        self._fresh = frozenset(partition for partition in present if partition.topic not in topics_read)

    def of(self, partitions: frozenset[TopicPartition], waiting: Callable[[int], None]) -> dict[TopicPartition, int]:
        """Committed offsets; the rest by `kafka.start`. Tries for as long as `waiting(attempt)` lets it."""
        attempt = 0
        while partitions:
            try:
                committed = self._group.committed(partitions)
                return {**self._first(partitions - committed.keys(), waiting), **committed}
            except KafkaException as error:
                if attempt == 0:
                    log.warning("consumer.committed_offsets_awaited", reason=error.args[0].name())
                attempt += 1
                waiting(attempt)
        return {}

    def ends(self, topics: Sequence[str], wait: Callable[[float], bool]) -> dict[TopicPartition, int]:
        """The end of every partition of `topics`, now. Blocks; `wait(seconds)` says whether to give up.

        Raises:
            RetryableError: the broker does not answer.
        """
        for attempt in range(1, ENDS_TRIES + 1):
            try:
                return {p: watermarks(self._consumer(), p)[1] for p in self._all_partitions(topics)}
            except KafkaException as error:  # a topic that was just made may have no leader yet
                reason = error.args[0].name()
            log.warning("consumer.ends_awaited", attempt=attempt, reason=reason)
            if wait(0.2 * attempt):
                break
        raise RetryableError(f"the end of the topics could not be read ({reason})")

    def _first(
        self, partitions: frozenset[TopicPartition], waiting: Callable[[int], None]
    ) -> dict[TopicPartition, int]:
        if self._start == "error" and partitions:
            first = min(partitions)
            raise FatalError(f"{first.topic}/{first.partition} has no committed offset and kafka.start is `error`")
        # `latest` skips only what was there when the worker started, in topics that the group had never read.
        ends = {partition: watermarks(self._consumer(), partition)[1] for partition in partitions & self._fresh}
        if ends:
            # Committed at once: should one move before its first record, the next owner must not skip further.
            self._committed(ends)
        beginnings = self._beginnings(partitions - ends.keys(), waiting)
        return {**dict.fromkeys(partitions, OFFSET_BEGINNING), **beginnings, **ends}

    def _beginnings(
        self, partitions: frozenset[TopicPartition], waiting: Callable[[int], None]
    ) -> dict[TopicPartition, int]:
        """The first offsets, committed at once: what retention takes before the first commit is a gap then.

        No entry where there is no telling: such a partition begins with what is there once it is read.
        """
        for attempt in range(1, BEGINNING_TRIES + 1) if partitions else ():
            try:
                return self._committed(self._lowest(partitions))
            except KafkaException as error:
                reason = error.args[0]
                log.warning("consumer.beginnings_awaited", attempt=attempt, reason=reason.name())
                if reason.code() in _NO_MEMBER:
                    break
                waiting(attempt)
        return {}

    def _lowest(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        # The earliest offset is what Kafka's ListOffsets answers for this time stamp: one request for all of a broker.
        wanted = [KafkaPartition(*partition, OFFSET_BEGINNING) for partition in sorted(partitions)]
        answer = self._consumer().offsets_for_times(wanted, timeout=REQUEST_SECONDS)
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer if p.error is None and p.offset >= 0}

    def _committed(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Those of `positions` that were committed, as the member that has the partitions: others are refused."""
        offsets = [KafkaPartition(*partition, offset) for partition, offset in sorted(positions.items())]
        answer = self._consumer().commit(offsets=offsets, asynchronous=False) if offsets else None
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer or () if p.error is None}

    def _all_partitions(self, topics: Iterable[str]) -> frozenset[TopicPartition]:
        return frozenset(
            TopicPartition(topic, number)
            for topic in topics
            for number in self._consumer().list_topics(topic, timeout=REQUEST_SECONDS).topics[topic].partitions
        )


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset of `partition` and the one after its last. Blocks.

    Raises:
        KafkaException: the broker does not answer.
    """
    low, high = consumer.get_watermark_offsets(KafkaPartition(*partition), timeout=REQUEST_SECONDS)
    return low, high
