"""Hypothesis strategies for the values that pass between the steps."""

import numpy as np
from hypothesis import strategies as st

from worker.types import Record, TokenizedPairs, TokenSpan


def pairs_of(lengths: list[int], first_token: int = 0) -> TokenizedPairs:
    """Pairs of these lengths whose tokens are numbered through, so that each token can be told from all others."""
    total = sum(lengths)
    return TokenizedPairs(
        token_ids=np.arange(first_token, first_token + total, dtype=np.int32),
        type_ids=np.zeros(total, np.int32),
        lengths=np.array(lengths, np.int32),
        text=TokenSpan(total, 0),
    )


def record(topic: str = "in", partition: int = 0, offset: int = 0, epoch: int = 1) -> Record:
    """A record at a position."""
    return Record(topic=topic, partition=partition, offset=offset, epoch=epoch, key=None, value=b"{}")


pair_lengths = st.lists(st.integers(1, 90), min_size=1, max_size=12)
messages = st.lists(pair_lengths, min_size=1, max_size=40)
