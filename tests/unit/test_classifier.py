"""The path of a record without Kafka: one answer per record, in order, and one bad record hurts only itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_tokenizers
from worker.classifier import CHUNK_RECORDS, Classifier, ClassifierParts
from worker.engines.base import Engine
from worker.engines.fake import FakeEngine
from worker.errors import EngineError, ErrorCode
from worker.labels.registry import LabelRegistry
from worker.labels.schema import parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import Batch, EngineInfo, JsonValue, PairScores, Prediction, Record, Refusal

SCHEMA = parse_schema({"name": "a", "version": 1, "labels": [{"name": "bill"}, {"name": "app"}]}, "test")
LONG_PAIR_TOKENS = 40


class BreaksOnLongPairs:
    """Fails for every batch in which a pair is long, as an engine short of memory would."""

    def __init__(self, breaks_with: Exception) -> None:
        self._fake = FakeEngine(token_budget=4096)
        self._breaks_with = breaks_with

    @property
    def info(self) -> EngineInfo:
        """As the fake engine's."""
        return self._fake.info

    def warm_up(self) -> None:
        """Nothing to warm."""

    def score(self, batch: Batch) -> PairScores:
        """The fake engine's scores, unless a pair is long."""
        if int(np.max(batch.lengths)) > LONG_PAIR_TOKENS:
            raise self._breaks_with
        return self._fake.score(batch)

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def tokenizer(tmp_path: Path) -> PairTokenizer:
    return PairTokenizer(small_tokenizers.save(small_tokenizers.bert_style(), tmp_path), 512)


def classifier(tokenizer: PairTokenizer, engine: Engine, max_pairs: int = 100) -> Classifier:
    limits = Limits()
    return Classifier(
        ClassifierParts(
            decode=lambda record: decode(record, InputFields(), limits),
            resolve=lambda request: SCHEMA,
            tokenizer=tokenizer,
            engine=engine,
            max_pairs=max_pairs,
        )
    )


def records(*values: bytes | None) -> list[Record]:
    return [
        Record(topic="in", partition=0, offset=offset, epoch=1, key=None, value=value)
        for offset, value in enumerate(values)
    ]


class CountsRows:
    """The fake engine, and how many pairs each batch had."""

    def __init__(self) -> None:
        self._fake = FakeEngine(token_budget=4096)
        self.rows: list[int] = []

    @property
    def info(self) -> EngineInfo:
        """As the fake engine's."""
        return self._fake.info

    def warm_up(self) -> None:
        """Nothing to warm."""

    def score(self, batch: Batch) -> PairScores:
        """The fake engine's scores."""
        self.rows.append(len(batch.lengths))
        return self._fake.score(batch)

    def close(self) -> None:
        """Nothing to give back."""


def codes(outcomes: list[Prediction | Refusal]) -> list[ErrorCode | None]:
    return [outcome.code if isinstance(outcome, Refusal) else None for outcome in outcomes]


def test_label_sets_that_messages_carry_share_one_batch_with_each_other_and_with_the_topic_s(
    tokenizer: PairTokenizer,
) -> None:
    engine, labels, limits = CountsRows(), LabelRegistry(), Limits()
    labels.offer(SCHEMA)
    sets: list[JsonValue] = [["the"], ["bill", "app"], [{"name": "own", "description": "the"}, "bill", "app"]]
    values = [json.dumps({"text": "the app", **({"labels": each} if each else {})}).encode() for each in (*sets, None)]
    parts = ClassifierParts(
        decode=lambda record: decode(record, InputFields(), limits),
        resolve=lambda request: labels.resolve(request, "a", limits),
        tokenizer=tokenizer,
        engine=engine,
        max_pairs=100,
    )
    answers = list(Classifier(parts).answers(records(*values)))
    assert [1 + 2 + 3 + 2] == engine.rows
    found = [answer.outcome for answer in answers]
    assert [{"the"}, {"bill", "app"}, {"own", "bill", "app"}, {"bill", "app"}] == [
        {score.label for score in each.scores} for each in found if isinstance(each, Prediction)
    ]


def test_every_record_is_answered_once_and_in_order_also_beyond_one_chunk(tokenizer: PairTokenizer) -> None:
    given = records(*(b'{"text": "the app %d"}' % number for number in range(CHUNK_RECORDS + 3)))
    answers = list(classifier(tokenizer, FakeEngine()).answers(given))
    assert given == [answer.record for answer in answers]
    assert all(isinstance(answer.outcome, Prediction) for answer in answers)


def test_a_record_is_answered_alike_alone_and_among_others(tokenizer: PairTokenizer) -> None:
    given = records(b'{"text": "the app"}', b'{"text": "a bill that is late"}', b'{"text": "not good"}')
    path = classifier(tokenizer, FakeEngine())
    alone = [answer.outcome for record in given for answer in path.answers([record])]
    assert alone == [answer.outcome for answer in path.answers(given)]


def test_broken_records_are_refused_and_their_neighbours_are_predicted(tokenizer: PairTokenizer) -> None:
    given = records(b'{"text": "the app"}', None, b"{", b'{"text": " "}', b'{"text": "a bill"}')
    answers = classifier(tokenizer, FakeEngine()).answers(given)
    expected = [None, ErrorCode.VALUE_NULL, ErrorCode.JSON_INVALID, ErrorCode.TEXT_EMPTY, None]
    assert expected == codes([answer.outcome for answer in answers])


def test_a_schema_with_too_many_pairs_is_refused(tokenizer: PairTokenizer) -> None:
    [answer] = classifier(tokenizer, FakeEngine(), max_pairs=1).answers(records(b'{"text": "the app"}'))
    assert [ErrorCode.TOO_MANY_PAIRS] == codes([answer.outcome])


def test_a_record_that_breaks_the_engine_is_refused_and_its_neighbours_are_predicted(tokenizer: PairTokenizer) -> None:
    breaking = b'{"text": "' + b"app " * 30 + b'"}'
    given = records(b'{"text": "' + b"app " * 23 + b'"}', breaking, b'{"text": "the app"}')
    path = classifier(tokenizer, BreaksOnLongPairs(MemoryError()))
    assert [None, ErrorCode.ENGINE_FAILED, None] == codes([answer.outcome for answer in path.answers(given)])


def test_an_engine_that_cannot_score_at_all_ends_the_run(tokenizer: PairTokenizer) -> None:
    path = classifier(tokenizer, BreaksOnLongPairs(EngineError("gone")))
    with pytest.raises(EngineError, match="gone"):
        list(path.answers(records(b'{"text": "' + b"app " * 50 + b'"}')))
