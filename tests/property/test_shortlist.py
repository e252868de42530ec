"""Shortlists through the whole path without Kafka, on an engine that hashes its pairs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import small_tokenizers
from worker.classifier import Classifier, ClassifierParts
from worker.engines.fake import FakeEngine
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.shortlist import vector_of, words_of
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import JsonValue, Prediction, Record, TokenVectors

MOST_TOKENS = 40
NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
DIMENSIONS = 8


@dataclass(frozen=True)
class Subject:
    """A tokenizer with vectors, and the same one that audits every text."""

    vectors: TokenVectors
    plain: PairTokenizer
    auditing: PairTokenizer


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    own = small_tokenizers.bert_style()
    file: Path = small_tokenizers.save(own, tmp_path_factory.mktemp("bert"))
    draw = np.random.default_rng(1)
    tokens = own.get_vocab_size()
    vectors = TokenVectors(
        draw.integers(-7, 8, (tokens, DIMENSIONS), np.int8), draw.uniform(0.1, 2.0, tokens).astype(np.float32)
    )
    tokenizers = (PairTokenizer(file, MOST_TOKENS, vectors, audit_every=every) for every in (0, 1))
    return Subject(vectors, *tokenizers)


def predictions(
    tokenizer: PairTokenizer, schema: LabelSchema, texts: Sequence[str], together: int = 100
) -> list[Prediction]:
    parts = ClassifierParts(
        decode=lambda record: decode(record, InputFields(), Limits()),
        resolve=lambda _: schema,
        tokenizer=tokenizer,
        engine=FakeEngine(max_pair_tokens=MOST_TOKENS, token_budget=200),
        max_pairs=4096,
    )
    records = [Record("t", 0, n, 1, None, json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]
    chunks = (records[start : start + together] for start in range(0, len(records), together))
    found = [answer.outcome for chunk in chunks for answer in Classifier(parts).answers(chunk)]
    assert all(isinstance(outcome, Prediction) for outcome in found)
    return [outcome for outcome in found if isinstance(outcome, Prediction)]


def parsed(document: dict[str, JsonValue], top_k: int | None) -> LabelSchema:
    rule: dict[str, JsonValue] = {} if top_k is None else {"shortlist": {"top_k": top_k}}
    return parse_schema({**document, **rule}, "test")


@st.composite
def documents(draw: st.DrawFn, *, flat: bool = False) -> dict[str, JsonValue]:
    """Schemas of up to 12 labels, flat or as a tree, in either mode."""
    names = iter(NAMES[: draw(st.integers(1, len(NAMES)))])
    multi_label = draw(st.booleans())
    is_flat = flat or multi_label

    def siblings(level: int) -> list[JsonValue]:
        found: list[JsonValue] = []
        for name in names:
            label: dict[str, JsonValue] = {"name": name}
            if draw(st.booleans()):
                label["hypothesis"] = f"the {name}"
            if not multi_label and draw(st.booleans()):
                label["threshold"] = draw(st.floats(0, 0.3))
            if not is_flat and level < 3 and draw(st.booleans()):
                label["children"] = siblings(level + 1)
            found.append(label)
            if not is_flat and level > 1 and draw(st.booleans()):
                break
        return found

    templates = draw(st.sampled_from([["{}"], ["{} is good", "not {}"]]))
    document: dict[str, JsonValue] = {
        "name": "drawn",
        "version": 1,
        "multi_label": multi_label,
        "hypothesis_templates": [*templates],
        "labels": siblings(1),
    }
    if draw(st.booleans()):
        aggregate = draw(st.sampled_from(["max", "mean"]))
        document["long_text"] = {
            "strategy": "windows",
            "overlap_tokens": draw(st.integers(0, 40)),
            "aggregate": aggregate,
        }
    return document


texts = st.lists(st.sampled_from(["a", "b", "q", "the", "bill", "late", "漢"]), min_size=1, max_size=50).map(" ".join)


@settings(max_examples=60)
@given(documents(), st.lists(texts, min_size=1, max_size=3))
def test_a_shortlist_that_holds_every_label_changes_nothing(
    subject: Subject, document: dict[str, JsonValue], each: list[str]
) -> None:
    """Bit for bit."""
    whole = predictions(subject.plain, parsed(document, None), each)
    assert whole == predictions(subject.plain, parsed(document, len(NAMES)), each)


@settings(max_examples=60)
@given(documents(), st.lists(texts, min_size=1, max_size=3), st.integers(1, 5))
def test_what_is_not_scored_is_counted_as_skipped(
    subject: Subject, document: dict[str, JsonValue], each: list[str], top_k: int
) -> None:
    schema = parsed(document, top_k)
    for prediction in predictions(subject.plain, schema, each):
        windows = prediction.text.windows
        assert windows * schema.tree.pairs == prediction.pairs.scored + prediction.pairs.skipped
        assert prediction.pairs.scored <= windows * schema.tree.most_pairs
        scored = {item.label for item in prediction.scores}
        stages: dict[int | None, list[str]] = {}
        for node in schema.tree.nodes:
            stages.setdefault(node.parent, []).append(node.label.name)
        for siblings in stages.values():
            assert len(scored & set(siblings)) in {0, min(top_k, len(siblings))}


@settings(max_examples=60)
@given(documents(flat=True), texts, st.integers(1, 5))
def test_the_labels_scored_are_the_nearest_and_are_scored_as_a_set_of_their_own(
    subject: Subject, document: dict[str, JsonValue], text: str, top_k: int
) -> None:
    document = {**document, "long_text": {"strategy": "truncate"}}
    schema = parsed(document, top_k)
    [found] = predictions(subject.plain, schema, [text])
    encode = subject.plain._encode_words
    room = subject.plain._least_room(schema)
    of_text = vector_of(subject.vectors, encode(text)[:room]).astype(np.float64)
    labels = np.stack([vector_of(subject.vectors, encode(words_of(label))) for label in schema.labels])
    labels = labels.astype(np.float64) - labels.mean(axis=0, dtype=np.float64)
    lengths = np.linalg.norm(labels, axis=1)
    likeness = labels @ of_text / np.where(lengths > 1e-6, lengths, 1.0)
    scored = {item.label for item in found.scores}
    inside = [value for label, value in zip(schema.labels, likeness, strict=True) if label.name in scored]
    outside = [value for label, value in zip(schema.labels, likeness, strict=True) if label.name not in scored]
    assert not outside or max(outside) <= min(inside) + 1e-5
    whole = document["labels"]
    assert isinstance(whole, list)
    alone: list[JsonValue] = [label for label in whole if isinstance(label, dict) and label["name"] in scored]
    [expected] = predictions(subject.plain, parsed({**document, "labels": alone}, None), [text])
    assert (expected.label, expected.selected, expected.scores, expected.template_spread) == (
        found.label,
        found.selected,
        found.scores,
        found.template_spread,
    )


@settings(max_examples=40)
@given(documents(), st.lists(texts, min_size=2, max_size=6), st.integers(1, 4))
def test_a_text_has_the_same_shortlist_alone_and_among_others(
    subject: Subject, document: dict[str, JsonValue], each: list[str], top_k: int
) -> None:
    schema = parsed(document, top_k)
    together = predictions(subject.plain, schema, each)
    assert together == predictions(subject.plain, schema, each, together=1)
    assert together[::-1] == predictions(subject.plain, schema, each[::-1])


@settings(max_examples=60)
@given(documents(), st.lists(texts, min_size=1, max_size=3), st.integers(1, 5))
def test_an_audit_changes_no_prediction(
    subject: Subject, document: dict[str, JsonValue], each: list[str], top_k: int
) -> None:
    schema = parsed(document, top_k)
    assert predictions(subject.plain, schema, each) == predictions(subject.auditing, schema, each)
