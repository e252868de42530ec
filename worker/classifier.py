"""The path of a record without Kafka, in one thread: what `worker classify` runs, and what tests compare with."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from worker.engines.base import Engine
from worker.engines.load import EngineChoice, load_engine
from worker.errors import MessageError, SchemaError
from worker.flow import BatchScored
from worker.label_sets import pair_tokenizer
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.assembly import Assembly, Refused, Scored
from worker.pipeline.batching import Batcher
from worker.pipeline.decision import decide
from worker.pipeline.evidence import ModelView
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.stages import follow_up
from worker.pipeline.tokenization import PairTokenizer
from worker.scoring import score_or_isolate
from worker.settings import Limits
from worker.types import ModelStamp, Prediction, Record, Refusal, Request

CHUNK_RECORDS = 256
"""Records that share batches: as many as one poll of the running worker takes."""
CHUNK_PAIRS = 16_384
"""Pairs after which no more records join: at 512 tokens each they take 67 MB."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one record: a prediction under a schema, or a refusal."""

    record: Record
    request: Request | None
    schema: LabelSchema | None
    outcome: Prediction | Refusal


@dataclass(frozen=True, slots=True)
class ClassifierParts:
    """The steps that depend on configuration."""

    decode: Callable[[Record], Request]
    resolve: Callable[[Request], LabelSchema]
    tokenizer: PairTokenizer
    engine: Engine
    max_pairs: int


class Classifier:
    """Answers records in their order."""

    def __init__(self, parts: ClassifierParts) -> None:
        self._parts = parts
        info = parts.engine.info
        self._model = ModelView(info.head, info.stamp.digest)
        self._follow_up = follow_up(parts.tokenizer, self._model)

    def answers(self, records: Iterable[Record]) -> Iterator[Answer]:
        """One answer per record, in order; reads ahead by at most a chunk. Blocks on the engine.

        Raises:
            EngineError: the engine cannot score.
        """
        waiting = iter(records)
        while chunk := self._next_chunk(waiting):
            yield from self._chunk(chunk)

    def _next_chunk(self, waiting: Iterator[Record]) -> list[tuple[Record, PairPlan | Refusal]]:
        chunk: list[tuple[Record, PairPlan | Refusal]] = []
        pairs = 0
        while pairs < CHUNK_PAIRS and len(chunk) < CHUNK_RECORDS and (record := next(waiting, None)) is not None:
            plan = self._plan(record)
            pairs += plan.schema.tree.most_pairs if isinstance(plan, PairPlan) else 0
            chunk.append((record, plan))
        return chunk

    def _chunk(self, chunk: list[tuple[Record, PairPlan | Refusal]]) -> Iterator[Answer]:
        assembly = Assembly(self._model.head.classes, self._follow_up)
        batcher = Batcher(self._parts.engine.info.token_budget)
        plans = [plan for _, plan in chunk]
        tokenized = iter(self._parts.tokenizer.tokenize([plan for plan in plans if isinstance(plan, PairPlan)]))
        for number, (record, plan) in enumerate(chunk):
            pairs = next(tokenized) if isinstance(plan, PairPlan) else None
            if isinstance(plan, Refusal):
                assembly.refuse(number, record, plan)
            elif isinstance(pairs, MessageError):
                assembly.refuse(number, record, Refusal.of(pairs))
            elif pairs is not None:
                assembly.admit(number, record, plan, pairs)
                batcher.add(number, pairs)
        while (batch := batcher.pop()) is not None:
            for event in score_or_isolate(self._parts.engine, batch):
                if isinstance(event, BatchScored):
                    for number, pairs in assembly.gather(event.batch, event.scores):
                        batcher.add(number, pairs)
                else:
                    assembly.fail(event.batch, event.refusal)
        for outcome in assembly.release():
            yield self._answer(outcome)

    def _plan(self, record: Record) -> PairPlan | Refusal:
        try:
            request = self._parts.decode(record)
            return plan_pairs(request, self._parts.resolve(request), self._parts.max_pairs)
        except MessageError as error:
            return Refusal.of(error)

    def _answer(self, outcome: Scored | Refused) -> Answer:
        if isinstance(outcome, Refused):
            return Answer(outcome.record, None, None, outcome.refusal)
        prediction = decide(outcome.stages, outcome.text, self._model)
        return Answer(outcome.record, outcome.plan.request, outcome.plan.schema, prediction)


@contextmanager
def open_classifier(
    choice: EngineChoice, schema: LabelSchema, limits: Limits
) -> Iterator[tuple[Classifier, ModelStamp]]:
    """A classifier with its model loaded and warm, and who it is; `schema` holds for records that bring no labels.

    Raises:
        WorkerError: the model cannot be used; the message says why.
    """
    model = load_engine(choice)
    try:
        stamp = model.engine.info.stamp
        tokenizer = pair_tokenizer(model)
        if schema.shortlist is not None:
            tokenizer.prepare(schema)
        labels = LabelRegistry(limits, stamp.digest)
        for refusal in labels.offer(schema, "the label schema").refused:
            raise SchemaError(str(refusal))
        model.engine.warm_up()
        parts = ClassifierParts(
            decode=lambda record: decode(record, InputFields(), limits),
            resolve=lambda request: labels.resolve(request, schema.reference, limits),
            tokenizer=tokenizer,
            engine=model.engine,
            max_pairs=limits.pairs,
        )
        yield Classifier(parts), stamp
    finally:
        model.engine.close()
