"""How a ragged batch becomes the rectangle a device wants, and what must hold of what comes back."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.types import Batch, Float32Array, NliHead, PairRef

Int64Array = npt.NDArray[np.int64]


class PaddedBatch(NamedTuple):
    """A batch padded on the right: each int64 [pairs, longest]."""

    input_ids: Int64Array
    attention_mask: Int64Array
    type_ids: Int64Array


def pad(batch: Batch, pad_id: int = 0) -> PaddedBatch:
    """The batch as a rectangle as wide as its longest pair; `pad_id` fills the rest."""
    longest = int(batch.lengths.max(initial=0))
    is_token = np.arange(longest) < batch.lengths[:, None]
    input_ids = np.full(is_token.shape, pad_id, dtype=np.int64)
    input_ids[is_token] = batch.token_ids
    type_ids = np.zeros(is_token.shape, dtype=np.int64)
    type_ids[is_token] = batch.type_ids
    return PaddedBatch(input_ids, is_token.astype(np.int64), type_ids)


def filler_batch(pairs: int, tokens: int, token_id: int = 0) -> Batch:
    """A batch of `pairs` equal pairs of `tokens` tokens each: for warming up."""
    return Batch(
        refs=tuple(PairRef(0, pair) for pair in range(pairs)),
        token_ids=np.full(pairs * tokens, token_id, dtype=np.int32),
        type_ids=np.zeros(pairs * tokens, dtype=np.int32),
        lengths=np.full(pairs, tokens, dtype=np.int32),
    )


def warm_up_batches(max_pair_tokens: int, token_budget: int, token_id: int = 0) -> tuple[Batch, ...]:
    """The smallest batch, the longest pair, and the fullest batch of short pairs."""
    short = min(32, max_pair_tokens)
    return (
        filler_batch(1, min(8, max_pair_tokens), token_id),
        filler_batch(1, max_pair_tokens, token_id),
        filler_batch(max(1, token_budget // short), short, token_id),
    )


def checked_logits(logits: npt.NDArray[np.floating], pairs: int, head: NliHead) -> Float32Array:
    """The logits as float32 [pairs, classes].

    Raises:
        ValueError: another shape than the batch and the head demand, or a value that is not finite.
    """
    if logits.shape != (pairs, head.classes):
        message = f"the model gave logits of shape {logits.shape} for {pairs} pairs and {head.classes} classes"
        raise ValueError(message)
    if not np.isfinite(logits).all():
        message = f"the model gave logits that are not finite for {pairs} pairs"
        raise ValueError(message)
    return np.ascontiguousarray(logits, dtype=np.float32)
