"""Step 12: which partitions are ours, since when, under which membership, and how far to commit.

The broker fences generations of a group, not ownership of a partition: it accepts an offset for a partition
that the member no longer owns, and does not check a commit without a member at all. So every assignment gets a
new epoch here, every record carries it, and what is published is judged by one snapshot of epochs and membership.
"""

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.types import Finished, TopicPartition

_MAGIC = b"CGMDv2:"
_GENERATION_BYTES = 4


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who we were at one moment: commits made with `membership` cover only partitions with these epochs."""

    epochs: Mapping[TopicPartition, int]
    membership: bytes | None
    """librdkafka's consumer group metadata; None while we are no member."""

    def owned(self, finished: Sequence[Finished]) -> list[Finished]:
        """Those of `finished` whose record came under the epoch of its partition."""
        # Plain tuples are equal to TopicPartitions, and made in a fraction of the time.
        epochs: Mapping[Any, int] = self.epochs
        return [f for f in finished if epochs.get(((r := f.record).topic, r.partition)) == r.epoch]


class Assignment:
    """The partitions this worker owns now. Thread-safe: the poll thread changes it, the delivery thread asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoch = 0
        self._epochs: dict[TopicPartition, int] = {}
        self._membership: bytes | None = None

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Own `partitions` from now on, each under a new epoch."""
        with self._lock:
            self._epoch += 1
            self._epochs.update(dict.fromkeys(partitions, self._epoch))

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Own `partitions` no longer."""
        with self._lock:
            for partition in partitions:
                self._epochs.pop(partition, None)

    def note_membership(self, membership: bytes | None) -> None:
        """Commit under `membership` from now on; nothing can be committed with None, or one that names no member."""
        with self._lock:
            self._membership = membership if membership is not None and names_member(membership) else None

    def snapshot(self) -> Ownership:
        """Epochs and membership of one moment."""
        with self._lock:
            return Ownership(dict(self._epochs), self._membership)

    def epoch(self, partition: TopicPartition) -> int | None:
        """The epoch of `partition`, None when it is not ours."""
        return self._epochs.get(partition)  # one look into a dictionary is whole without the lock

    def latest_epoch(self) -> int:
        """The epoch of the latest assignment; 0 before the first."""
        with self._lock:
            return self._epoch

    def partitions(self) -> frozenset[TopicPartition]:
        """All partitions owned now."""
        with self._lock:
            return frozenset(self._epochs)


class OfferedPositions:
    """Positions that delivery has earned and the poll thread is to commit, without transactions. Thread-safe.

    Each counts only as long as its partition is ours under the epoch in which it was earned: whoever has the partition
    then may be far beyond it.
    """

    def __init__(self, assignment: Assignment) -> None:
        """Who owns what is asked of `assignment`."""
        self._assignment = assignment
        self._lock = threading.Lock()
        self._earned: dict[TopicPartition, tuple[int, int]] = {}
        self._new: set[TopicPartition] = set()

    def offer(self, finished: Sequence[Finished]) -> None:
        """Have it committed that `finished`, in order per partition, are done."""
        positions = commit_positions(finished)
        epochs = {each.record.source: each.record.epoch for each in finished}
        with self._lock:
            self._earned.update({partition: (epochs[partition], offset) for partition, offset in positions.items()})
            self._new.update(positions)

    def take(self) -> dict[TopicPartition, int]:
        """What was offered since last time. For the poll thread: what is ours then stays so until it has committed."""
        with self._lock:
            new, self._new = self._new, set()
            return {partition: offset for partition, offset in self._held().items() if partition in new}

    def all(self) -> dict[TopicPartition, int]:
        """Everything that was offered since the partitions came; also what was taken before."""
        with self._lock:
            return self._held()

    def _held(self) -> dict[TopicPartition, int]:
        epochs = self._assignment.snapshot().epochs
        self._earned = {p: earned for p, earned in self._earned.items() if epochs.get(p) == earned[0]}
        return {partition: offset for partition, (_, offset) in self._earned.items()}


def names_member(membership: bytes) -> bool:
    """Whether librdkafka's consumer group metadata names a member of a generation.

    Metadata without one commits unchecked (seen on Kafka 4.3.1: it moved another member's offset backwards).
    Layout (librdkafka, rd_kafka_consumer_group_metadata_write): magic, int32 generation in the host's order, group id,
    member id and instance id, each ended by a zero byte.
    """
    parts = _body(membership)[_GENERATION_BYTES:].split(b"\0")
    return len(parts) > 1 and bool(parts[1])


def generation_of(membership: bytes) -> int:
    """The generation of the group, or under KIP-848 the member's epoch, that this metadata names; -1 or 0: none."""
    return int.from_bytes(_body(membership)[:_GENERATION_BYTES], sys.byteorder, signed=True)


def _body(membership: bytes) -> bytes:
    if not membership.startswith(_MAGIC):
        message = "This is a bug. librdkafka's consumer group metadata has a layout that is not known here."
        raise RuntimeError(message)
    return membership[len(_MAGIC) :]


def commit_positions(finished: Iterable[Finished]) -> dict[TopicPartition, int]:
    """The offset to commit per partition: one past the last record of `finished`, which is in order per partition.

    Records leave the assembly as a contiguous prefix of what was delivered; gaps in the offsets themselves (commit
    markers, compaction) are not gaps in the prefix.
    """
    positions: dict[tuple[str, int], int] = {}
    for each in finished:
        record = each.record
        source, offset = (record.topic, record.partition), record.offset
        expected = positions.get(source, 0)
        if offset < expected:
            message = f"This is a bug. Offset {offset} was released after {expected - 1}."
            raise RuntimeError(message)
        positions[source] = offset + 1
    return {TopicPartition(*source): position for source, position in positions.items()}
