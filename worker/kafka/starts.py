"""Where reading begins in a partition that has just come."""

from collections.abc import Callable, Iterable, Sequence

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import FatalError, RetryableError
from worker.kafka.group_offsets import GroupOffsets
from worker.types import TopicPartition

REQUEST_SECONDS = 5.0
"""How long one request to the broker may take before it is tried again."""
ENDS_TRIES = 5
"""How often the ends of topics are asked for before it is given up."""

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
                return {**self._first(partitions - committed.keys()), **committed}
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

    def _first(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        if self._start == "error" and partitions:
            first = min(partitions)
            raise FatalError(f"{first.topic}/{first.partition} has no committed offset and kafka.start is `error`")
        # `latest` skips only what was there when the worker started, in topics that the group had never read.
        ends = {partition: watermarks(self._consumer(), partition)[1] for partition in partitions & self._fresh}
        if ends:
            # Committed at once: should one move before its first record, the next owner must not skip further.
            offsets = [KafkaPartition(*partition, end) for partition, end in sorted(ends.items())]
            self._consumer().commit(offsets=offsets, asynchronous=False)
        return {**dict.fromkeys(partitions, OFFSET_BEGINNING), **ends}

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
