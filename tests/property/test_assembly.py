"""Assembly as a state machine: any interleaving of its steps keeps order and count, and what is complete comes out."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.strategies import pairs_of
from tests.support.strategies import record as record_at
from worker.errors import ErrorCode, Stage
from worker.labels.schema import parse_schema
from worker.pipeline.assembly import Assembly, Refused, Scored
from worker.pipeline.planning import plan_pairs
from worker.types import Batch, PairRef, PairScores, Record, Refusal, Request, TopicPartition

NOT_DECODED = Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "text: empty")
NOT_SCORED = Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, "the engine fails")
LABELS = parse_schema({"name": "a", "version": 1, "labels": [{"name": n} for n in "abc"]}, "test")
PAIRS = 3


@dataclass(eq=False, slots=True)
class Message:
    """What is known of one message without asking the assembly."""

    number: int
    record: Record
    missing: int = PAIRS
    refusal: Refusal | None = None

    @property
    def is_complete(self) -> bool:
        return self.refusal is not None or self.missing == 0


class AssemblyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.assembly = Assembly(classes=2)
        self.next_offset: dict[int, int] = {}
        self.open_pairs: list[PairRef] = []
        self.messages: list[Message] = []
        self.lanes: dict[int, list[Message]] = {}

    def _next(self, partition: int) -> Message:
        offset = self.next_offset.get(partition, 0)
        self.next_offset[partition] = offset + 1
        message = Message(len(self.messages), record_at(partition=partition, offset=offset))
        self.messages.append(message)
        self.lanes.setdefault(partition, []).append(message)
        return message

    @rule(partition=st.integers(0, 2))
    def admit(self, partition: int) -> None:
        message = self._next(partition)
        plan = plan_pairs(Request("id", "text"), LABELS, 10)
        self.assembly.admit(message.number, message.record, plan, pairs_of([4] * PAIRS))
        self.open_pairs += [PairRef(message.number, pair) for pair in range(PAIRS)]

    @rule(partition=st.integers(0, 2))
    def refuse(self, partition: int) -> None:
        message = self._next(partition)
        message.refusal = NOT_DECODED
        self.assembly.refuse(message.number, message.record, NOT_DECODED)

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def score(self, data: st.DataObject) -> None:
        self._score(data.draw(st.lists(st.sampled_from(self.open_pairs), min_size=1, unique=True)))

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        refs = data.draw(st.lists(st.sampled_from(self.open_pairs), min_size=1, max_size=2, unique=True))
        self._close(refs)
        for ref in refs:
            self.messages[ref.message].refusal = NOT_SCORED
        self.assembly.fail(_batch(refs), NOT_SCORED)

    @rule(partition=st.integers(0, 2))
    def drop(self, partition: int) -> None:
        dropped = self.assembly.drop({TopicPartition("in", partition)})
        assert {each.number: each.record for each in self.lanes.pop(partition, [])} == dropped
        # Batches of dropped messages may still come back from the engine: their pairs stay open.

    @rule()
    def release(self) -> None:
        expected = {partition: _complete(lane) for partition, lane in self.lanes.items()}
        self.lanes = {partition: lane[len(expected[partition]) :] for partition, lane in self.lanes.items()}
        released: dict[int, list[Record]] = {}
        by_record = {each.record: each for lane in expected.values() for each in lane}
        for outcome in self.assembly.release():
            released.setdefault(outcome.record.partition, []).append(outcome.record)
            _assert_is(outcome, by_record[outcome.record])
        assert {partition: [each.record for each in lane] for partition, lane in expected.items() if lane} == released

    @invariant()
    def counts_what_is_in_flight(self) -> None:
        assert sum(len(lane) for lane in self.lanes.values()) == len(self.assembly)

    def teardown(self) -> None:
        if self.open_pairs:
            self._score(list(self.open_pairs))
        self.release()
        assert [] == [each for lane in self.lanes.values() for each in lane]
        assert 0 == len(self.assembly)

    def _score(self, refs: list[PairRef]) -> None:
        self._close(refs)
        for ref in refs:
            self.messages[ref.message].missing -= 1
        logits = np.array([[ref.message, ref.pair] for ref in refs], np.float32)
        self.assembly.gather(_batch(refs), PairScores(logits))

    def _close(self, refs: Iterable[PairRef]) -> None:
        gone = set(refs)
        self.open_pairs = [ref for ref in self.open_pairs if ref not in gone]


def _complete(lane: list[Message]) -> list[Message]:
    """The messages at the head of `lane` that wait for nothing."""
    waiting = (place for place, each in enumerate(lane) if not each.is_complete)
    return lane[: next(waiting, len(lane))]


def _assert_is(outcome: Scored | Refused, message: Message) -> None:
    if message.refusal is not None:
        assert Refused(message.record, message.refusal) == outcome
        return
    assert isinstance(outcome, Scored)
    [stage] = outcome.stages
    assert [[float(message.number), float(pair)] for pair in range(PAIRS)] == stage.logits[0].tolist()


def _batch(refs: list[PairRef]) -> Batch:
    empty = np.zeros(len(refs), np.int32)
    return Batch(tuple(refs), empty, empty, np.ones(len(refs), np.int32))


TestAssembly = AssemblyMachine.TestCase
