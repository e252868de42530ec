"""How far the rest of the group has come: what `--until-end` waits for where partitions are not ours."""

import contextlib
from collections.abc import Mapping

from confluent_kafka import KafkaException

from worker.clock import Clock
from worker.errors import WorkerError
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.letters import LetterReader
from worker.types import TopicPartition

LOOK_SECONDS = 1.0
"""How often the group's offsets are asked for."""


class OthersProgress:
    """Whether the group has committed everything up to given ends. Used by one thread."""

    def __init__(self, group: GroupOffsets, clock: Clock) -> None:
        self._group = group
        self._clock = clock
        self._asked_at: float | None = None
        self._passed: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, int] = {}

    def has_passed(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether nothing is left before `ends`. Asks the broker now and then, and blocks while it does."""
        missing = {p: end for p, end in ends.items() if self._passed.get(p, -1) < end}
        if not missing:
            return True
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < LOOK_SECONDS:
            return False
        with contextlib.suppress(KafkaException, WorkerError):  # no answer, or a transaction is open: not known yet
            self._look(missing)
        self._asked_at = self._clock.monotonic()
        return all(self._passed.get(p, -1) >= end for p, end in missing.items())

    def _look(self, missing: Mapping[TopicPartition, int]) -> None:
        committed = self._group.committed(missing)
        at = {partition: committed.get(partition, 0) for partition in missing}
        for partition, end in missing.items():
            # Where it stands still before the end there may be nothing left but commit markers.
            stands_still = self._seen.get(partition) == at[partition]
            if at[partition] >= end or (stands_still and self._is_bare(partition, at[partition], end)):
                self._passed[partition] = end
        self._seen.update(at)

    def _is_bare(self, partition: TopicPartition, start: int, end: int) -> bool:
        with LetterReader(self._group.client, self._clock) as reader:
            return next(iter(reader.read({partition: (start, end)})), None) is None
