"""A thousand labels: as many pairs as records ask for are never in memory at once."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_tokenizers
from worker.classifier import CHUNK_PAIRS, Classifier, ClassifierParts
from worker.engines.fake import FakeEngine
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import JsonValue, Prediction, Record, TokenVectors

LABELS = 1000
MOST_TOKENS = 128
LIMITS = Limits()


@pytest.fixture
def tokenizer(tmp_path: Path) -> PairTokenizer:
    own = small_tokenizers.bert_style()
    draw = np.random.default_rng(0)
    tokens = own.get_vocab_size()
    vectors = TokenVectors(draw.integers(-7, 8, (tokens, 16), np.int8), np.ones(tokens, np.float32))
    return PairTokenizer(small_tokenizers.save(own, tmp_path), MOST_TOKENS, vectors)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def schema(**document: JsonValue) -> LabelSchema:
    labels: list[JsonValue] = [{"name": f"the {number}"} for number in range(LABELS)]
    return parse_schema({"name": "large", "version": 1, "labels": labels, **document}, "test")


def answered(tokenizer: PairTokenizer, labels: LabelSchema, texts: int) -> list[Prediction]:
    parts = ClassifierParts(
        decode=lambda record: decode(record, InputFields(), LIMITS),
        resolve=lambda _: labels,
        tokenizer=tokenizer,
        engine=FakeEngine(max_pair_tokens=MOST_TOKENS),
        max_pairs=LIMITS.pairs,
    )
    records = (Record("t", 0, n, 1, None, json.dumps({"text": f"{'the app ' * 60}{n}"}).encode()) for n in range(texts))
    answers = Classifier(parts).answers(records)
    return [answer.outcome for answer in answers if isinstance(answer.outcome, Prediction)]


@pytest.mark.usefixtures("traced")
def test_a_thousand_labels_take_no_more_memory_for_many_texts_than_for_a_chunk(tokenizer: PairTokenizer) -> None:
    """The token ids alone of all these pairs are 82 MB."""
    texts = 80
    found = answered(tokenizer, schema(top_k=1), texts)
    assert [LABELS] * texts == [prediction.pairs.scored for prediction in found]
    _, peak = tracemalloc.get_traced_memory()
    of_a_chunk = CHUNK_PAIRS * MOST_TOKENS * 2 * 4  # token ids and type ids
    assert peak < 3 * of_a_chunk < texts * LABELS * MOST_TOKENS * 2 * 4


@pytest.mark.usefixtures("traced")
def test_a_thousand_labels_with_a_shortlist_cost_a_text_only_its_shortlist(tokenizer: PairTokenizer) -> None:
    found = answered(tokenizer, schema(shortlist={"top_k": 16}), 200)
    assert [(16, LABELS - 16)] * 200 == [(each.pairs.scored, each.pairs.skipped) for each in found]
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 40_000_000
