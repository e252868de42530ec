"""The whole path with an engine that reads all labels of a decision in one row."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_tokenizers
from tests.support.tiny_gliclass import marked
from worker.classifier import Classifier, ClassifierParts
from worker.engines.base import Engine
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import (
    Batch,
    EngineInfo,
    JsonValue,
    LabelRow,
    ModelStamp,
    NliHead,
    PairScores,
    Prediction,
    Record,
)

TOKENIZER = marked(small_tokenizers.bert_style())
MOST_TOKENS = 48
LABELS = ("refund", "late delivery", "crash", "good")


class OnePassEngine:
    """Says of a label what its tokens say, whatever the text; counts its rows."""

    def __init__(self) -> None:
        label, text = (TOKENIZER.encode(token, add_special_tokens=False).ids[0] for token in ("<<LABEL>>", "<<SEP>>"))
        self.info = EngineInfo(
            stamp=ModelStamp("one-pass", f"sha256:{0:064}", "gliclass", "float32"),
            head=NliHead(2, 0, 1),
            max_pair_tokens=MOST_TOKENS,
            token_budget=4 * MOST_TOKENS,
            reading=LabelRow(label, text),
        )
        self.rows = 0

    def warm_up(self) -> None:
        """Nothing is cold."""

    def score(self, batch: Batch) -> PairScores:
        """The evidence of each marked label and 0."""
        self.rows += len(batch.refs)
        assert batch.asked == (batch.type_ids == 1).sum()
        marks = np.nonzero(batch.type_ids > 0)[0]
        spans = [batch.token_ids[start + 1 : end].tolist() for start, end in zip(marks, [*marks[1:], 0], strict=True)]
        found = [_evidence(span) for start, span in zip(marks, spans, strict=True) if batch.type_ids[start] == 1]
        return PairScores(np.array([[each, 0.0] for each in found], np.float32))

    def close(self) -> None:
        """Nothing is held."""


def _evidence(label: Sequence[int]) -> float:
    return float(sum(label) % 13) / 4 - 1


def _expected(*labels: str) -> dict[str, float]:
    logits = np.array([_evidence(TOKENIZER.encode(label, add_special_tokens=False).ids) for label in labels])
    shares = np.exp(logits) / np.exp(logits).sum()
    return dict(zip(labels, shares.tolist(), strict=True))


def _schema(**more: JsonValue) -> LabelSchema:
    labels: list[JsonValue] = [{"name": name} for name in LABELS]
    document: dict[str, JsonValue] = {"name": "x", "version": 1, "hypothesis_templates": ["{}"], "labels": labels}
    return parse_schema(document | more, "x")


def _answers(folder: Path, schema: LabelSchema, *values: dict[str, JsonValue]) -> tuple[list[Prediction], int]:
    engine, limits = OnePassEngine(), Limits()
    seam: Engine = engine
    labels = LabelRegistry(limits, engine.info.stamp.digest)
    assert not labels.offer(schema, "test").refused
    file = small_tokenizers.save(TOKENIZER, folder)
    classifier = Classifier(
        ClassifierParts(
            decode=lambda record: decode(record, InputFields(), limits),
            resolve=lambda request: labels.resolve(request, schema.reference, limits),
            tokenizer=PairTokenizer(file, MOST_TOKENS, reading=engine.info.reading),
            engine=seam,
            max_pairs=100,
        )
    )
    records = [Record("t", 0, n, 0, None, json.dumps(value).encode()) for n, value in enumerate(values)]
    outcomes = [answer.outcome for answer in classifier.answers(records)]
    predictions = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    assert len(values) == len(predictions)
    return predictions, engine.rows


def _scores(prediction: Prediction) -> dict[str, float]:
    return {score.label: score.score for score in prediction.scores}


def test_messages_of_different_label_sets_share_batches_and_each_gets_its_own_scores(tmp_path: Path) -> None:
    sets = (LABELS, ("crash", "refund"), ("the app",), LABELS[::-1], ("late", "a refund", "good"))
    values: list[dict[str, JsonValue]] = [
        {"text": "late " * (n % 7 + 1), "labels": [*sets[n % 5]], "hypothesis_template": "{}"} for n in range(25)
    ]

    predictions, rows = _answers(tmp_path, _schema(), *values)

    assert 25 == rows
    for number, prediction in enumerate(predictions):
        labels = sets[number % 5]
        assert len(labels) == prediction.pairs.scored
        if len(labels) > 1:
            assert pytest.approx(_expected(*labels), abs=1e-6) == _scores(prediction)


def test_windows_of_a_text_are_a_row_each(tmp_path: Path) -> None:
    schema = _schema(long_text={"strategy": "windows", "overlap_tokens": 2})

    (prediction,), rows = _answers(tmp_path, schema, {"text": "late " * 100})

    assert 1 < rows == prediction.text.windows
    assert 4 * rows == prediction.pairs.scored
    assert pytest.approx(_expected(*LABELS), abs=1e-6) == _scores(prediction)


def test_each_level_of_a_hierarchy_is_a_row(tmp_path: Path) -> None:
    labels: list[JsonValue] = [
        {"name": name, "children": [{"name": f"{name} {each}"} for each in ("bill", "app")]} for name in LABELS
    ]

    (prediction,), rows = _answers(tmp_path, _schema(labels=labels, hierarchy={"open_above": 0.0}), {"text": "late"})

    assert 2 == rows
    assert (4 + 2, 6) == (prediction.pairs.scored, prediction.pairs.skipped)
    roots = _expected(*LABELS)
    best = max(roots, key=roots.__getitem__)
    leaves = _expected(f"{best} bill", f"{best} app")
    expected = roots | {name: roots[best] * share for name, share in leaves.items()}
    assert pytest.approx(expected, abs=1e-6) == _scores(prediction)
