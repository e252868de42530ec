"""How large the next batch may be: what the engine takes is learned, what a record may wait for others is given.

An engine takes a + b · tokens seconds for a batch, tokens counted with padding. A record that arrives waits for the
batch that is running, for its own, then for its transaction: a quarter, a quarter and a half of the latency target.
(Where so much waits that the next batch is begun early, a record may wait for that one, too: the queue decides there.)
Where the queue alone takes longer than that, its time is what is shared out: small batches would make nothing sooner
there, only everything dearer. A batch is never held back to fill up: what an idle engine scores at once takes nothing
from what comes later.
Pure: seconds are handed in, there is no clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from worker.pipeline.batching import BatchLimit

BATCH_SHARE = 0.25
"""Of the latency target, or of the time that the queue takes where that is longer, for one batch."""
LEAST_EFFICIENCY = 0.5
"""A batch is never cut so small that the engine spends less than this share of its time on tokens: where the target
cannot be held it is missed by a little rather than by a queue that grows for ever."""
OBSERVED_BATCHES = 32
"""496 lines through two of them: numpy keeps Python's lock for up to 500 numbers, so a fit disturbs no thread."""
FIT_EVERY = 8
FEWEST_OBSERVED = 8
LEAST_WAITS_BATCHES = 4
MOST_WAITS_BATCHES = 64
"""At saturation, with a queue of 16 batches of mixed texts, batches are 83 % full and 2.4 % of them padding; with 16 in
its place a half and 2.8 % (2026-11-21, 1,800 texts of 30 test sets, 8 labels, 2,048 tokens)."""
DEPTHS_WAITED = 4
"""A pair is passed over for at most this many times the depth of the queue, where that is longer than the target."""


@dataclass(frozen=True, slots=True)
class EngineCost:
    """What a batch takes."""

    fixed_seconds: float
    seconds_per_token: float

    def seconds(self, tokens: int) -> float:
        """A batch of so many tokens, padding included."""
        return self.fixed_seconds + self.seconds_per_token * tokens

    def tokens_within(self, seconds: float) -> int:
        """The largest batch that takes no longer, fixed costs allowed for; 0 where none does."""
        return max(0, int((seconds - self.fixed_seconds) / self.seconds_per_token))


def fitted_cost(tokens: Sequence[int], seconds: Sequence[float]) -> EngineCost | None:
    """The line through most of what was observed, whatever the rest is (Theil 1950, Sen 1968); None where it has none.

    Batches of one size tell no slope: then all of their time is taken to be for tokens.
    """
    if not tokens:
        return None
    x, y = np.array(tokens, np.float64), np.array(seconds, np.float64)
    first, second = _pairs_of(len(x))
    apart = np.abs(x[first] - x[second]) > 0.1 * x.max()
    slope = 0.0
    if np.count_nonzero(apart) >= len(x):  # else one odd batch among equal ones would draw the line
        first, second = first[apart], second[apart]
        slope = float(np.median((y[first] - y[second]) / (x[first] - x[second])))
    if slope > 0:
        fixed = float(np.median(y - slope * x))
        if fixed >= 0:
            return EngineCost(fixed, slope)
    slope = float(np.median(y / x))
    return EngineCost(0.0, slope) if slope > 0 else None


@lru_cache(maxsize=OBSERVED_BATCHES)
def _pairs_of(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Each two of so many, the places of the first and of the second."""
    first, second = np.triu_indices(count, 1)
    return first, second


class Pace:
    """The limit of each batch, from what the last ones took. Not thread-safe: whoever cuts batches owns it."""

    def __init__(self, token_budget: int, target_seconds: float) -> None:
        """No batch costs more than `token_budget`; within it the latency target decides."""
        self._token_budget = token_budget
        self._target_seconds = target_seconds
        self._tokens: deque[int] = deque(maxlen=OBSERVED_BATCHES)
        self._seconds: deque[float] = deque(maxlen=OBSERVED_BATCHES)
        self._observed = 0
        self._cost: EngineCost | None = None

    @property
    def cost(self) -> EngineCost | None:
        """What was learned; None before enough batches were seen."""
        return self._cost

    def observe(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens, padding included, took so long."""
        self._tokens.append(tokens)
        self._seconds.append(seconds)
        self._observed += 1
        if self._observed >= FEWEST_OBSERVED and self._observed % FIT_EVERY == 0:
            self._cost = fitted_cost(self._tokens, self._seconds) or self._cost

    def limit(self, queued_tokens: int) -> BatchLimit:
        """What holds for the next batch while so many tokens wait."""
        cost = self._cost
        if cost is None:
            return BatchLimit(self._token_budget)
        worth_while = int(LEAST_EFFICIENCY / (1 - LEAST_EFFICIENCY) * cost.fixed_seconds / cost.seconds_per_token)
        bound_to_wait = max(self._target_seconds, cost.seconds_per_token * queued_tokens)
        within = max(1, worth_while, cost.tokens_within(BATCH_SHARE * bound_to_wait))
        tokens = min(self._token_budget, within)
        # Whoever waits longer than the whole queue could be worked off in is being passed over.
        in_time = BATCH_SHARE * self._target_seconds / cost.seconds(tokens)
        waits = max(in_time, DEPTHS_WAITED * queued_tokens / tokens)
        return BatchLimit(tokens, int(min(MOST_WAITS_BATCHES, max(LEAST_WAITS_BATCHES, waits))))
