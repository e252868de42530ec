"""Tokenization: what is refused when a tokenizer is loaded, and the limits of a pair, by example."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.support import small_tokenizers
from worker.errors import EngineError, ErrorCode, MessageError
from worker.labels.schema import parse_schema
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, Request, TokenizedPairs, TokenSpan

SPECIAL_TOKENS = 3  # [CLS] text [SEP] hypothesis [SEP]


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    return small_tokenizers.save(small_tokenizers.bert_style(), tmp_path)


def plan_of(text: str, *hypotheses: str) -> PairPlan:
    labels: list[JsonValue] = [
        {"name": str(number), "hypothesis": hypothesis} for number, hypothesis in enumerate(hypotheses)
    ]
    return plan_pairs(Request("id", text), parse_schema({"name": "a", "version": 1, "labels": labels}, "test"), 10)


def test_the_text_keeps_its_beginning_and_what_is_dropped_is_counted(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, SPECIAL_TOKENS + 2 + 3)
    [pairs] = tokenizer.tokenize([plan_of("a b c d e f", "x", "x y", "x y z w")])
    assert isinstance(pairs, TokenizedPairs)
    assert [SPECIAL_TOKENS + 1 + 4, SPECIAL_TOKENS + 2 + 3, SPECIAL_TOKENS + 4 + 1] == pairs.lengths.tolist()
    # Told is the text of the pair that saw the least of it.
    assert TokenSpan(1, 5) == pairs.text


def test_the_longest_hypothesis_that_fits_leaves_room_for_one_token(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, SPECIAL_TOKENS + 4)
    fits, too_long = tokenizer.tokenize([plan_of("a b", "x y z"), plan_of("a b", "x y z w")])
    assert isinstance(fits, TokenizedPairs)
    assert TokenSpan(1, 1) == fits.text
    assert isinstance(too_long, MessageError)
    assert ErrorCode.HYPOTHESIS_TOO_LONG is too_long.code


def test_a_hypothesis_without_room_is_found_before_any_text_comes(tokenizer_file: Path) -> None:
    tokenizer = PairTokenizer(tokenizer_file, SPECIAL_TOKENS + 4)
    tokenizer.check(["x y z"])
    with pytest.raises(MessageError) as refusal:
        tokenizer.check(["x y z", "x y z w"])
    assert ErrorCode.HYPOTHESIS_TOO_LONG is refusal.value.code


def test_a_label_schema_is_prepared_by_tokenising_all_its_hypotheses_and_refused_where_one_has_no_room(
    tokenizer_file: Path,
) -> None:
    tokenizer = PairTokenizer(tokenizer_file, SPECIAL_TOKENS + 4)
    tokenizer.prepare(plan_of("a", "x", "x y", "x y z").schema)
    prepared = tokenizer._hypothesis.cache_info().misses
    tokenizer.tokenize([plan_of("a b", "x", "x y", "x y z")])
    assert 3 == prepared == tokenizer._hypothesis.cache_info().misses
    with pytest.raises(MessageError) as refusal:
        tokenizer.prepare(plan_of("a", "x", "x y z w").schema)
    assert ErrorCode.HYPOTHESIS_TOO_LONG is refusal.value.code


def test_the_reason_quotes_no_hypothesis(tokenizer_file: Path) -> None:
    [refused] = PairTokenizer(tokenizer_file, 8).tokenize([plan_of("a", "secret words that are far too long")])
    assert isinstance(refused, MessageError)
    assert "secret" not in str(refused)


def test_cutting_and_padding_that_the_file_asks_for_do_not_happen(tmp_path: Path) -> None:
    own = small_tokenizers.bert_style()
    own.enable_truncation(6)
    own.enable_padding(length=40)
    tokenizer = PairTokenizer(small_tokenizers.save(own, tmp_path), 100)
    [pairs] = tokenizer.tokenize([plan_of("a b c d e f g h", "x y")])
    assert isinstance(pairs, TokenizedPairs)
    assert ([SPECIAL_TOKENS + 10], TokenSpan(8, 0)) == (pairs.lengths.tolist(), pairs.text)


def test_a_text_without_any_token_is_still_a_pair(tokenizer_file: Path) -> None:
    [pairs] = PairTokenizer(tokenizer_file, 100).tokenize([plan_of("\x00", "x")])
    assert isinstance(pairs, TokenizedPairs)
    assert ([SPECIAL_TOKENS + 1], TokenSpan(0, 0)) == (pairs.lengths.tolist(), pairs.text)


def test_no_plans_are_no_pairs(tokenizer_file: Path) -> None:
    assert [] == PairTokenizer(tokenizer_file, 100).tokenize([])


@pytest.mark.parametrize("content", [None, "", "{}", "\x00"])
def test_a_missing_or_broken_file_is_an_engine_error(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(EngineError, match="not a readable tokenizer"):
        PairTokenizer(file, 100)


def test_a_tokenizer_without_special_tokens_is_joined_as_the_library_does(tmp_path: Path) -> None:
    own = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))  # noqa: S106  a token of another kind
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PairTokenizer(small_tokenizers.save(own, tmp_path), 100)
    [pairs] = tokenizer.tokenize([plan_of("a a", "b")])
    assert isinstance(pairs, TokenizedPairs)
    encoding = own.encode("a a", "b")
    assert (encoding.ids, encoding.type_ids) == (pairs.token_ids.tolist(), pairs.type_ids.tolist())


def test_a_tokenizer_that_knows_no_letters_is_refused(tmp_path: Path) -> None:
    own = Tokenizer(models.BPE({"x": 0}, []))
    with pytest.raises(EngineError, match="no pair template"):
        PairTokenizer(small_tokenizers.save(own, tmp_path), 100)
