"""Windows of a long text: every token is seen, neighbours share what they should, and no window is cut."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import small_tokenizers
from worker.errors import ErrorCode, MessageError
from worker.labels.schema import parse_schema
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.tokenization import PairTokenizer, window_starts
from worker.types import JsonValue, Request, TokenizedPairs, TokenSpan

SPECIAL_TOKENS = 3
MOST = SPECIAL_TOKENS + 12


@given(st.integers(0, 300), st.integers(1, 40), st.integers(0, 50))
def test_windows_cover_every_token_and_share_at_least_the_overlap(tokens: int, size: int, overlap: int) -> None:
    starts = window_starts(tokens, size, overlap)
    assert set(range(tokens)) <= {place for start in starts for place in range(start, start + size)}
    if tokens <= size:
        assert [0] == starts
        return
    assert tokens - size == starts[-1]
    shared = [before + size - after for before, after in pairwise(starts)]
    told = min(overlap, size - 1)
    assert [told] * (len(shared) - 1) == shared[:-1]
    assert told <= shared[-1] < size


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PairTokenizer:
    return PairTokenizer(small_tokenizers.save(small_tokenizers.bert_style(), tmp_path_factory.mktemp("bert")), MOST)


def plan_of(text: str, hypotheses: list[str], max_pairs: int = 100, **long_text: JsonValue) -> PairPlan:
    labels: list[JsonValue] = [{"name": str(number), "hypothesis": each} for number, each in enumerate(hypotheses)]
    document: JsonValue = {
        "name": "a",
        "version": 1,
        "labels": labels,
        "long_text": {"strategy": "windows", **long_text},
    }
    return plan_pairs(Request("id", text), parse_schema(document, "test"), max_pairs)


def pairs_of(tokenizer: PairTokenizer, plan: PairPlan) -> TokenizedPairs:
    [pairs] = tokenizer.tokenize([plan])
    assert isinstance(pairs, TokenizedPairs)
    return pairs


def premises(pairs: TokenizedPairs, hypotheses: list[int]) -> list[list[int]]:
    """The text of each pair; `hypotheses` are their lengths in tokens, in the order of the plan."""
    ends = np.cumsum(pairs.lengths)
    of_pairs = hypotheses * (len(pairs.lengths) // len(hypotheses))
    return [
        pairs.token_ids[end - length + 1 : end - hypothesis - 2].tolist()
        for end, length, hypothesis in zip(ends, pairs.lengths, of_pairs, strict=True)
    ]


letters = st.lists(st.sampled_from("abcdefghijklmnop"), min_size=1, max_size=60)


@given(letters, st.integers(1, 4), st.integers(0, 14))
def test_every_hypothesis_meets_every_window_and_no_token_is_dropped(
    tokenizer: PairTokenizer, text: list[str], longest: int, overlap: int
) -> None:
    hypotheses = ["x", "x " * longest + "y"]
    pairs = pairs_of(tokenizer, plan_of(" ".join(text), hypotheses, overlap_tokens=overlap, aggregate="mean"))
    whole = pairs_of(tokenizer, plan_of(" ".join(text), ["x"]))
    size = MOST - SPECIAL_TOKENS - longest - 1
    starts = window_starts(len(text), size, overlap)
    assert TokenSpan(len(text), 0, len(starts)) == pairs.text
    seen = premises(pairs, [1, longest + 1])
    assert seen[::2] == seen[1::2]
    assert len(starts) == len(seen[::2])
    assert all(len(window) == min(size, len(text)) for window in seen)
    token_of = dict(zip(starts, seen[::2], strict=True))
    assert int(pairs.lengths.max()) <= MOST
    if whole.text.windows == 1:
        [uncut] = premises(whole, [1])
        assert [uncut[start : start + size] for start in starts] == [token_of[start] for start in starts]


def test_a_text_that_fits_is_one_window_and_the_pairs_are_those_of_a_text_that_is_cut(tokenizer: PairTokenizer) -> None:
    windows = pairs_of(tokenizer, plan_of("a b c", ["x", "x y"]))
    cut = pairs_of(tokenizer, plan_of_cut("a b c", ["x", "x y"]))
    assert cut.token_ids.tolist() == windows.token_ids.tolist()
    assert TokenSpan(3, 0, 1) == windows.text


def plan_of_cut(text: str, hypotheses: list[str]) -> PairPlan:
    labels: list[JsonValue] = [{"name": str(number), "hypothesis": each} for number, each in enumerate(hypotheses)]
    return plan_pairs(Request("id", text), parse_schema({"name": "a", "version": 1, "labels": labels}, "test"), 100)


def test_pairs_of_all_windows_count_towards_the_limit(tokenizer: PairTokenizer) -> None:
    # 25 tokens in windows of 11 that share 4: 3 windows, times 2 hypotheses.
    text = " ".join("abcdefghijklmnopqrstuvwxy")
    assert 6 == len(pairs_of(tokenizer, plan_of(text, ["x", "y"], 6, overlap_tokens=4)).lengths)
    [refused] = tokenizer.tokenize([plan_of(text, ["x", "y"], 5, overlap_tokens=4)])
    assert isinstance(refused, MessageError)
    assert ErrorCode.TOO_MANY_PAIRS is refused.code
    assert "needs 6 pairs for 3 windows, the limit `limits.pairs` is 5" == refused.reason


def test_windows_are_those_of_the_longest_hypothesis_whatever_the_tokenizer(tmp_path: Path) -> None:
    file = small_tokenizers.save(small_tokenizers.roberta_style(), tmp_path)
    pairs = pairs_of(PairTokenizer(file, 24), plan_of("late " * 40, ["the", "the app is late"], overlap_tokens=2))
    assert pairs.text.windows * 2 == len(pairs.lengths)
    assert 0 == pairs.text.tokens_dropped
