"""An engine that fails for everything is tried again for a while; nothing is emitted that was not scored."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from tests.conftest import LogEvents
from tests.support.scripted_kafka import Waits
from tests.support.strategies import pairs_of
from worker.clock import ManualClock
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.fake import FakeEngine
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.flow import BatchFailed, BatchScored
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.pipeline.batching import Batcher
from worker.pipeline.score_cache import ScoreCache
from worker.types import Batch, PairRef, PairScores

RETRY_SECONDS = 30.0
LIVENESS_SECONDS = 10.0


class BrittleEngine(FakeEngine):
    """Does `before` at every call."""

    def __init__(self, before: Callable[[], None]) -> None:
        super().__init__()
        self.before, self.calls = before, 0

    def warm_up(self) -> None:
        self.before()

    def score(self, batch: Batch) -> PairScores:
        self.calls += 1
        self.before()
        return super().score(batch)


class Scene:
    """A scorer whose time is a manual clock's, and what it emitted."""

    def __init__(self, before: Callable[[], None] = lambda: None, cache: ScoreCache | None = None) -> None:
        self.clock = ManualClock()
        self.engine, self.waits = BrittleEngine(before), Waits(self.clock)
        self.heartbeats, self.readiness = Heartbeats(self.clock), Readiness()
        self.registry = CollectorRegistry()
        self.heartbeats.register("engine", LIVENESS_SECONDS)
        self.emitted: list[BatchScored | BatchFailed] = []
        self.reasons: set[str] = set()
        self.overdue: set[str] = set()
        self.scorer = RetryingScorer(
            ScorerParts(
                self.engine,
                self.emitted.append,
                self._wait,
                Metrics(self.registry),
                self.heartbeats,
                self.readiness,
                self.clock,
                RETRY_SECONDS,
                cache,
            )
        )

    def _wait(self, seconds: float) -> bool:
        is_stopping = self.waits(seconds)
        self.reasons |= set(self.readiness.reasons())
        self.overdue |= set(self.heartbeats.overdue())
        return is_stopping

    def failures(self, kind: str) -> float:
        return self.registry.get_sample_value("worker_engine_failures_total", {"kind": kind}) or 0.0


def batch() -> Batch:
    batcher = Batcher(1000)
    for number in range(1, 9):
        batcher.add(number, pairs_of([5, 5]))
    made = batcher.pop()
    assert made is not None
    return made


def fail() -> None:
    raise RuntimeError("out of order")


def test_a_working_engine_is_called_once_and_everything_emitted() -> None:
    scene = Scene()
    scene.scorer.score(batch())
    assert (1, 0, 16) == (scene.engine.calls, scene.waits.count, len(scene.emitted[0].batch.refs))
    assert 16 == scene.registry.get_sample_value("worker_pairs_scored_total")


def test_an_engine_that_never_works_ends_the_worker_after_its_time_with_nothing_emitted(
    log_events: LogEvents,
) -> None:
    scene = Scene(fail)
    started = scene.clock.monotonic()
    with pytest.raises(EngineError, match="fails whatever it is given"):
        scene.scorer.score(batch())
    assert RETRY_SECONDS <= scene.clock.monotonic() - started <= RETRY_SECONDS + 5
    assert [] == scene.emitted
    (reason,) = scene.reasons
    assert reason == "engine: the engine fails whatever it is given (RuntimeError); it is tried again for 30 s"
    assert set() == scene.overdue
    assert 1 == sum(event["event"] == "engine.failed" for event in log_events)


def test_an_engine_that_comes_back_in_time_goes_on_where_it_was(log_events: LogEvents) -> None:
    scene = Scene()
    recovers_at = scene.clock.monotonic() + 20

    def fail_until_then() -> None:
        if scene.clock.monotonic() < recovers_at:
            fail()

    scene.engine.before = fail_until_then
    scene.scorer.score(batch())
    assert sorted(batch().refs) == sorted(ref for event in scene.emitted for ref in event.batch.refs)
    assert {BatchScored} == {type(event) for event in scene.emitted}
    assert () == scene.readiness.reasons()
    (recovered,) = [event for event in log_events if event["event"] == "engine.recovered"]
    assert 20 <= recovered["seconds"] <= 25


