"""Which shapes a compiled engine is built for, and how a batch is cut into them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.types import Batch, Int32Array

LAYOUTS: Final = ("padded", "lengths", "packed")
"""Padded with a mask; padded with the lengths given to the attention; packed, with no filling at all."""
BUCKETS: Final = (32, 64, 96, 128, 192, 256, 384, 512)
"""Lengths that pairs are padded to: with these, texts of mixed lengths are 10 to 15 % filling."""
_LAUNCH_TOKENS: Final = 512
"""Filling that is cheaper than one more run of the engine."""
_LEAST_PACKED_TOKENS: Final = 512
_PACKED_TOKENS_PER_PAIR: Final = 16
"""No real pair is shorter: how many pairs a packed profile of so many tokens has to take."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One range of shapes: when padded up to `pairs` pairs of `tokens` tokens, packed up to `tokens` tokens in all."""

    tokens: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of a batch that run together in one profile."""

    profile: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """The size that a chunk is filled up to."""

    pairs: int
    tokens: int
    """Of each pair when padded, of all when packed."""


def choose_profiles(layout: str, longest: int, token_budget: int, buckets: Sequence[int] = ()) -> tuple[Profile, ...]:
    """The profiles for pairs of up to `longest` tokens and batches of up to `token_budget`, smallest first."""
    if layout == "packed":
        most = max(token_budget, longest)
        sizes = sorted({most, max(most // 8, longest, _LEAST_PACKED_TOKENS)})
        return tuple(Profile(size, max(1, size // _PACKED_TOKENS_PER_PAIR)) for size in sizes if size <= most)
    lengths = sorted({min(bucket, longest) for bucket in (*(buckets or BUCKETS), longest)})
    return tuple(Profile(length, max(1, token_budget // length)) for length in lengths)


def cut(batch: Batch, layout: str, profiles: Sequence[Profile]) -> list[Chunk]:
    """The batch's rows in chunks that fit the profiles, each row in one; the most work first.

    Raises:
        ValueError: a pair is longer than any profile.
    """
    lengths = batch.lengths
    longest = profiles[-1].tokens
    if lengths.size and int(lengths.max()) > longest:
        message = f"a pair has {int(lengths.max())} tokens, and the engine takes {longest}"
        raise ValueError(message)
    chunks = list(_cut_packed(lengths, profiles) if layout == "packed" else _cut_padded(lengths, profiles))
    return sorted(chunks, key=lambda chunk: -sum(int(lengths[row]) for row in chunk.rows))


def _cut_padded(lengths: Int32Array, profiles: Sequence[Profile]) -> Iterator[Chunk]:
    order = np.argsort(lengths, kind="stable").tolist()
    waiting: list[int] = []
    for index, profile in enumerate(profiles):
        while order and lengths[order[0]] <= profile.tokens:
            waiting.append(order.pop(0))
        while len(waiting) >= profile.pairs:
            yield Chunk(index, tuple(waiting[: profile.pairs]))
            del waiting[: profile.pairs]
        if waiting and not _may_wait(waiting, index, profiles, has_more=bool(order)):
            yield Chunk(index, tuple(waiting))
            waiting = []


def _may_wait(waiting: list[int], index: int, profiles: Sequence[Profile], *, has_more: bool) -> bool:
    """Whether the rest of a bucket is cheaper among the longer pairs of the next one."""
    if not has_more or index + 1 == len(profiles):
        return False
    following = profiles[index + 1]
    more = len(waiting) * (following.tokens - profiles[index].tokens)
    return more <= _LAUNCH_TOKENS and len(waiting) < following.pairs


def _cut_packed(lengths: Int32Array, profiles: Sequence[Profile]) -> Iterator[Chunk]:
    rows: list[int] = []
    tokens = 0
    largest = profiles[-1]
    for row, length in enumerate(lengths.tolist()):
        if rows and (tokens + length > largest.tokens or len(rows) == largest.pairs):
            yield Chunk(_smallest(profiles, tokens, len(rows)), tuple(rows))
            rows, tokens = [], 0
        rows.append(row)
        tokens += length
    if rows:
        yield Chunk(_smallest(profiles, tokens, len(rows)), tuple(rows))


def _smallest(profiles: Sequence[Profile], tokens: int, pairs: int) -> int:
    return next(i for i, profile in enumerate(profiles) if tokens <= profile.tokens and pairs <= profile.pairs)


def exact_shape(batch: Batch, layout: str, profile: Profile) -> Shape:
    """The shape of a chunk with no pair more than it has."""
    packed = int(batch.lengths.sum())
    return Shape(len(batch.lengths), packed if layout == "packed" else profile.tokens)


def rounded_shape(batch: Batch, layout: str, profile: Profile) -> Shape:
    """The next of the few shapes for which launches are recorded: pairs a power of two, packed tokens steps apart."""
    pairs = min(_power_of_two(len(batch.lengths)), profile.pairs)
    if layout != "packed":
        return Shape(pairs, profile.tokens)
    tokens = int(batch.lengths.sum())
    step = max(64, _power_of_two(tokens) // 8)
    return Shape(pairs, min(-(-tokens // step) * step, profile.tokens))


def inputs(batch: Batch, layout: str, shape: Shape, pad_id: int) -> dict[str, Int32Array]:
    """Every tensor a graph of `layout` may ask for, by name, filled up to `shape`."""
    return _packed_inputs(batch, shape, pad_id) if layout == "packed" else _padded_inputs(batch, shape, pad_id)


def _padded_inputs(batch: Batch, shape: Shape, pad_id: int) -> dict[str, Int32Array]:
    # A pair that only fills up is one token long: attention over no key at all would not be a number.
    lengths = np.ones(shape.pairs, dtype=np.int32)
    lengths[: len(batch.lengths)] = batch.lengths
    places = np.arange(shape.tokens, dtype=np.int32)
    is_token = places < np.where(np.arange(shape.pairs) < len(batch.lengths), lengths, 0)[:, None]
    ids = np.full((shape.pairs, shape.tokens), pad_id, dtype=np.int32)
    types = np.zeros((shape.pairs, shape.tokens), dtype=np.int32)
    ids[is_token] = batch.token_ids
    types[is_token] = batch.type_ids
    # Every row its own, as the graph's input is: the same places over and over.
    position_ids = np.ascontiguousarray(np.broadcast_to(places, ids.shape))
    return {"input_ids": ids, "token_type_ids": types, "position_ids": position_ids, "lengths": lengths}


def _packed_inputs(batch: Batch, shape: Shape, pad_id: int) -> dict[str, Int32Array]:
    live, pairs = len(batch.token_ids), len(batch.lengths)
    ends = np.full(shape.pairs + 1, live, dtype=np.int32)
    ends[0] = 0
    np.cumsum(batch.lengths, out=ends[1 : pairs + 1])
    ids = np.full(shape.tokens, pad_id, dtype=np.int32)
    types = np.zeros(shape.tokens, dtype=np.int32)
    places = np.zeros(shape.tokens, dtype=np.int32)
    ids[:live], types[:live] = batch.token_ids, batch.type_ids
    places[:live] = np.arange(live, dtype=np.int32) - np.repeat(ends[:pairs], batch.lengths)
    # Pairs that only fill up have no tokens; what is read in their place is thrown away.
    first = np.zeros(shape.pairs, dtype=np.int32)
    first[:pairs] = ends[:pairs]
    return {
        "input_ids": ids,
        "token_type_ids": types,
        "position_ids": places,
        "cumulative_lengths": ends,
        "first_tokens": first,
    }


def _power_of_two(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
