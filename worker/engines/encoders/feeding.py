"""A batch as tensors in a layout."""

from typing import NamedTuple

import numpy as np

from worker.engines.encoders.arithmetic import Tensor
from worker.engines.encoders.layouts import Layout, Packed, Padded
from worker.engines.layout import pad
from worker.types import Batch


class Fed(NamedTuple):
    """What an encoder scores: ids and types int32, laid out as `layout` says."""

    layout: Layout
    ids: Tensor
    types: Tensor


def padded(batch: Batch, device: str, pad_id: int = 0, *, is_plain: bool = False) -> Fed:
    """The batch as a rectangle on `device`."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    rectangle = pad(batch, pad_id)
    ids, types, mask = (
        moved(torch.from_numpy(values.astype(np.int32)), device)
        for values in (rectangle.input_ids, rectangle.type_ids, rectangle.attention_mask)
    )
    return Fed(Padded(mask > 0, is_plain), ids, types)


def packed(batch: Batch, device: str, *, has_kernel: bool) -> Fed:
    """The batch's tokens one after the other on `device`; `has_kernel` as in `Packed`."""
    import torch  # noqa: PLC0415  # as above

    lengths = batch.lengths.astype(np.int32)
    ends = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    pair = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    place = np.arange(len(batch.token_ids), dtype=np.int32) - ends[pair]
    parts = (batch.token_ids, batch.type_ids, place, pair, ends, ends[:-1])
    # One copy for all: each would cost more to start than to do.
    whole = torch.from_numpy(np.concatenate([part.astype(np.int32, copy=False) for part in parts]))
    ids, types, places, pairs, borders, first = moved(whole, device).split([len(part) for part in parts])
    layout = Packed(places, pairs, borders, first, int(lengths.max(initial=0)), has_kernel)
    return Fed(layout, ids, types)


def moved(tensor: Tensor, device: str) -> Tensor:
    """The tensor on `device`; for a GPU the copy is queued behind its work, and nobody waits for it.

    Out of pinned memory: a copy out of any other waits until the GPU has done all that was queued.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor.to(device)
