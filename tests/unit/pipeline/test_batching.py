"""What batches cost when there is always enough to choose from."""

import numpy as np
import pytest

from tests.support.strategies import pairs_of
from worker.pipeline.batching import Batcher
from worker.pipeline.cutting import padded_tokens
from worker.pipeline.pacing import Pace

QUEUED_BATCHES = 16
HYPOTHESES = (7, 7, 8, 9, 9, 10, 12, 8)
TEXTS = 1500


@pytest.mark.parametrize("budget", [1024, 2048, 8192])
def test_at_saturation_less_than_a_twentieth_of_mixed_texts_is_padding_and_batches_are_full(budget: int) -> None:
    """Lengths as those of 1,800 texts of 30 test sets: half of them below 24 tokens, some ten times as long."""
    texts = np.minimum(np.random.default_rng(0).lognormal(np.log(24), 1.2, TEXTS).astype(int) + 1, 245)
    waiting = [pairs_of([length + hypothesis + 3 for hypothesis in HYPOTHESES]) for length in texts.tolist()]
    batcher, pace = Batcher(budget), Pace(budget, target_seconds=0.2)
    tokens, costs = 0, []
    for number, pairs in enumerate(waiting):
        batcher.add(number, pairs)
        while batcher.tokens > QUEUED_BATCHES * budget:
            batch = batcher.pop(pace.limit(batcher.tokens))
            assert batch is not None
            tokens += int(batch.lengths.sum())
            costs.append(padded_tokens(batch))
            pace.observe(costs[-1], 0.001 + costs[-1] * 5e-6)
    assert 1 - tokens / sum(costs) < 0.05
    assert np.mean(costs) > 0.7 * pace.limit(batcher.tokens).tokens