def test_each_outage_has_the_whole_time_for_itself() -> None:
    scene = Scene()
    for _ in range(3):
        recovers_at = scene.clock.monotonic() + RETRY_SECONDS - 6

        def fail_until_then(end: float = recovers_at) -> None:
            if scene.clock.monotonic() < end:
                fail()

        scene.engine.before = fail_until_then
        scene.scorer.score(batch())


def test_a_stop_in_the_midst_of_an_outage_ends_it_at_once() -> None:
    scene = Scene(fail)

    def stop() -> None:
        scene.waits.is_stopping = True

    scene.waits.at[3] = stop
    with pytest.raises(EngineError, match="the worker was to stop meanwhile"):
        scene.scorer.score(batch())
    assert (3, []) == (scene.waits.count, scene.emitted)


def test_memory_that_runs_out_is_counted_and_the_limit_told() -> None:
    scene = Scene()

    def run_out() -> None:
        if scene.engine.calls == 1:
            raise EngineOutOfMemoryError("full")

    scene.engine.before = run_out
    scene.scorer.score(batch())
    assert 1 == scene.failures("out_of_memory")
    assert 40 == scene.registry.get_sample_value("worker_batch_tokens_allowed")
    assert [8, 8] == [len(event.batch.refs) for event in scene.emitted]


def test_a_broken_engine_is_counted_at_every_attempt() -> None:
    scene = Scene(fail)
    with pytest.raises(EngineError):
        scene.scorer.score(batch())
    assert scene.waits.count + 1 == scene.failures("broken")


def refs(events: list[BatchScored | BatchFailed]) -> list[PairRef]:
    return [ref for event in events for ref in event.batch.refs]


def repeated(first: int) -> Batch:
    """Four messages, two of which say the same; other messages say it again at every call."""
    batcher = Batcher(1000)
    for number, length in enumerate([19, 20, 19, 21], start=first):
        batcher.add(number, pairs_of([length]))
    made = batcher.pop()
    assert made is not None
    return made


def test_a_pair_that_was_scored_is_not_scored_again_and_every_message_gets_its_scores() -> None:
    scene, plain = Scene(cache=ScoreCache(10**6)), Scene()
    for first in (0, 4, 8):
        before, before_plain = len(scene.emitted), len(plain.emitted)
        scene.scorer.score(repeated(first))
        plain.scorer.score(repeated(first))
        assert {*range(first, first + 4)} == {ref.message for ref in refs(scene.emitted[before:])}
        assert rows(plain.emitted[before_plain:]) == rows(scene.emitted[before:])
    assert 12 == len(refs(scene.emitted))
    assert 1 == scene.engine.calls
    assert 3 == scene.registry.get_sample_value("worker_pairs_scored_total")
    assert 9 == scene.registry.get_sample_value("worker_pairs_cached_total")
    assert 9 == sum(len(event.batch.refs) for event in scene.emitted if getattr(event, "is_cached", False))


def rows(events: list[BatchScored | BatchFailed]) -> dict[PairRef, list[float]]:
    scored = [event for event in events if isinstance(event, BatchScored)]
    assert len(scored) == len(events)
    return {
        ref: row for event in scored for ref, row in zip(event.batch.refs, event.scores.logits.tolist(), strict=True)
    }


def test_the_failure_of_one_message_refuses_no_other_that_says_the_same() -> None:
    """Of two messages with the same pair the first is refused; the engine has recovered when the second is scored."""
    scene = Scene(cache=ScoreCache(10**6))
    calls: list[int] = []
    engine_score = FakeEngine.score

    def score(batch: Batch) -> PairScores:
        calls.append(len(batch.refs))
        if [ref.message for ref in batch.refs if ref.message == 0]:
            fail()
        return engine_score(scene.engine, batch)

    scene.engine.score = score  # type: ignore[method-assign]  # scripted
    scene.scorer.score(repeated(0))
    refused = [ref.message for event in scene.emitted if isinstance(event, BatchFailed) for ref in event.batch.refs]
    assert [0] == refused
    assert [0, 1, 2, 3] == sorted(ref.message for ref in refs(scene.emitted))
