"""Assembly as a state machine: any interleaving of its steps keeps order and count."""

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

REFUSAL = Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "text: empty")
LABELS = parse_schema({"name": "a", "version": 1, "labels": [{"name": n} for n in "abc"]}, "test")


class AssemblyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.assembly = Assembly(classes=2)
        self.next_number = 0
        self.next_offset: dict[int, int] = {}
        self.open_pairs: list[PairRef] = []
        self.in_flight: dict[int, list[Record]] = {}
        self.refused: set[Record] = set()

    def _next_record(self, partition: int) -> tuple[int, Record]:
        offset = self.next_offset.get(partition, 0)
        self.next_offset[partition] = offset + 1
        self.next_number += 1
        record = record_at(partition=partition, offset=offset)
        self.in_flight.setdefault(partition, []).append(record)
        return self.next_number, record

    @rule(partition=st.integers(0, 2))
    def admit(self, partition: int) -> None:
        number, record = self._next_record(partition)
        plan = plan_pairs(Request("id", "text"), LABELS, 10)
        self.assembly.admit(number, record, plan, pairs_of([4, 4, 4]))
        self.open_pairs += [PairRef(number, pair) for pair in range(3)]

    @rule(partition=st.integers(0, 2))
    def refuse(self, partition: int) -> None:
        number, record = self._next_record(partition)
        self.refused.add(record)
        self.assembly.refuse(number, record, REFUSAL)

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def score(self, data: st.DataObject) -> None:
        refs = data.draw(st.lists(st.sampled_from(self.open_pairs), min_size=1, unique=True))
        self.open_pairs = [ref for ref in self.open_pairs if ref not in refs]
        logits = np.array([[ref.message, ref.pair] for ref in refs], np.float32)
        self.assembly.gather(self._batch(refs), PairScores(logits))

    @precondition(lambda self: self.open_pairs)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(self.open_pairs))
        self.assembly.fail(self._batch([ref]), REFUSAL)

    @rule(partition=st.integers(0, 2))
    def drop(self, partition: int) -> None:
        dropped = self.assembly.drop({TopicPartition("in", partition)})
        assert self.in_flight.pop(partition, []) == list(dropped.values())
        # Batches of dropped messages may still come back from the engine: their pairs stay open.

    @rule()
    def release(self) -> None:
        for outcome in self.assembly.release():
            record = outcome.record
            assert self.in_flight[record.partition].pop(0) == record
            if isinstance(outcome, Scored):
                assert record not in self.refused
                [stage] = outcome.stages
                assert [0.0, 1.0, 2.0] == stage.logits[0, :, 1].tolist()
                assert 1 == len(set(stage.logits[0, :, 0].tolist()))
            else:
                assert isinstance(outcome, Refused)

    @invariant()
    def counts_what_is_in_flight(self) -> None:
        assert sum(len(lane) for lane in self.in_flight.values()) == len(self.assembly)

    @staticmethod
    def _batch(refs: list[PairRef]) -> Batch:
        empty = np.zeros(len(refs), np.int32)
        return Batch(tuple(refs), empty, empty, np.ones(len(refs), np.int32))


TestAssembly = AssemblyMachine.TestCase
