import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import batch_of
from worker.engines.layout import checked_logits, filler_batch, pad, warm_up_batches
from worker.types import NliHead

_PAIRS = st.lists(st.lists(st.integers(1, 30_000), min_size=1, max_size=40), min_size=1, max_size=12)


@given(_PAIRS)
def test_padding_keeps_every_token_in_its_row_and_masks_the_rest(pairs: list[list[int]]) -> None:
    padded = pad(batch_of(*pairs), pad_id=7)

    longest = max(map(len, pairs))
    assert padded.input_ids.shape == padded.attention_mask.shape == padded.type_ids.shape == (len(pairs), longest)
    for row, pair in enumerate(pairs):
        rest = longest - len(pair)
        assert padded.input_ids[row].tolist() == pair + [7] * rest
        assert padded.attention_mask[row].tolist() == [1] * len(pair) + [0] * rest


def test_type_ids_follow_their_tokens() -> None:
    assert pad(batch_of([1, 2, 3, 4], [5, 6])).type_ids.tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]


def test_an_empty_batch_has_no_rows() -> None:
    assert pad(batch_of()).input_ids.shape == (0, 0)


def test_warming_up_covers_the_longest_pair_and_the_fullest_batch_within_the_budget() -> None:
    shapes = [(len(batch.lengths), int(batch.lengths.max())) for batch in warm_up_batches(512, 2048)]
    assert shapes == [(1, 8), (1, 512), (64, 32)]


def test_a_filler_batch_holds_so_many_pairs_of_so_many_tokens() -> None:
    assert pad(filler_batch(2, 3, token_id=9)).input_ids.tolist() == [[9, 9, 9], [9, 9, 9]]


@pytest.mark.parametrize("logits", [np.zeros((2, 3)), np.zeros((1, 2)), np.array([[0.0, np.nan], [0.0, 1.0]])])
def test_logits_of_another_shape_or_not_finite_are_refused(logits: np.typing.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="the model gave logits"):
        checked_logits(logits, 2, NliHead(2, 0, 1))
