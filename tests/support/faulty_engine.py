"""Engines that fail as a script says, one batch at a time or with the next one in line."""

from collections import Counter
from collections.abc import Callable
from itertools import count

import numpy as np

from worker.clock import ManualClock
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.fake import FakeEngine
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.flow import BatchFailed, BatchScored
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.pipeline.score_cache import ScoreCache
from worker.types import Batch, EngineInfo, PairRef, PairScores

FAULTS = ("fine", "fine", "fine", "raise", "memory", "nan", "shape", "broken")
MOST_CALLS = 2000


def batch_of(lengths: list[int], messages: list[int]) -> Batch:
    counts: Counter[int] = Counter()
    refs = []
    for message in messages:
        refs.append(PairRef(message, counts[message]))
        counts[message] += 1
    ids = np.concatenate([np.full(length, message) for length, message in zip(lengths, messages, strict=True)])
    ids = ids.astype(np.int32)
    return Batch(tuple(refs), ids, np.zeros_like(ids), np.array(lengths, np.int32))


class FaultyEngine:
    """Does what `fault` says of a call, given its number; `poison` messages break it and `most_tokens` fill it."""

    def __init__(self, script: list[str], poison: frozenset[int] = frozenset(), most_tokens: int = 10**9) -> None:
        self._inner, self._script, self._poison, self._most_tokens = FakeEngine(), script, poison, most_tokens
        self.calls = 0

    @property
    def info(self) -> EngineInfo:
        return self._inner.info

    def warm_up(self) -> None:
        self._misbehave()

    def score(self, batch: Batch) -> PairScores:
        fault = self._misbehave()
        if int(batch.lengths.max()) * len(batch.refs) > self._most_tokens:
            raise EngineOutOfMemoryError("full")
        if self._poison & {ref.message for ref in batch.refs}:
            raise ValueError("poison")
        scores = self._inner.score(batch)
        if fault == "nan":
            return PairScores(np.full_like(scores.logits, np.nan))
        return PairScores(scores.logits[:-1]) if fault == "shape" else scores

    def close(self) -> None:
        self._inner.close()

    def _misbehave(self) -> str:
        fault = self._script[self.calls] if self.calls < len(self._script) else "fine"
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise KeyboardInterrupt  # nothing that an engine may raise: it is called for ever
        if fault == "raise":
            raise RuntimeError("as scripted")
        if fault == "memory":
            raise EngineOutOfMemoryError("as scripted")
        if fault == "broken":
            raise EngineError("as scripted")
        return fault


class LineOfTwo(FaultyEngine):
    """Computes when it is waited for; fails at once too, and says how many batches it had at most."""

    can_overlap = True
    most_at_once = 0

    def __init__(self, script: list[str], poison: frozenset[int] = frozenset(), most_tokens: int = 10**9) -> None:
        super().__init__(script, poison, most_tokens)
        self._on_their_way: list[int] = []
        self.violations: list[str] = []
        """Not raised: whatever an engine raises is taken for a failure of its own."""
        self._numbers = count()

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        number = next(self._numbers)
        if number % 5 == 4:  # some faults are found when a batch is begun
            self._misbehave()
        self._on_their_way.append(number)
        self.most_at_once = max(self.most_at_once, len(self._on_their_way))

        def wait() -> PairScores:
            if number != self._on_their_way.pop(0):
                self.violations.append("not in the order in which they were begun")
            return FaultyEngine.score(self, batch)

        return wait

    def score(self, batch: Batch) -> PairScores:
        self._note_company()
        return super().score(batch)

    def warm_up(self) -> None:
        self._note_company()
        super().warm_up()

    def _note_company(self) -> None:
        if self._on_their_way:
            self.violations.append("something else is on its way")


def scorer_of(
    engine: LineOfTwo,
    cache: ScoreCache | None,
    clock: ManualClock | None = None,
    note_scored: Callable[[Batch, float], None] = lambda _batch, _seconds: None,
) -> tuple[RetryingScorer, list[BatchScored | BatchFailed]]:
    clock, emitted = clock or ManualClock(), list[BatchScored | BatchFailed]()
    heartbeats = Heartbeats(clock)
    heartbeats.register("engine", 60.0)
    parts = ScorerParts(
        engine,
        emitted.append,
        lambda _seconds: False,
        Metrics(),
        heartbeats,
        Readiness(),
        clock,
        60.0,
        cache,
        note_scored,
    )
    return RetryingScorer(parts), emitted
