"""Texts and hypotheses joined into pairs, for many messages at once: a few passes over arrays, none over messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from worker.errors import EngineError
from worker.types import Int32Array

_Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Where a tokenizer puts special tokens around a pair, as token ids and type ids (each int32 [n])."""

    prefix: Int32Array
    prefix_types: Int32Array
    middle: Int32Array
    middle_types: Int32Array
    suffix: Int32Array
    suffix_types: Int32Array
    premise_type: int
    hypothesis_type: int

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are neither premise nor hypothesis."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    @classmethod
    def learn(cls, tokenizer: Tokenizer) -> "PairTemplate":
        """The template, read off an encoded pair.

        Raises:
            EngineError: the tokenizer does not keep premise and hypothesis apart.
        """
        encoding = tokenizer.encode("a", "b")
        places = encoding.sequence_ids
        if 0 not in places or 1 not in places:
            message = "the tokenizer has no pair template: an NLI model needs one that encodes two texts"
            raise EngineError(message)
        ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
        a_start, a_end = places.index(0), len(places) - places[::-1].index(0)
        b_start, b_end = places.index(1), len(places) - places[::-1].index(1)
        return cls(
            ids[:a_start],
            types[:a_start],
            ids[a_end:b_start],
            types[a_end:b_start],
            ids[b_end:],
            types[b_end:],
            int(types[a_start]),
            int(types[b_start]),
        )


@dataclass(frozen=True, slots=True)
class Premises:
    """Texts as token ids, one after the other, without special tokens."""

    token_ids: Int32Array
    """int32 [sum of lengths]."""
    lengths: _Int64Array
    """int64 [texts]."""

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]]) -> "Premises":
        """Those of encoded texts."""
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return cls(np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum())), lengths)

    def split(self) -> list[Int32Array]:
        """Each text by itself."""
        ends = np.cumsum(self.lengths).tolist()
        return [self.token_ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@dataclass(frozen=True, slots=True)
class JoinedPairs:
    """The pairs of every text with every hypothesis: those of the first text first."""

    token_ids: Int32Array
    type_ids: Int32Array
    """Both int32 [sum of lengths]."""
    lengths: Int32Array
    """int32 [texts, hypotheses]."""
    kept: _Int64Array
    """int64 [texts, hypotheses]: how many tokens of the text are in the pair."""


def join(
    premises: Premises, hypotheses: Sequence[Int32Array], template: PairTemplate, max_pair_tokens: int
) -> JoinedPairs:
    """Each text with each hypothesis, as the model's own tokenizer would put them together.

    Where a pair is longer than `max_pair_tokens` its text is cut at the end; every hypothesis leaves room for some.
    """
    tails = [np.concatenate([template.middle, each, template.suffix]) for each in hypotheses]
    tail_types = [
        np.concatenate(
            [template.middle_types, np.full(len(each), template.hypothesis_type, np.int32), template.suffix_types]
        )
        for each in hypotheses
    ]
    tail_lengths = np.fromiter(map(len, tails), np.int64, len(tails))
    kept = np.minimum(premises.lengths[:, np.newaxis], max_pair_tokens - len(template.prefix) - tail_lengths)
    pool = np.concatenate([template.prefix, *tails, premises.token_ids])
    premise_types = np.full(len(premises.token_ids), template.premise_type, np.int32)
    pool_types = np.concatenate([template.prefix_types, *tail_types, premise_types])
    # A pair is three stretches of the pool: the prefix, the start of its text, all that follows the text.
    stretches = np.empty((*kept.shape, 3), np.int64)
    starts = np.zeros_like(stretches)
    stretches[..., 0] = len(template.prefix)
    stretches[..., 1] = kept
    stretches[..., 2] = tail_lengths
    first_premise = len(pool) - len(premises.token_ids)
    starts[..., 1] = (first_premise + np.cumsum(premises.lengths) - premises.lengths)[:, np.newaxis]
    starts[..., 2] = len(template.prefix) + np.cumsum(tail_lengths) - tail_lengths
    places = stretched(starts.reshape(-1), stretches.reshape(-1))
    return JoinedPairs(pool[places], pool_types[places], stretches.sum(axis=2).astype(np.int32), kept)


def stretched(starts: _Int64Array, lengths: _Int64Array) -> _Int64Array:
    """The indices of stretches that begin at `starts`, one stretch after the other."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum(), dtype=np.int64)
