"""The engine thread's patience: an engine that fails for everything is tried again for a while, then the worker ends."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.clock import Clock
from worker.engines.base import Engine
from worker.errors import EngineError
from worker.flow import BatchFailed, BatchScored
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.pipeline.cutting import padded_tokens
from worker.scoring import BatchWork
from worker.token_allowance import TokenAllowance
from worker.types import Batch

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


class RetryingScorer:
    """Scores batches for as long as the engine works, and waits for it while it does not. One thread uses it."""

    def __init__(self, parts: ScorerParts) -> None:
        """The memory is taken to suffice until it has run out."""
        self._parts = parts
        self._allowance = TokenAllowance()
        self._attempts = 0
        self._failing_since: float | None = None

    def score(self, batch: Batch) -> bool:
        """Emit what becomes of every pair of `batch`; false when told to stop while the engine fails. Blocks.

        Raises:
            EngineError: the engine has failed for everything for too long. What was not emitted is unfinished.
        """
        work = BatchWork(self._parts.engine, batch, self._allowance, self._note_failure)
        while not self._attempt(work):
            # Only here is the error gone whose frames may hold the memory that the engine needs.
            seconds = BACK_OFF_SECONDS[min(self._attempts, len(BACK_OFF_SECONDS) - 1)]
            self._attempts += 1
            if self._parts.wait_for_stop(seconds):
                return False
        self._observe(batch)
        return True

    def _attempt(self, work: BatchWork) -> bool:
        """Score what is left of `work`; false when the engine is broken and may be tried again."""
        parts = self._parts
        try:
            with parts.metrics.stage_duration_seconds.labels(stage="score").time(), parts.heartbeats.busy("score"):
                for event in work.events():
                    self._note_recovery()
                    parts.heartbeats.beat(HEARTBEAT)
                    parts.emit(event)
        except EngineError as error:
            if not self._may_try_again(str(error)):
                raise
            return False
        return True

    def _may_try_again(self, reason: str) -> bool:
        parts, now = self._parts, self._parts.clock.monotonic()
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
        metrics.pairs_scored.inc(len(batch.refs))
        metrics.tokens_scored.inc(tokens)
        metrics.batch_tokens_allowed.set(self._allowance.tokens or 0)
