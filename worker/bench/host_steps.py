"""What each of the twelve steps costs per message: replayed in bulk, one step after the other, in one thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from worker.app import TRANSACTION_RECORDS
from worker.assembler import Assembler
from worker.clock import SystemClock
from worker.config import Config
from worker.delivery import Encoder
from worker.engines.load import load_engine
from worker.kafka.clients import consumer_settings
from worker.kafka.consumer import RecordConsumer
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import OfferedPositions, commit_positions
from worker.kafka.publishing import Publisher
from worker.label_sets import directory_source
from worker.lifecycle import spare_the_collector
from worker.pipeline.assembly import Assembly, Scored
from worker.pipeline.batching import Batcher
from worker.pipeline.decisions import decide_all
from worker.pipeline.evidence import ModelView
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.processor import ADMIT_RECORDS, POLL_RECORDS, POLL_SECONDS
from worker.types import Batch, Finished, PairScores, Prediction, Record, TokenizedPairs, TopicPartition


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step of the path."""

    step: str
    microseconds: float
    """Of processor time per message, of all threads that work for the step; waiting is not in it."""


@dataclass(slots=True)
class _Timer:
    records: int
    costs: list[StepCost] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.costs.append(StepCost(name, (time.process_time() - started) / self.records * 1e6))


class _Open:
    """Who asks for nothing to be held and has nothing to give up."""

    def is_held(self, _partition: TopicPartition) -> bool:
        return False

    def waiting(self, _attempt: int) -> None: ...

    def assigned(self, _partitions: frozenset[TopicPartition]) -> None: ...

    def joined(self) -> None: ...

    def revoking(self, _partitions: frozenset[TopicPartition]) -> None: ...

    def gone(self, _partitions: frozenset[TopicPartition]) -> None: ...

    def complained(self, _subject: str, _reason: str | None) -> None: ...


def step_costs(config: Config, topic: str, records: int) -> list[StepCost]:
    """The cost of each step for `records` records of `topic`, which are all good. Blocks.

    Raises:
        WorkerError: the broker, the labels or the model cannot be used.
    """
    make, timer = Assembler(config, SystemClock()), _Timer(records)
    model = load_engine(make.engine_choice())
    tokenizer = make.use_model(model)
    source = directory_source(config)
    if source is not None:
        source.load_or_raise(make.labels.registry)
    make.watch().look()
    group = GroupOffsets(make.client, config.kafka.group_id)
    consumer = RecordConsumer(consumer_settings(config.kafka, make.instance), group, "earliest", make.assignment)
    encoder = make.encoder(model)
    publisher = make.publisher(group, OfferedPositions(make.assignment), encoder)
    spare_the_collector()
    try:
        polled = _poll(timer, consumer, topic)
        scored = _score(timer, make, polled, (tokenizer, model.engine.score))
        view = ModelView(model.engine.info.head, model.engine.info.stamp.digest)
        finished = _finish(timer, encoder, scored, view)
        _publish(timer, make, publisher, finished)
    finally:
        publisher.close()
        consumer.close()
        model.engine.close()
    return timer.costs


def _poll(timer: _Timer, consumer: RecordConsumer, topic: str) -> list[Record]:
    consumer.subscribe([topic], _Open())
    polled: list[Record] = []
    while not polled:
        polled = consumer.poll(POLL_RECORDS, POLL_SECONDS)
    with timer.step("1 poll"):
        while len(polled) < timer.records:
            polled += consumer.poll(POLL_RECORDS, POLL_SECONDS)
    return polled


def _score(
    timer: _Timer,
    make: Assembler,
    records: Sequence[Record],
    model: tuple[PairTokenizer, Callable[[Batch], PairScores]],
) -> list[list[Scored]]:
    """Steps 2 to 8; what each batch completed."""
    tokenizer, score = model
    with timer.step("2 decode"):
        requests = [make.decode(record) for record in records]
    with timer.step("3 resolve"):
        schemas = [make.resolve(request, record.topic) for request, record in zip(requests, records, strict=True)]
    with timer.step("4 plan"):
        most = make.config.limits.pairs
        plans = [plan_pairs(request, schema, most) for request, schema in zip(requests, schemas, strict=True)]
    with timer.step("5 tokenize"):
        chunks = [tokenizer.tokenize(plans[at : at + ADMIT_RECORDS]) for at in range(0, len(plans), ADMIT_RECORDS)]
    pairs = [each for chunk in chunks for each in chunk if isinstance(each, TokenizedPairs)]
    with timer.step("6 batch"):
        batcher, batches = Batcher(8192), []
        for at in range(0, len(pairs), ADMIT_RECORDS):
            for number, each in enumerate(pairs[at : at + ADMIT_RECORDS], at):
                batcher.add(number, each)
            while (batch := batcher.pop()) is not None:
                batches.append(batch)
    with timer.step("7 score (fake)"):
        answers = [score(batch) for batch in batches]
    with timer.step("8 assemble"):
        assembly = Assembly(2)
        for number, (record, plan, each) in enumerate(zip(records, plans, pairs, strict=True)):
            assembly.admit(number, record, plan, each)
        released = []
        for batch, answer in zip(batches, answers, strict=True):
            assembly.gather(batch, answer)
            released.append([each for each in assembly.release() if isinstance(each, Scored)])
    return released


def _finish(timer: _Timer, encoder: Encoder, released: Sequence[Sequence[Scored]], view: ModelView) -> list[Finished]:
    with timer.step("9 decide"):
        decided = [decide_all(each, view) for each in released]
    with timer.step("10 encode"):
        return [
            Finished(message.record, encoder.prediction(prediction, message))
            for messages, predictions in zip(released, decided, strict=True)
            for message, prediction in zip(messages, predictions, strict=True)
            if isinstance(prediction, Prediction)
        ]


def _publish(timer: _Timer, make: Assembler, publisher: Publisher, finished: Sequence[Finished]) -> None:
    publisher.start()
    with timer.step("12 offsets"):
        for at in range(0, len(finished), TRANSACTION_RECORDS):
            part = finished[at : at + TRANSACTION_RECORDS]
            commit_positions(make.assignment.snapshot().owned(part))
    with timer.step("11 publish, 12 included"):
        for at in range(0, len(finished), TRANSACTION_RECORDS):
            publisher.publish(finished[at : at + TRANSACTION_RECORDS])
