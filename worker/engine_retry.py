"""The engine thread's patience: an engine that fails for everything is tried again for a while, then given up."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.clock import Clock
from worker.engine_line import Begun, EngineLine
from worker.engines.base import Engine
from worker.errors import EngineError
from worker.flow import BatchFailed, BatchScored
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.pipeline.cutting import padded_tokens
from worker.pipeline.score_cache import Recall, ScoreCache
from worker.scoring import BatchWork
from worker.token_allowance import TokenAllowance
from worker.types import Batch, PairScores

BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
READINESS = "engine"
HEARTBEAT = "engine"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ScorerParts:
    """What scoring works with."""

    engine: Engine
    emit: Callable[[BatchScored | BatchFailed], None]
    """Given every outcome as soon as it is there."""
    wait_for_stop: Callable[[float], bool]
    """Blocks for so many seconds; true, at once, when the worker is to stop."""
    metrics: Metrics
    heartbeats: Heartbeats
    readiness: Readiness
    clock: Clock
    retry_seconds: float
    """How long an engine may fail for everything before the worker ends."""
    cache: ScoreCache | None = None
    """Scores of pairs that came before; None: every pair is scored."""
    note_scored: Callable[[Batch, float], None] = lambda _batch, _seconds: None
    """Told how many seconds each batch took that the engine scored whole."""


@dataclass(frozen=True, slots=True)
class Started:
    """A batch that the engine may be busy with."""

    batch: Batch
    recall: Recall | None
    """What is known of its pairs; None: nothing is kept."""
    unknown: Batch | None
    """What of it the engine is asked for."""
    begun: Begun | None
    """That, on its way."""
    at_seconds: float


class RetryingScorer:
    """Scores batches for as long as the engine works, and waits for it while it does not. One thread uses it."""

    def __init__(self, parts: ScorerParts) -> None:
        """The memory is taken to suffice until it has run out."""
        self._parts = parts
        self._engine = EngineLine(parts.engine)
        self._allowance = TokenAllowance()
        self._attempts = 0
        self._failing_since: float | None = None
        self._reason = ""
        self._busy_until_seconds = 0.0

    @property
    def can_overlap(self) -> bool:
        """Whether the next batch may be started now, before the one that is on its way is finished."""
        return self._engine.can_overlap and self._allowance.tokens is None and self._failing_since is None

    def score(self, batch: Batch) -> None:
        """Emit what becomes of every pair of `batch`. Blocks.

        Raises:
            EngineError: the engine has failed for everything for too long, or fails while the worker is to stop. What
                was not emitted is unfinished.
        """
        self.finish(self.start(batch))

    def start(self, batch: Batch, running: Started | None = None) -> Started:
        """Emit what is known of `batch`, and give the engine the rest of it, behind what is `running`."""
        parts, recall = self._parts, None
        unknown: Batch | None = batch
        if parts.cache is not None:
            recall = Recall(parts.cache, batch, running.recall if running is not None else None)
            self._emit_recalled(recall.known)
            unknown = recall.unknown
        at_seconds, begun = parts.clock.monotonic(), None
        if unknown is not None and self.can_overlap:
            with parts.heartbeats.busy("score"):
                begun = self._engine.begin(unknown)
        return Started(batch, recall, unknown, begun, at_seconds)

    def finish(self, started: Started) -> None:
        """Emit what the engine makes of a batch that was started, those before it being finished. Blocks.

        Raises:
            EngineError: as `score`.
        """
        recall, unknown = started.recall, started.unknown
        if recall is not None:
            self._emit_recalled(recall.learnt())
        if unknown is not None:
            self._score(unknown, recall, started)
        if recall is not None and (left := recall.left()) is not None:
            self._score(left, None, None)
        if self._parts.cache is not None:
            self._parts.metrics.score_cache_bytes.set(self._parts.cache.held_bytes)

    def _emit_recalled(self, answer: tuple[Batch, PairScores] | None) -> None:
        if answer is not None:
            self._parts.metrics.pairs_cached.inc(answer[0].asked)
            self._parts.emit(BatchScored(*answer, is_cached=True))

    def _score(self, batch: Batch, recall: Recall | None, started: Started | None) -> None:
        begun = started.begun if started is not None else None
        work = BatchWork(self._engine, batch, self._allowance, self._note_failure, begun)
        # Where another batch's failure had this one waited for, nobody knows how long it took.
        is_timed = begun is None or not begun.is_settled
        while not self._attempt(work, recall, batch, self._since(started), is_timed=is_timed):
            # Only here is the error gone whose frames may hold the memory that the engine needs.
            seconds, started = BACK_OFF_SECONDS[min(self._attempts, len(BACK_OFF_SECONDS) - 1)], None
            self._attempts += 1
            if self._parts.wait_for_stop(seconds):
                raise EngineError(f"{self._reason}; the worker was to stop meanwhile")
        self._observe(batch)

    def _since(self, started: Started | None) -> float:
        """From when on the engine has had nothing but what was `started`, or what is asked now."""
        if started is not None and started.begun is not None:
            return max(started.at_seconds, self._busy_until_seconds)
        with self._parts.heartbeats.busy("score"):
            self._engine.settle()
        return self._parts.clock.monotonic()

    def _attempt(self, work: BatchWork, recall: Recall | None, batch: Batch, began: float, *, is_timed: bool) -> bool:
        """Score what is left of `work`, on `batch`; false when the engine is broken and may be tried again."""
        parts = self._parts
        try:
            with parts.heartbeats.busy("score"):
                for event in work.events():
                    seconds, self._busy_until_seconds = parts.clock.monotonic() - began, parts.clock.monotonic()
                    # What a whole batch takes that succeeds at once is learned from.
                    if is_timed and not work.has_failed and isinstance(event, BatchScored) and event.batch is batch:
                        parts.metrics.stage_duration_seconds.labels(stage="score").observe(seconds)
                        parts.note_scored(batch, seconds)
                    self._note_recovery()
                    parts.heartbeats.beat(HEARTBEAT)
                    parts.emit(event)
                    if recall is not None and isinstance(event, BatchScored):
                        self._emit_recalled(recall.learn(event.batch, event.scores))
                    began = parts.clock.monotonic()
        except EngineError as error:
            self._reason = str(error)
            if not self._may_try_again():
                raise
            return False
        return True

    def _may_try_again(self) -> bool:
        parts, now, reason = self._parts, self._parts.clock.monotonic(), self._reason
        if self._failing_since is None:
            self._failing_since = now
            log.warning("engine.failed", reason=reason, retry_seconds=parts.retry_seconds)
        parts.readiness.block(READINESS, f"{reason}; it is tried again for {parts.retry_seconds:g} s")
        return now - self._failing_since < parts.retry_seconds

    def _note_recovery(self) -> None:
        if self._failing_since is not None:
            log.info("engine.recovered", seconds=self._parts.clock.monotonic() - self._failing_since)
            self._parts.readiness.clear(READINESS)
        self._failing_since, self._attempts = None, 0

    def _note_failure(self, kind: str) -> None:
        self._parts.heartbeats.beat(HEARTBEAT)
        self._parts.metrics.engine_failures.labels(kind=kind).inc()

    def _observe(self, batch: Batch) -> None:
        metrics, tokens = self._parts.metrics, int(batch.lengths.sum())
        metrics.batch_pairs.observe(len(batch.refs))
        metrics.batch_padding_ratio.observe(1 - tokens / padded_tokens(batch))
        metrics.pairs_scored.inc(batch.asked)
        metrics.tokens_scored.inc(tokens)
        metrics.batch_tokens_allowed.set(self._allowance.tokens or 0)
