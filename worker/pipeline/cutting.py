"""Batches cut in two: by message to find the one that breaks an engine, by tokens where the memory does not suffice."""

import numpy as np

from worker.types import Batch


def padded_tokens(batch: Batch) -> int:
    """What a padding engine pays for `batch`: its longest pair times its number of pairs."""
    return int(batch.lengths.max(initial=0)) * len(batch.refs)


def halve_messages(batch: Batch) -> list[Batch]:
    """`batch` in two, each with half of its messages; in one piece when all its pairs are of one message."""
    messages = list(dict.fromkeys(ref.message for ref in batch.refs))
    first = set(messages[: len(messages) // 2])
    rows: tuple[list[int], list[int]] = ([], [])
    for row, ref in enumerate(batch.refs):
        rows[ref.message not in first].append(row)
    return [batch.take(chosen) for chosen in rows if chosen]


def halve_tokens(batch: Batch) -> list[Batch]:
    """`batch` in two of about the same padded size, its longest pairs together; in one piece when it is one pair.

    Each has at most about half of the padded tokens, but for what one pair is long.
    """
    order = np.argsort(-batch.lengths, kind="stable").tolist()
    if len(order) < 2:  # noqa: PLR2004  two halves need two pairs
        return [batch]
    width = int(batch.lengths.max())
    left = max(1, min(len(order) - 1, padded_tokens(batch) // 2 // max(1, width)))
    return [batch.take(order[:left]), batch.take(order[left:])]
