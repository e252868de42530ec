import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import batch_of
from worker.engines.profiles import (
    BUCKETS,
    Profile,
    Shape,
    choose_profiles,
    cut,
    exact_shape,
    inputs,
    rounded_shape,
)

LAYOUTS = st.sampled_from(["padded", "lengths", "packed"])
LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=120)


def test_padded_profiles_hold_the_budget_at_every_length_and_end_at_the_longest_pair() -> None:
    profiles = choose_profiles("padded", 300, 4096)
    assert [profile.tokens for profile in profiles] == [32, 64, 96, 128, 192, 256, 300]
    assert all(profile.tokens * profile.pairs <= 4096 for profile in profiles)
    assert choose_profiles("padded", 512, 100)[-1] == Profile(512, 1)
    assert [profile.tokens for profile in choose_profiles("lengths", 512, 4096, (64, 700))] == [64, 512]
    assert max(BUCKETS) == 512


def test_packed_profiles_hold_the_budget_and_the_longest_pair() -> None:
    small, large = choose_profiles("packed", 512, 32_768)
    assert (small.tokens, large.tokens) == (4096, 32_768)
    assert choose_profiles("packed", 512, 100) == (Profile(512, 32),)


@given(LAYOUTS, LENGTHS)
def test_every_row_is_in_one_chunk_that_fits_its_profile(layout: str, lengths: list[int]) -> None:
    profiles = choose_profiles(layout, 512, 2048)
    batch = batch_of(*[list(range(5, 5 + length)) for length in lengths])
    chunks = cut(batch, layout, profiles)
    assert sorted(row for chunk in chunks for row in chunk.rows) == list(range(len(lengths)))
    for chunk in chunks:
        profile = profiles[chunk.profile]
        mine = [lengths[row] for row in chunk.rows]
        assert len(mine) <= profile.pairs
        assert (sum(mine) if layout == "packed" else max(mine)) <= profile.tokens


@given(LAYOUTS, LENGTHS)
def test_what_is_fed_is_the_pairs_and_filling_beside_them(layout: str, lengths: list[int]) -> None:
    profiles = choose_profiles(layout, 512, 1 << 16)
    profile = profiles[-1]
    batch = batch_of(*[list(range(5, 5 + length)) for length in lengths])
    if layout == "packed" and len(lengths) > profile.pairs:
        return
    for shape in (exact_shape(batch, layout, profile), rounded_shape(batch, layout, profile)):
        assert shape.pairs <= profile.pairs
        assert shape.tokens <= profile.tokens
        fed = inputs(batch, layout, shape, pad_id=3)
        assert {values.dtype.name for values in fed.values()} == {"int32"}
        for row, length in enumerate(lengths):
            start = int(fed["cumulative_lengths"][row]) if layout == "packed" else 0
            pair = slice(start, start + length)
            ids, places = (
                values if layout == "packed" else values[row] for values in (fed["input_ids"], fed["position_ids"])
            )
            assert ids[pair].tolist() == list(range(5, 5 + length))
            assert places[pair].tolist() == list(range(length))
            if layout == "packed":
                assert (fed["cumulative_lengths"][row + 1], fed["first_tokens"][row]) == (start + length, start)
            else:
                assert fed["lengths"][row] == length
                assert (fed["input_ids"][row, length:] == 3).all()


def test_filling_up_never_makes_a_pair_without_a_token_where_that_would_not_be_a_number() -> None:
    fed = inputs(batch_of([5, 6]), "padded", Shape(4, 8), pad_id=0)
    assert fed["lengths"].tolist() == [2, 1, 1, 1]
    packed = inputs(batch_of([5, 6]), "packed", Shape(4, 8), pad_id=0)
    assert packed["cumulative_lengths"].tolist() == [0, 2, 2, 2, 2]
    assert packed["first_tokens"].tolist() == [0, 0, 0, 0]


def test_few_shapes_are_recorded_however_many_batches_there_are() -> None:
    profile = Profile(128, 512)
    shapes = {rounded_shape(batch_of(*[[5] * 9] * count), "padded", profile) for count in range(1, 513, 3)}
    assert len(shapes) <= 10


def test_a_few_short_pairs_go_with_longer_ones_rather_than_alone() -> None:
    profiles = choose_profiles("padded", 512, 4096)
    batch = batch_of([5] * 20, *[[5] * 60] * 8)
    assert len(cut(batch, "padded", profiles)) == 1


def test_a_pair_that_is_too_long_says_how_long() -> None:
    with pytest.raises(ValueError, match="a pair has 40 tokens, and the engine takes 32"):
        cut(batch_of([5] * 40), "padded", (Profile(32, 4),))


@given(LENGTHS, st.randoms(use_true_random=False))
def test_rows_of_a_batch_are_its_pairs_in_the_order_asked_for(
    lengths: list[int], random: "np.random.Generator"
) -> None:
    batch = batch_of(*[[index + 5] * length for index, length in enumerate(lengths)])
    order = list(range(len(lengths)))
    random.shuffle(order)
    part = batch.take(order)
    assert part.lengths.tolist() == [lengths[row] for row in order]
    assert part.token_ids.tolist() == [row + 5 for row in order for _ in range(lengths[row])]
