import pytest

from worker.bench.ceiling import ModelShape, model_shape
from worker.bench.tokenised import padding_ratio, pair_set, schema_of
from worker.engines.artifact import open_folder
from worker.engines.source import BUNDLED_FOLDER
from worker.pipeline.tokenization import PairTokenizer

TEXTS = ["one", "one two three four five six seven eight nine ten " * 6, "a few words more", "x y"]


@pytest.fixture(scope="module")
def tokenizer() -> PairTokenizer:
    return PairTokenizer(BUNDLED_FOLDER / "tokenizer.json", 64)


def test_every_pair_of_every_text_is_there_once_shortest_first(tokenizer: PairTokenizer) -> None:
    pairs = pair_set(tokenizer, TEXTS, schema_of("s", ("good", "bad")))
    lengths = [int(single.lengths[0]) for single in pairs.singles]
    assert sorted(lengths) == lengths
    assert {(n, p) for n in range(4) for p in range(2)} == {tuple(single.refs[0]) for single in pairs.singles}
    assert pairs.tokens == sum(lengths)
    assert 64 == max(lengths)


@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_batches_keep_the_budget_and_lose_nothing(tokenizer: PairTokenizer, budget: int) -> None:
    pairs = pair_set(tokenizer, TEXTS, schema_of("s", ("good", "bad")))
    batches = pairs.batches(budget)
    assert all(len(b.refs) == 1 or len(b.refs) * int(b.lengths.max()) <= budget for b in batches)
    assert [single.refs[0] for single in pairs.singles] == [ref for batch in batches for ref in batch.refs]


def test_the_tokens_of_a_message_are_those_of_all_its_pairs(tokenizer: PairTokenizer) -> None:
    pairs = pair_set(tokenizer, TEXTS, schema_of("s", ("good", "bad")))
    each = [pair_set(tokenizer, [text], schema_of("s", ("good", "bad"))).tokens for text in TEXTS]
    assert each == pairs.tokens_of_messages()


def test_padding_is_the_share_of_the_rectangle_that_is_no_token(tokenizer: PairTokenizer) -> None:
    pairs = pair_set(tokenizer, TEXTS, schema_of("s", ("good",)))
    assert 0.0 == padding_ratio(pairs.batches(1))
    [whole] = pairs.batches(10_000)
    assert padding_ratio([whole]) == pytest.approx(1 - pairs.tokens / (4 * 64))
    assert 0.0 == padding_ratio([])


def test_the_operations_of_a_pair_follow_from_the_shape_of_the_model() -> None:
    shape = model_shape(open_folder(BUNDLED_FOLDER))
    assert ModelShape(layers=6, hidden=384, intermediate=1536) == shape
    assert 1.40e9 == pytest.approx(shape.flops(64), rel=0.01)
    assert 2.87e9 == pytest.approx(shape.flops(128), rel=0.01)
