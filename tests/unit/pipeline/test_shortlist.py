"""Shortlists: what is kept, what is refused, what is audited."""

from pathlib import Path

import numpy as np
import pytest

from tests.support import small_tokenizers
from worker.errors import ErrorCode, MessageError, SchemaError
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.decision import audit
from worker.pipeline.evidence import ModelView, ScoredStage, published
from worker.pipeline.planning import plan_pairs, shortlisted
from worker.pipeline.shortlist import LabelIndex, Shortlister, index_of, vector_of
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Int32Array, JsonValue, NliHead, Request, Shortlist, TokenizedPairs, TokenVectors

MODEL = ModelView(NliHead(classes=2, entailment=0, contradiction=1), "sha256:" + "a" * 64)


def vectors(tokens: int = 400, dimensions: int = 8) -> TokenVectors:
    draw = np.random.default_rng(0)
    return TokenVectors(draw.integers(-7, 8, (tokens, dimensions), np.int8), np.ones(tokens, np.float32))


def schema_of(labels: int, name: str = "a", top_k: int = 2, **document: JsonValue) -> LabelSchema:
    each: list[JsonValue] = [{"name": f"label {number}"} for number in range(labels)]
    given: dict[str, JsonValue] = {"name": name, "version": 1, "labels": each, "shortlist": {"top_k": top_k}}
    return parse_schema({**given, **document}, "test")


def encode(text: str) -> Int32Array:
    return np.array([ord(letter) for letter in text], np.int32)


def shortlister(audit_every: int = 0, labels_kept: int = 1000) -> Shortlister:
    return Shortlister(vectors(), encode, audit_every=audit_every, labels_kept=labels_kept)


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    return small_tokenizers.save(small_tokenizers.bert_style(), tmp_path)


def test_the_vectors_of_many_schemas_take_no_more_than_their_bound() -> None:
    kept = shortlister(labels_kept=100)
    for number in range(50):
        kept.prepare(schema_of(30, name=f"n{number}"))
        assert kept.labels_kept <= 100


def test_a_schema_larger_than_the_bound_is_kept_alone() -> None:
    kept = shortlister(labels_kept=10)
    kept.prepare(schema_of(5))
    kept.prepare(schema_of(30))
    assert 30 == kept.labels_kept


def test_a_schema_whose_vectors_were_given_up_has_the_same_shortlists_again() -> None:
    plan = plan_pairs(Request("id", "x"), schema_of(30), 1000)
    few = shortlister(labels_kept=1)
    first = few.choose(plan, [encode("label 7")], 1000)
    few.prepare(schema_of(20, name="b"))
    assert first == few.choose(plan, [encode("label 7")], 1000)
    assert first is not None
    assert 7 in first.nodes


def test_a_schema_without_a_shortlist_takes_no_memory() -> None:
    kept = shortlister()
    kept.prepare(parse_schema({"name": "a", "version": 1, "labels": [{"name": "x"}]}, "test"))
    assert 0 == kept.labels_kept


def test_a_text_that_says_nothing_gets_the_labels_listed_first() -> None:
    plan = plan_pairs(Request("id", "x"), schema_of(30), 1000)
    assert Shortlist((0, 1)) == shortlister().choose(plan, [np.array([], np.int32)], 1000)


def test_the_labels_nearest_to_a_text_are_those_of_the_highest_likeness() -> None:
    index = index_of(vectors(), tuple(range(10, 16)), [encode(text) for text in ("ab", "cd", "ef", "gh", "ij", "kl")])
    window = vector_of(vectors(), encode("cdgh"))[np.newaxis]
    likeness = index.likeness(window)
    best = sorted(int(place) for place in np.argsort(-likeness)[:2])
    assert tuple(10 + place for place in best) == index.nearest(window, 2)
    assert 1.0 >= likeness.max() > likeness.min() >= -1.0


def test_a_label_is_as_near_as_its_nearest_window() -> None:
    index = LabelIndex((4, 9, 11), np.eye(3, dtype=np.float32))
    windows = np.array([[0.0, 0.1, 0.8], [0.9, 0.3, 0.0]], np.float32)
    assert [(4,), (4, 11), (4, 9, 11)] == [index.nearest(windows, count) for count in (1, 2, 3)]


