"""The engine thread: one batch after the other, the next begun before the last one is waited for."""

from contextlib import ExitStack
from dataclasses import dataclass

from worker.engine_retry import RetryingScorer, Started
from worker.flow import PairQueue
from worker.lifecycle import Lifecycle
from worker.observability.health import Heartbeats
from worker.observability.tracing import Tracing

IDLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch that the engine is busy with."""

    span: ExitStack
    started: Started


class EngineLoop:
    """Has every queued pair scored, until the queue is closed and empty."""

    def __init__(
        self,
        pairs: PairQueue,
        scorer: RetryingScorer,
        heartbeats: Heartbeats,
        tracing: Tracing,
        lifecycle: Lifecycle,
    ) -> None:
        """Nothing is scored yet."""
        self._pairs, self._scorer, self._heartbeats = pairs, scorer, heartbeats
        self._tracing, self._lifecycle = tracing, lifecycle
        self._batches = 0

    @property
    def batches(self) -> int:
        """How many are done."""
        return self._batches

    def run(self) -> None:
        """Score until the queue is closed and empty, or the worker gives up what is in flight. Blocks.

        Raises:
            EngineError: the engine has failed for everything for too long.
        """
        running: _Running | None = None
        while running is not None or not self._is_done():
            self._heartbeats.beat("engine")
            following = self._next(running)
            if running is not None:
                self._finish(running, following)
            running = following
            if running is not None and self._lifecycle.is_abandoned:
                running.span.close()
                break

    def _finish(self, running: _Running, following: _Running | None) -> None:
        try:
            with running.span:
                self._scorer.finish(running.started)
        except BaseException:
            if following is not None:
                following.span.close()  # the thread ends, and nobody waits for it any more
            raise
        self._batches += 1

    def _is_done(self) -> bool:
        return self._lifecycle.is_abandoned or (self._pairs.is_closed and not self._pairs.pairs)

    def _next(self, running: _Running | None) -> _Running | None:
        """The next batch, on its way; None where there is none, or it has to wait for the one that is `running`.

        A busy engine gets a batch only while much waits: what comes alone is scored as soon as the engine is free,
        together with what came meanwhile.
        """
        if running is None:
            batch = self._pairs.pop(IDLE_SECONDS)
        elif self._scorer.can_overlap and not self._lifecycle.is_abandoned:
            batch = self._pairs.pop_ahead()
        else:
            batch = None
        if batch is None:
            return None
        with ExitStack() as span:
            span.enter_context(self._tracing.scoring(batch))
            started = self._scorer.start(batch, None if running is None else running.started)
            return _Running(span.pop_all(), started)
