"""Positions without transactions: whatever comes and goes, none is committed that is not earned and ours."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.support.scripted_kafka import MEMBERSHIP, finished_lane
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.types import TopicPartition

PARTITIONS = tuple(TopicPartition("in", number) for number in range(3))

anywhere = st.sampled_from(PARTITIONS)


class OfferedPositionsMachine(RuleBasedStateMachine):
    """Delivery offers late, as it may: of a partition that went, or that went and came back, meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.assignment = Assignment()
        self.assignment.note_membership(MEMBERSHIP)
        self.offered = OfferedPositions(self.assignment)
        self.committed = dict.fromkeys(PARTITIONS, 0)
        self.done = dict.fromkeys(PARTITIONS, 0)
        """How far delivery has come, under the epoch beside it."""
        self.under: dict[TopicPartition, int] = {}
        self.earned: dict[TopicPartition, int] = {}
        """What is to be committed: offered under the epoch that holds."""
        self.taken: dict[TopicPartition, int] = {}

    @rule(partition=anywhere)
    def assign(self, partition: TopicPartition) -> None:
        if self.assignment.epoch(partition) is None:
            self.assignment.assign([partition])

    @rule(partition=anywhere, others=st.integers(0, 3), is_back=st.booleans())
    def revoke(self, partition: TopicPartition, others: int, is_back: bool) -> None:
        """It goes, and somebody else commits beyond where we were."""
        if self.assignment.epoch(partition) is not None:
            self.assignment.revoke([partition])
        self.earned.pop(partition, None)
        self.taken.pop(partition, None)
        self.committed[partition] += others
        if is_back:
            self.assign(partition)

    @rule(partition=anywhere)
    def read(self, partition: TopicPartition) -> None:
        """Delivery hears of the assignment that holds now, and begins where the group is."""
        epoch = self.assignment.epoch(partition)
        if epoch is not None and self.under.get(partition) != epoch:
            self.under[partition], self.done[partition] = epoch, self.committed[partition]

    @rule(partition=anywhere, count=st.integers(1, 3))
    def offer(self, partition: TopicPartition, count: int) -> None:
        if partition not in self.under:
            return
        first, epoch = self.done[partition], self.under[partition]
        self.done[partition] = first + count
        self.offered.offer(finished_lane(partition.partition, range(first, first + count), epoch))
        if epoch == self.assignment.epoch(partition):
            self.earned[partition] = first + count

    @rule()
    def take(self) -> None:
        """What the poll thread commits at every turn: all that is new, and nothing else."""
        expected = {p: offset for p, offset in self.earned.items() if self.taken.get(p) != offset}
        assert expected == self._commit(self.offered.take())
        self.taken |= expected

    @rule()
    def take_all(self) -> None:
        """What it commits before partitions go, and at the end."""
        assert self.earned == self._commit(self.offered.all())

    def teardown(self) -> None:
        """A worker that ends commits all that is earned."""
        self.take_all()

    def _commit(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        for partition, offset in positions.items():
            assert self.assignment.epoch(partition) is not None
            assert offset >= self.committed[partition], "the group's position would go back"
            self.committed[partition] = offset
        return positions


TestOfferedPositions = OfferedPositionsMachine.TestCase
