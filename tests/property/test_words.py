"""Texts that are encoded piece by piece get the ids that the tokenizer gives them whole."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

from tests.support import small_tokenizers
from worker import bundled
from worker.pipeline import words
from worker.pipeline.words import TextEncoder

BUNDLED = Path(bundled.__path__[0]) / "model" / "tokenizer.json"

ascii_text = st.text(st.characters(max_codepoint=127), max_size=40)
pieces = st.sampled_from(
    ["the ", "Refund", "it's", "\t", "\n", "\r", "\x1c", "[SEP]", "[", "x" * 150, "é", "a_b", "\x0b", "new"]
)
texts = st.lists(ascii_text | pieces, max_size=5).map("".join)


def cased() -> Tokenizer:
    tokenizer = small_tokenizers.bert_style()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    return tokenizer


def with_words_added() -> Tokenizer:
    tokenizer = small_tokenizers.bert_style()
    tokenizer.add_tokens([AddedToken("new york", normalized=True), AddedToken("the", single_word=True)])
    return tokenizer


def bundled_one() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(BUNDLED))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


TOKENIZERS = {
    "bundled": bundled_one,
    "cased": cased,
    "with words added": with_words_added,
    **small_tokenizers.FAMILIES,
}


@pytest.fixture(scope="module", params=[*TOKENIZERS])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


@given(st.lists(texts, max_size=5))
def test_the_ids_are_those_of_the_whole_tokenizer(tokenizer: Tokenizer, drawn: list[str]) -> None:
    encoder = TextEncoder(tokenizer)
    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in drawn]
    assert expected == encoder.encode(drawn)
    assert expected == encoder.encode(drawn)  # now that every piece was seen


def test_no_more_pieces_are_kept_than_the_bound_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PIECES_KEPT", 3)
    tokenizer = bundled_one()
    encoder = TextEncoder(tokenizer)
    text = "one two three four five six one"
    assert tokenizer.encode(text, add_special_tokens=False).ids == encoder.encode([text])[0]
    assert len(encoder._pieces) <= 3