def test_as_many_messages_are_audited_as_were_asked_for_and_always_the_same() -> None:
    plans = [plan_pairs(Request(f"t/0/{number}", "x"), schema_of(30), 1000) for number in range(4000)]
    lists = [shortlister(audit_every=20).choose(plan, [encode("x")], 1000) for plan in plans[:400]]
    one = shortlister(audit_every=20)
    all_lists = [one.choose(plan, [encode("x")], 1000) for plan in plans]
    audited = [each.is_audited for each in all_lists if each is not None]
    assert 4000 == len(audited)
    assert 120 < sum(audited) < 280
    assert lists == all_lists[:400]


def test_a_text_is_not_audited_at_a_price_that_a_message_may_not_cost() -> None:
    plan = plan_pairs(Request("id", "x"), schema_of(30), 1000)
    always = shortlister(audit_every=1)
    assert [True, False] == [
        found.is_audited for most in (60, 59) if (found := always.choose(plan, [encode("x")] * 2, most)) is not None
    ]


def test_an_audit_says_whether_the_best_of_all_labels_is_in_the_shortlist() -> None:
    whole = plan_pairs(Request("id", "x"), schema_of(3), 1000)
    audited = shortlisted(whole, Shortlist((0, 2), is_audited=True))
    logits = np.array([[[1.0, 0.0], [3.0, 0.0], [2.0, 0.0]]], np.float32)
    best_inside = ScoredStage(audited, logits[:, [1, 0, 2]])
    assert (False,) == audit([ScoredStage(audited, logits)], MODEL)
    assert (True, False) == audit([best_inside, ScoredStage(audited, logits)], MODEL)
    assert () == audit([ScoredStage(whole, logits)], MODEL)


def test_only_the_shortlist_counts_against_the_pairs_of_a_message() -> None:
    """Without one 1,000 labels under 5 templates are more than a message may cost."""
    templates: list[JsonValue] = [f"{word} {{}}" for word in "abcde"]
    large = schema_of(1000, top_k=16, hypothesis_templates=templates)
    assert (5000, 80) == (large.tree.pairs, large.tree.most_pairs)
    assert 1000 == len(plan_pairs(Request("id", "x"), large, 4096).nodes)
    whole = parse_schema({key: value for key, value in large.document().items() if key != "shortlist"}, "test")
    with pytest.raises(MessageError, match="needs 5000 pairs") as caught:
        plan_pairs(Request("id", "x"), whole, 4096)
    assert ErrorCode.TOO_MANY_PAIRS is caught.value.code


def test_a_model_without_token_vectors_refuses_the_schema_and_says_what_to_do(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, 100)
    with pytest.raises(SchemaError, match=r"python -m worker\.engines\.token_vectors"):
        tokenizer.prepare(schema_of(3))
    [refused] = tokenizer.tokenize([plan_pairs(Request("id", "the app"), schema_of(3), 100)])
    assert isinstance(refused, MessageError)


def test_a_schema_is_prepared_before_the_first_message_needs_it(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, 100, vectors())
    schema = schema_of(30)
    tokenizer.prepare(schema)
    shortlists = tokenizer._shortlister
    assert shortlists is not None
    assert 30 == shortlists.labels_kept
    [pairs] = tokenizer.tokenize([plan_pairs(Request("id", "the app"), schema, 100)])
    assert isinstance(pairs, TokenizedPairs)
    assert (2, 30) == (len(pairs.lengths), shortlists.labels_kept)


def test_an_audited_message_costs_what_it_would_have_cost_without() -> None:
    """Of pairs known from before only those of the shortlist count."""
    whole = plan_pairs(Request("id", "x"), schema_of(4), 1000)
    audited = shortlisted(whole, Shortlist((1, 3), is_audited=True))
    logits = np.arange(16, dtype=np.float32).reshape(2, 4, 2)
    stage = published(ScoredStage(audited, logits, frozenset({0, 3, 5, 6})))
    assert (4, frozenset({1, 2})) == (stage.pairs, stage.cached)
    assert logits[:, [1, 3]].tolist() == stage.logits.tolist()
