"""What is in flight is bounded, and comes back to nothing."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.strategies import record as record_at
from worker.in_flight import Bounds, InFlight
from worker.types import Record, TopicPartition

BOUNDS = Bounds(records=8, value_bytes=40, queued_tokens=100)


class InFlightMachine(RuleBasedStateMachine):
    """Admit where there is room, settle and drop in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.in_flight = InFlight(BOUNDS)
        self.held: list[Record] = []
        self.admitted = 0
        self.tokens = 0

    @precondition(lambda self: self.in_flight.room() > 0)
    @rule(partition=st.integers(0, 2), data=st.data())
    def admit(self, partition: int, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, self.in_flight.room()))):
            record = record_at(partition=partition, offset=self.admitted)
            self.in_flight.admit(record)
            self.held.append(record)
            self.admitted += 1

    @rule(tokens=st.integers(0, 150))
    def queue(self, tokens: int) -> None:
        self.in_flight.note_queued_tokens(tokens)
        self.tokens = tokens

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        some = data.draw(st.lists(st.sampled_from(self.held), unique_by=lambda record: record.offset))
        self.in_flight.settle(some)
        self.held = [record for record in self.held if record not in some]

    @rule(partition=st.integers(0, 2))
    def drop(self, partition: int) -> None:
        gone = [record for record in self.held if record.partition == partition]
        self.in_flight.settle(gone)
        self.held = [record for record in self.held if record.partition != partition]

    @invariant()
    def counts_what_is_held(self) -> None:
        assert len(self.held) == self.in_flight.records
        assert self.admitted - len(self.held) == self.in_flight.settled
        for partition in range(3):
            held = sum(record.partition == partition for record in self.held)
            assert held == self.in_flight.of(TopicPartition("in", partition))

    @invariant()
    def never_holds_more_than_its_bound(self) -> None:
        assert self.in_flight.records <= BOUNDS.records

    @invariant()
    def low_means_that_there_is_room(self) -> None:
        assert self.in_flight.room() > 0 or not self.in_flight.is_low()

    @invariant()
    def who_does_not_wait_is_told_of_any_room(self) -> None:
        assert self.in_flight.wait_for_room(0) == (self.in_flight.room() > 0)

    def teardown(self) -> None:
        self.in_flight.settle(self.held)
        self.in_flight.note_queued_tokens(0)
        assert 0 == self.in_flight.records
        assert BOUNDS.records == self.in_flight.room()
        assert self.in_flight.is_low()
        assert self.in_flight.wait_for_room(0)


TestInFlight = InFlightMachine.TestCase
