"""What the consumer asks and tells when partitions come and go."""

from typing import Protocol

from worker.types import TopicPartition


class RebalanceListener(Protocol):
    """Who decides what is held, and is told when partitions come and go. Called on the poll thread."""

    def is_held(self, partition: TopicPartition) -> bool:
        """Whether `partition` is to stay paused for now."""
        ...

    def waiting(self, attempt: int) -> None:
        """A rebalance waits for the broker; called before every attempt but the first. Blocks a little.

        Raises:
            FatalError: there is no more time to wait.
        """
        ...

    def complained(self, subject: str, reason: str | None) -> None:
        """What keeps records from coming, under the name of what is at fault; None once it no longer does."""
        ...

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are ours now."""
        ...

    def joined(self) -> None:
        """The group has taken us in, with or without partitions."""
        ...

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are about to go: the last moment to commit what is finished. May block, within a budget."""
        ...

    def gone(self, partitions: frozenset[TopicPartition]) -> None:
        """`partitions` are no longer ours: forget what is in flight."""
        ...
