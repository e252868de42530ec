"""Step 1: records from the broker, and what happens when partitions come and go.

The consumer belongs to the poll thread alone: since 2.16 confluent-kafka lets no other thread use it while one is
inside `consume`, not even to ask. What others need (epochs, membership) lies in `offsets.Assignment`, renewed after
every poll.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
)
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock, SystemClock
from worker.errors import FatalError
from worker.kafka.clients import ClientSettings, checked_settings
from worker.kafka.complaints import Complaints, StartOverError
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.membership import MembershipWatch
from worker.kafka.offsets import Assignment
from worker.kafka.others import OthersProgress
from worker.kafka.readable import Sieve
from worker.kafka.rebalance import RebalanceListener
from worker.kafka.records import record_of
from worker.kafka.starts import Starts, watermarks
from worker.types import Record, TopicPartition

REJOIN_SECONDS = 1.0
"""How soon to ask again whether the group still has another member of our name."""

log = structlog.get_logger(__name__)


class RecordConsumer:
    """A member of the consumer group. Every method belongs to the poll thread."""

    def __init__(
        self,
        settings: ClientSettings,
        group: GroupOffsets,
        start: str,
        assignment: Assignment,
        clock: Clock | None = None,
    ) -> None:
        """`start` is `earliest`, `latest` or `error`: where a partition without a committed offset begins."""
        self._settings: ClientSettings = {**settings, "enable.partition.eof": True}
        self._clock = clock or SystemClock()
        with checked_settings():
            self._consumer = Consumer(self._settings)
        instance = str(settings.get("group.instance.id", ""))
        self._complaints = Complaints(instance, self._clock, self._complain)
        self._membership = MembershipWatch(
            str(settings.get("group.protocol", "classic")),
            lambda reason: self._complain("membership", reason),
            lambda: self._told.joined(),  # noqa: PLW0108  there is none to be told before `subscribe`
        )
        self._others = OthersProgress(group, self._clock)
        self._rejoin_at: float | None = None
        self._starts = Starts(lambda: self._consumer, group, start)
        self._assignment = assignment
        self._listener: RebalanceListener | None = None
        self._paused: frozenset[TopicPartition] = frozenset()
        self._ends: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._failure: Exception | None = None
        self._topics: frozenset[str] = frozenset()
        self.sieve: Sieve | None = None
        """What holds records back that cannot be read yet, where a format needs it; set before `subscribe`."""

    def subscribe(self, topics: Sequence[str], listener: RebalanceListener) -> None:
        """Join the group; `listener` hears of every rebalance. With `start: latest` it asks the broker first: blocks.

        Raises:
            RetryableError: the broker does not answer.
        """
        self._listener = listener
        self._starts.prepare(topics)
        self.follow(topics)

    def follow(self, topics: Sequence[str]) -> None:
        """Read `topics` from now on; what is kept of the topics so far goes on undisturbed. Without any: as before.

        Patterns are matched by us, not by the client: there they would be another dialect (of POSIX, or with
        `group_protocol: consumer` of the broker), and could not leave out what we write.
        """
        if set(topics) == self._topics or not topics:
            return
        self._topics = frozenset(topics)
        self._consumer.subscribe(
            list(topics),
            on_assign=lambda _, partitions: self._guarded(self._on_assign, partitions),
            on_revoke=lambda _, partitions: self._guarded(self._on_revoke, partitions),
            on_lost=lambda _, partitions: self._guarded(self._on_lost, partitions),
        )

    def poll(self, max_records: int, timeout_seconds: float) -> list[Record]:
        """Up to `max_records` records; also serves rebalances. Blocks for at most the timeout.

        Raises:
            FatalError: the client cannot go on, or a position is out of range. Records may have been taken from the
                client and not returned: nothing after them may be committed, the process has to end.
        """
        records = []
        if self._rejoin_at is not None and self._clock.monotonic() >= self._rejoin_at:
            self._rejoin_at = None
            topics, self._topics = self._topics, frozenset()
            self.follow(sorted(topics))
        messages = self._consumer.consume(max_records, timeout_seconds)
        if self._failure is not None:
            raise self._failure
        membership = self._consumer.consumer_group_metadata()
        self._assignment.note_membership(membership)
        self._membership.note(membership)
        try:
            for message in messages:
                error = message.error()
                if error is not None:
                    self._note_error(error, message)
                elif (record := self._record(message)) is not None:
                    records.append(record)
        except StartOverError as gone:
            self._start_over(str(gone))
            records = []  # all of an assignment that is over
        self._complaints.review()
        return records if self.sieve is None else self.sieve.sift(records)

    def apply_holds(self) -> int:
        """Pause what is held, resume what is not; returns how many partitions are paused."""
        owned = self._assignment.partitions()
        wanted = frozenset(partition for partition in owned if self._is_held(partition))
        self._pause(wanted - self._paused)
        self._resume((self._paused - wanted) & owned)
        self._paused = wanted
        return len(wanted)

    def commit(self, positions: Mapping[TopicPartition, int], *, wait: bool) -> None:
        """Commit without a transaction (at-least-once). A failure is logged: the next one covers more."""
        if not positions:
            return
        offsets = [KafkaPartition(*p, offset) for p, offset in sorted(positions.items())]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets)
        except KafkaException as error:
            log.warning("consumer.commit_failed", reason=error.args[0].name())

    def unread(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Offsets between our position and the end, per owned partition; what a transaction holds back counts too.

        The end as the client heard or as in `ends`, whichever is more: of a paused partition it hears nothing.
        """
        return self._before(lambda partition, high: max(high, ends.get(partition, 0)))

    def lag(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Offsets between our position and the last stable one, per owned partition: that of `ends`, else the end."""
        return self._before(ends.get)

    def _before(self, end_of: Callable[[TopicPartition, int], int]) -> dict[TopicPartition, int]:
        left = {}
        for partition in self._assignment.partitions():
            # Under read_committed too it is the high watermark; what is not known is negative.
            low, high = self._consumer.get_watermark_offsets(KafkaPartition(*partition), cached=True)
            left[partition] = max(0, end_of(partition, high) - self._positions.get(partition, max(0, low)))
        for partition, count in self._waiting().items():
            left[partition] = left.get(partition, 0) + count
        return left

    def end_offsets(self, topics: Sequence[str], wait: Callable[[float], bool]) -> dict[TopicPartition, int]:
        """The end of every partition of `topics`, now. Blocks; `wait(seconds)` says whether to give up.

        Raises:
            RetryableError: the broker does not answer.
        """
        return self._starts.ends(topics, wait)

    def is_at(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether everything before `ends` was read by us or committed by others. Asks the broker now and then."""
        owned = self._assignment.partitions()
        if self._waiting() or not all(self._ends.get(p, -1) >= ends.get(p, 0) for p in owned):
            return False
        return self._others.has_passed({p: end for p, end in ends.items() if p not in owned})

    def awaits_schema(self, partition: TopicPartition) -> bool:
        """Whether records of `partition` are held back until the schema registry answers."""
        return self.sieve is not None and self.sieve.holds(partition)

    def close(self) -> None:
        """Leave the group. Blocks until the broker knows."""
        self._consumer.close()

    @property
    def _told(self) -> RebalanceListener:
        if self._listener is None:
            raise RuntimeError("This is a bug. Partitions came before `subscribe`.")
        return self._listener

    def _is_held(self, partition: TopicPartition) -> bool:
        return self._told.is_held(partition) or self.awaits_schema(partition)

    def _waiting(self) -> Mapping[TopicPartition, int]:
        return {} if self.sieve is None else self.sieve.waiting()

    def _complain(self, subject: str, reason: str | None) -> None:
        self._told.complained(subject, reason)

    def _record(self, message: Message) -> Record | None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if topic is None or number is None or offset is None:
            raise RuntimeError("This is a bug. A message without an error has no position.")
        partition = TopicPartition._make((topic, number))
        epoch = self._assignment.epoch(partition)
        if epoch is None:  # fetched before the partition was taken from us
            return None
        self._positions[partition] = offset + 1
        self._complaints.over(topic)
        return record_of(message, partition, offset, epoch)

    def _note_error(self, error: KafkaError, message: Message) -> None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and number is not None:
            partition = TopicPartition(topic, number)
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  librdkafka's own codes are named so
                self._ends[partition] = self._positions[partition] = offset or 0
                self._complaints.over(topic)
                return
            if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
                raise FatalError(self._out_of_range(partition))
        self._complaints.note(error, topic)

    def _start_over(self, reason: str) -> None:
        """A new client under the same name: the old one has given up for good, and with it what it was assigned."""
        self._guarded(self._on_lost, _kafka_partitions(self._assignment.partitions()))
        self._told.complained("membership", reason)
        self._consumer.close()
        self._failure = None  # such a client lets go of nothing without complaint
        with checked_settings():
            self._consumer = Consumer(self._settings)
        self._rejoin_at = self._clock.monotonic() + REJOIN_SECONDS

    def _out_of_range(self, partition: TopicPartition) -> str:
        position = self._positions.get(partition, -1)
        try:
            low, _ = watermarks(self._consumer, partition)
        except KafkaException as error:
            return f"the position of {partition.topic}/{partition.partition} is out of range ({error.args[0].name()})"
        gap = f"{low - position} records are gone" if 0 <= position < low else "records may be gone"
        return (
            f"the position of {partition.topic}/{partition.partition} is out of range: {gap}; the oldest offset is "
            f"{low}. To go on from there, set the group's offset with kafka-consumer-groups --reset-offsets"
        )

    def _guarded(self, callback: Callable[[frozenset[TopicPartition]], None], partitions: list[KafkaPartition]) -> None:
        """No exception may leave a callback: `consume` would throw away the records it has already gathered."""
        try:
            callback(frozenset(TopicPartition(p.topic, p.partition) for p in partitions))
        except Exception as error:  # noqa: BLE001  kept, and raised by `poll`
            self._failure = self._failure or error

    def _on_assign(self, new: frozenset[TopicPartition]) -> None:
        self._assignment.note_membership(self._consumer.consumer_group_metadata())
        starts = self._starts.of(new, self._told.waiting)
        self._assignment.assign(new)
        for partition, offset in starts.items():
            self._ends.pop(partition, None)
            self._positions.pop(partition, None)
            if offset >= 0:
                self._positions[partition] = offset
        self._consumer.incremental_assign([KafkaPartition(*p, offset) for p, offset in sorted(starts.items())])
        # A pause outlives revocation and reassignment, so both states are said explicitly.
        held = frozenset(partition for partition in new if self._is_held(partition))
        self._pause(held)
        self._resume(new - held)
        self._paused = (self._paused - new) | held
        self._told.assigned(new)
        self._membership.assigned()

    def _on_revoke(self, leaving: frozenset[TopicPartition]) -> None:
        # The member is in the new generation already; `leaving` get their next owner one generation later.
        self._assignment.note_membership(self._consumer.consumer_group_metadata())
        self._told.revoking(leaving)
        self._let_go(leaving)

    def _on_lost(self, lost: frozenset[TopicPartition]) -> None:
        self._assignment.note_membership(None)
        self._membership.lost(self._consumer.consumer_group_metadata())
        self._let_go(lost)

    def _let_go(self, leaving: frozenset[TopicPartition]) -> None:
        # Ownership ends before the broker is told: whatever is published from here on leaves these out.
        self._assignment.revoke(leaving)
        if self.sieve is not None:
            self.sieve.drop(leaving)
        self._told.gone(leaving)
        self._consumer.incremental_unassign(_kafka_partitions(leaving))

    def _pause(self, partitions: Iterable[TopicPartition]) -> None:
        if listed := _kafka_partitions(partitions):
            self._consumer.pause(listed)

    def _resume(self, partitions: Iterable[TopicPartition]) -> None:
        if listed := _kafka_partitions(partitions):
            self._consumer.resume(listed)


def _kafka_partitions(partitions: Iterable[TopicPartition]) -> list[KafkaPartition]:
    return [KafkaPartition(p.topic, p.partition) for p in sorted(partitions)]
