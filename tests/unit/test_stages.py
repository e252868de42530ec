"""A hierarchy and windows through the whole path without Kafka, on an engine that hashes its pairs."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import small_tokenizers
from worker.classifier import Answer, Classifier, ClassifierParts
from worker.engines.fake import FakeEngine
from worker.errors import ErrorCode
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.decision import decide
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import PairPlan, plan_below, plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import Batch, JsonValue, PairScores, Prediction, Record, Refusal, Request, TokenizedPairs

MOST_TOKENS = 40
HYPOTHESES = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"]


class CountingEngine(FakeEngine):
    """Remembers every pair it was given."""

    def __init__(self) -> None:
        super().__init__(max_pair_tokens=MOST_TOKENS, token_budget=200)
        self.pairs: list[tuple[int, ...]] = []

    def score(self, batch: Batch) -> PairScores:
        ends = np.cumsum(batch.lengths)
        self.pairs += [
            tuple(batch.token_ids[end - length : end].tolist()) for end, length in zip(ends, batch.lengths, strict=True)
        ]
        return super().score(batch)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PairTokenizer:
    folder: Path = tmp_path_factory.mktemp("bert")
    return PairTokenizer(small_tokenizers.save(small_tokenizers.bert_style(), folder), MOST_TOKENS)


def answers(
    tokenizer: PairTokenizer, schema: LabelSchema, texts: Sequence[str], max_pairs: int = 4096
) -> tuple[list[Answer], CountingEngine]:
    engine = CountingEngine()
    parts = ClassifierParts(
        decode=lambda record: decode(record, InputFields(), Limits()),
        resolve=lambda _: schema,
        tokenizer=tokenizer,
        engine=engine,
        max_pairs=max_pairs,
    )
    records = [Record("t", 0, n, 1, None, json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]
    return list(Classifier(parts).answers(records)), engine


def predictions(all_answers: list[Answer]) -> list[Prediction]:
    found = [answer.outcome for answer in all_answers]
    assert not any(isinstance(outcome, Refusal) for outcome in found)
    return [outcome for outcome in found if isinstance(outcome, Prediction)]


@st.composite
def schemas(draw: st.DrawFn) -> LabelSchema:
    """Trees of up to 16 labels, each with a hypothesis of one letter."""
    names = iter(HYPOTHESES[: draw(st.integers(1, len(HYPOTHESES)))])

    def siblings(level: int) -> list[JsonValue]:
        found: list[JsonValue] = []
        for name in names:
            children = siblings(level + 1) if level < 4 and draw(st.booleans()) else []
            threshold = draw(st.none() | st.floats(0, 0.3))
            found.append({"name": name, "hypothesis": name, "threshold": threshold, "children": children})
            if draw(st.booleans()):
                break
        return found

    labels = siblings(1)
    document: dict[str, JsonValue] = {
        "name": "drawn",
        "version": 1,
        "multi_label": draw(st.booleans()),
        "labels": labels,
    }
    if any(isinstance(label, dict) and label["children"] for label in labels):
        document["hierarchy"] = {"open_above": draw(st.sampled_from([0.0, 0.2, 0.5, 0.9]))}
    if draw(st.booleans()):
        document["long_text"] = {"strategy": "windows", "overlap_tokens": draw(st.integers(0, 40))}
    return parse_schema(document, "test")


texts = st.lists(st.sampled_from(["q", "r", "s", "t", "u", "v"]), min_size=1, max_size=60).map(" ".join)


def live(schema: LabelSchema, prediction: Prediction) -> set[str]:
    """The labels that lead to a scored one must each be the best of their siblings; gives all that were scored."""
    scores = {each.label: each.score for each in prediction.scores}
    nodes = schema.tree.nodes
    for node in nodes:
        if node.label.name in scores and node.parent is not None:
            parent = nodes[node.parent]
            above = nodes[parent.parent].children if parent.parent is not None else schema.tree.first
            assert scores[parent.label.name] == max(scores[nodes[place].label.name] for place in above)
    return set(scores)


@settings(max_examples=60)
@given(schemas(), st.lists(texts, min_size=1, max_size=4))
def test_only_what_lies_below_the_best_is_scored_and_scores_agree_with_their_tree(
    tokenizer: PairTokenizer, schema: LabelSchema, each: list[str]
) -> None:
    found, engine = answers(tokenizer, schema, each)
    nodes = schema.tree.nodes
    for prediction in predictions(found):
        scores = {item.label: item.score for item in prediction.scores}
        assert set(scores) <= schema.label_names
        if schema.multi_label:
            assert schema.label_names == set(scores)
        elif not schema.tree.is_flat:
            live(schema, prediction)
        for siblings in [schema.tree.first, *(node.children for node in nodes)]:
            told = [scores.get(nodes[place].label.name) for place in siblings]
            if schema.multi_label or len(siblings) < 2 or None in told:
                continue
            parent = nodes[siblings[0]].parent
            whole = 1.0 if parent is None else scores[nodes[parent].label.name]
            assert pytest.approx(whole, abs=1e-9) == sum(score for score in told if score is not None)
        windows = prediction.text.windows
        assert (windows * len(scores), windows * len(nodes)) == (
            prediction.pairs.scored,
            prediction.pairs.scored + prediction.pairs.skipped,
        )
        for item in prediction.scores:
            if item.path is not None:
                assert item.label == item.path[-1]
                assert list(item.path) == [name for name in item.path if scores[name] >= item.score]
    assert sum(prediction.pairs.scored for prediction in predictions(found)) == len(engine.pairs)


@settings(max_examples=40)
@given(schemas(), texts)
def test_a_message_in_stages_is_decided_as_if_all_had_been_scored_at_once(
    tokenizer: PairTokenizer, schema: LabelSchema, text: str
) -> None:
    """Each stage is scored by hand, with its text tokenised anew."""
    [prediction] = predictions(answers(tokenizer, schema, [text])[0])
    engine = FakeEngine(max_pair_tokens=MOST_TOKENS)
    model = ModelView(engine.info.head, engine.info.stamp.digest)
    stages: list[ScoredStage] = []
    plan: PairPlan | None = plan_pairs(Request("t/0/0", text), schema, 4096)
    scored = {item.label for item in prediction.scores}
    while plan is not None:
        [pairs] = tokenizer.tokenize([plan])
        assert isinstance(pairs, TokenizedPairs)
        refs = ()
        logits = engine.score(Batch(refs, pairs.token_ids, pairs.type_ids, pairs.lengths)).logits
        stages.append(ScoredStage(plan, logits.reshape(pairs.text.windows, len(plan.hypotheses), -1)))
        below = [plan_below(plan, node) for node in plan.nodes]
        following = [b for b in below if b is not None and schema.tree.nodes[b.nodes[0]].label.name in scored]
        plan = following[0] if following else None
    assert decide(stages, prediction.text, model) == prediction


def test_a_message_keeps_its_place_while_its_stages_are_scored(tokenizer: PairTokenizer) -> None:
    tree: list[JsonValue] = [{"name": "a", "children": [{"name": "b"}, {"name": "c"}]}, {"name": "d"}]
    schema = parse_schema({"name": "x", "version": 1, "labels": tree, "hierarchy": {"open_above": 0.0}}, "test")
    each = [f"{'q ' * (n % 7)}r" for n in range(40)]
    found, _ = answers(tokenizer, schema, each)
    assert list(range(40)) == [answer.record.offset for answer in found]
    depths = {len(prediction.scores) for prediction in predictions(found)}
    assert {2, 4} == depths


def test_the_costliest_way_down_must_be_allowed_before_the_first_pair_is_scored(tokenizer: PairTokenizer) -> None:
    tree: list[JsonValue] = [{"name": "a", "children": [{"name": "b"}, {"name": "c"}]}, {"name": "d"}]
    schema = parse_schema({"name": "x", "version": 1, "labels": tree}, "test")
    [refused], engine = answers(tokenizer, schema, ["q"], max_pairs=3)
    assert isinstance(refused.outcome, Refusal)
    assert ErrorCode.TOO_MANY_PAIRS is refused.outcome.code
    assert [] == engine.pairs
    assert 1 == len(predictions(answers(tokenizer, schema, ["q"], max_pairs=4)[0]))


def test_a_hypothesis_without_room_is_refused_at_whatever_depth_it_stands(tokenizer: PairTokenizer) -> None:
    tree: list[JsonValue] = [{"name": "a", "children": [{"name": "b", "hypothesis": "b " * 50}]}, {"name": "d"}]
    schema = parse_schema({"name": "x", "version": 1, "labels": tree}, "test")
    [refused], engine = answers(tokenizer, schema, ["q"])
    assert isinstance(refused.outcome, Refusal)
    assert ErrorCode.HYPOTHESIS_TOO_LONG is refused.outcome.code
    assert [] == engine.pairs
