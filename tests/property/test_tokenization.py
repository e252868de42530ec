"""Tokenization: joined pairs are what the model's own tokenizer makes of text and hypothesis; only the text is cut."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer

from tests.support import small_tokenizers
from worker import bundled
from worker.errors import ErrorCode, MessageError, Stage
from worker.labels.schema import parse_schema
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, Request, TokenizedPairs

BUNDLED = Path(bundled.__path__[0]) / "model" / "tokenizer.json"

any_text = st.text(st.characters(codec="utf-8"), max_size=60)
oddities = st.sampled_from(
    [
        "This app is late, the refund is not good.",
        " ",
        "\x00",
        "\u200b\ufeff",
        "\r\n\t",
        "🏳️‍🌈👩🏽‍🚀",
        "שלום עולם",
        "\u202e\u0645\u0631\u062d\u0628\u0627\u202c",
        "ﷺ",
        "e\u0301e\u0301",
        "漢字かな",
        "x" * 150,
        "ä" * 90,
        "[SEP]",
        "[CLS] </s><s> [MASK]",
        "{0.__class__}",
        "a <mask>  [MASK]b",
        "the   bill\u3000is\u00a0 late",
        "ﬁ½\uff21①…㌀",
        "▁a▁ ▁",
    ]
)
texts = st.lists(any_text | oddities, max_size=6).map("".join)
maxima = st.sampled_from([4, 5, 12, 17, 31, 64, 128])
hypotheses = st.lists(texts.filter(lambda text: text.strip() != ""), min_size=1, max_size=4)


@dataclass(frozen=True)
class Subject:
    """A tokenizer file, and the tokenizer itself as the library runs it."""

    file: Path
    own: Tokenizer = field(repr=False)
    loaded: dict[int, PairTokenizer] = field(default_factory=dict, repr=False)

    def pair_tokenizer(self, most: int) -> PairTokenizer:
        """The one under test, loaded once for each maximum length."""
        if most not in self.loaded:
            self.loaded[most] = PairTokenizer(self.file, most)
        return self.loaded[most]

    def encode(self, text: str, hypothesis: str) -> Encoding:
        """The pair in full."""
        self.own.no_truncation()
        return self.own.encode(text, hypothesis)

    def encode_cut(self, text: str, hypothesis: str, most: int) -> Encoding:
        """The pair, its text cut to fit."""
        self.own.enable_truncation(most, strategy="only_first")
        return self.own.encode(text, hypothesis)

    def count(self, text: str) -> int:
        """Tokens of one text, without special ones."""
        self.own.no_truncation()
        return len(self.own.encode(text, add_special_tokens=False).ids)

    def room(self, hypothesis: str, most: int) -> int:
        """Tokens left for a text."""
        return most - self.own.num_special_tokens_to_add(is_pair=True) - self.count(hypothesis)


@pytest.fixture(scope="module", params=["bundled", *small_tokenizers.FAMILIES])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    file = BUNDLED
    if request.param != "bundled":
        file = small_tokenizers.save(small_tokenizers.FAMILIES[request.param](), tmp_path_factory.mktemp(request.param))
    own = Tokenizer.from_file(str(file))
    own.no_padding()
    return Subject(file, own)


def plan_of(text: str, each: list[str]) -> PairPlan:
    labels: list[JsonValue] = [
        {"name": str(number), "hypothesis": hypothesis} for number, hypothesis in enumerate(each)
    ]
    schema = parse_schema({"name": "a", "version": 1, "labels": labels}, "test")
    return plan_pairs(Request("id", text), schema, 100)


def rows(pairs: TokenizedPairs) -> list[tuple[list[int], list[int]]]:
    ends = np.cumsum(pairs.lengths)
    spans = [slice(int(end - length), int(end)) for end, length in zip(ends, pairs.lengths, strict=True)]
    return [(pairs.token_ids[span].tolist(), pairs.type_ids[span].tolist()) for span in spans]


@given(texts, hypotheses)
def test_a_pair_that_fits_is_what_the_whole_tokenizer_makes_of_it(subject: Subject, text: str, each: list[str]) -> None:
    plan = plan_of(text, each)
    [pairs] = subject.pair_tokenizer(10_000).tokenize([plan])
    assert isinstance(pairs, TokenizedPairs)
    encodings = [subject.encode(text, hypothesis) for hypothesis in plan.hypotheses]
    assert [(encoding.ids, encoding.type_ids) for encoding in encodings] == rows(pairs)
    assert (subject.count(text), 0, 1) == pairs.text


@given(texts.filter(lambda text: len(text) > 12), hypotheses, maxima)
def test_a_pair_that_does_not_fit_is_cut_as_the_whole_tokenizer_cuts_it(
    subject: Subject, text: str, each: list[str], most: int
) -> None:
    plan = plan_of(text, each)
    rooms = [subject.room(hypothesis, most) for hypothesis in plan.hypotheses]
    [pairs] = subject.pair_tokenizer(most).tokenize([plan])
    if min(rooms) < 1:
        assert isinstance(pairs, MessageError)
        assert (ErrorCode.HYPOTHESIS_TOO_LONG, Stage.TOKENIZE) == (pairs.code, pairs.stage)
        return
    assert isinstance(pairs, TokenizedPairs)
    encodings = [subject.encode_cut(text, hypothesis, most) for hypothesis in plan.hypotheses]
    assert [(encoding.ids, encoding.type_ids) for encoding in encodings] == rows(pairs)
    assert most >= pairs.lengths.max()
    whole = subject.count(text)
    assert min(whole, *rooms) == pairs.text.tokens
    assert whole == pairs.text.tokens + pairs.text.tokens_dropped


@given(texts, texts.filter(lambda text: text.strip() != ""), maxima)
def test_the_hypothesis_is_never_cut(subject: Subject, text: str, hypothesis: str, most: int) -> None:
    [pairs] = subject.pair_tokenizer(most).tokenize([plan_of(text, [hypothesis])])
    assert isinstance(pairs, MessageError) == (subject.room(hypothesis, most) < 1)
    if isinstance(pairs, TokenizedPairs):
        tail = subject.encode("", hypothesis).ids[-subject.count(hypothesis) - 1 :]
        assert tail == pairs.token_ids[-len(tail) :].tolist()


@given(st.lists(st.tuples(texts, hypotheses), min_size=1, max_size=5), maxima)
def test_a_batch_of_plans_gives_what_single_plans_give(
    subject: Subject, messages: list[tuple[str, list[str]]], most: int
) -> None:
    plans = [plan_of(text, each) for text, each in messages]
    tokenizer = subject.pair_tokenizer(most)
    together = tokenizer.tokenize(plans)
    alone = [tokenizer.tokenize([plan])[0] for plan in plans]
    assert [outcome_of(pairs) for pairs in alone] == [outcome_of(pairs) for pairs in together]


def outcome_of(pairs: TokenizedPairs | MessageError) -> object:
    return str(pairs) if isinstance(pairs, MessageError) else (rows(pairs), pairs.text)
