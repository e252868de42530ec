"""Step 12: which partitions are ours, since when, and how far each has been committed.

The broker fences generations of a group, not ownership of a partition: it accepts an offset for a partition
that the member no longer owns. So every assignment gets a new epoch here, every record carries it, and nothing
of an older epoch is published or committed.
"""

import threading
from collections.abc import Iterable, Sequence

from worker.types import Finished, TopicPartition


class Assignment:
    """The partitions this worker owns now. Thread-safe: the poll thread changes it, the delivery thread asks."""

    def __init__(self) -> None:
        """Own nothing."""
        self._lock = threading.Lock()
        self._epoch = 0
        self._epochs: dict[TopicPartition, int] = {}

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Own `partitions` from now on, each under a new epoch."""
        with self._lock:
            self._epoch += 1
            for partition in partitions:
                self._epochs[partition] = self._epoch

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        """Own `partitions` no longer."""
        with self._lock:
            for partition in partitions:
                self._epochs.pop(partition, None)

    def epoch(self, partition: TopicPartition) -> int | None:
        """The epoch of `partition`, None when it is not ours."""
        with self._lock:
            return self._epochs.get(partition)

    def partitions(self) -> frozenset[TopicPartition]:
        """All partitions owned now."""
        with self._lock:
            return frozenset(self._epochs)

    def owned(self, finished: Sequence[Finished]) -> list[Finished]:
        """Those of `finished` whose record came under the current epoch of its partition."""
        with self._lock:
            return [f for f in finished if self._epochs.get(f.record.source) == f.record.epoch]


def commit_positions(finished: Iterable[Finished]) -> dict[TopicPartition, int]:
    """The offset to commit per partition: one past the last record of `finished`, which is in order per partition.

    Records leave the assembly as a contiguous prefix of what was delivered; gaps in the offsets themselves (commit markers, compaction)
    are not gaps in the prefix.
    """
    positions: dict[TopicPartition, int] = {}
    for each in finished:
        record = each.record
        expected = positions.get(record.source, 0)
        if record.offset < expected:
            message = f"This is a bug. Offset {record.offset} was released after {expected - 1}."
            raise RuntimeError(message)
        positions[record.source] = record.offset + 1
    return positions
