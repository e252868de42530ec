"""The engine thread: what is queued is scored, and a busy engine has the next full batch behind the one it works on."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.faulty_engine import LineOfTwo, scorer_of
from tests.support.strategies import pairs_of
from worker.clock import ManualClock
from worker.engine_loop import EngineLoop
from worker.flow import BatchFailed, BatchScored, PairQueue
from worker.lifecycle import Lifecycle
from worker.observability.health import Heartbeats
from worker.observability.tracing import UNTRACED
from worker.pipeline.batching import Batcher
from worker.types import Batch

BATCH_TOKENS = 100


class Spans:
    """Which spans of batches are open."""

    def __init__(self) -> None:
        self.open = self.most = self.closed = 0

    def __getattr__(self, name: str) -> object:
        return getattr(UNTRACED, name)

    @contextmanager
    def scoring(self, batch: Batch) -> Iterator[None]:
        assert batch.refs
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield
        finally:
            self.open -= 1
            self.closed += 1


class Scene:
    def __init__(self, engine: LineOfTwo, messages: int) -> None:
        self.engine, self.spans = engine, Spans()
        self.queue = PairQueue(Batcher(BATCH_TOKENS), lambda _tokens: None)
        for number in range(1, messages + 1):
            self.queue.add(number, pairs_of([10, 10]))
        self.queue.close()
        scorer, self.emitted = scorer_of(engine, None)
        heartbeats = Heartbeats(ManualClock())
        heartbeats.register("engine", 60.0)
        self.loop = EngineLoop(self.queue, scorer, heartbeats, self.spans, Lifecycle())  # type: ignore[arg-type]  # as one

    def refs(self, kind: type[BatchScored | BatchFailed]) -> int:
        return sum(len(event.batch.refs) for event in self.emitted if isinstance(event, kind))


@pytest.mark.parametrize(("messages", "at_once"), [(4, 1), (14, 1), (15, 2), (50, 2)])
def test_the_next_batch_is_begun_early_where_enough_waits(messages: int, at_once: int) -> None:
    scene = Scene(LineOfTwo([]), messages)
    scene.loop.run()
    assert (at_once, 2 * messages) == (scene.engine.most_at_once, scene.refs(BatchScored))


def test_every_batch_has_its_span_from_its_start_to_its_end() -> None:
    scene = Scene(LineOfTwo([]), 50)
    scene.loop.run()
    assert (0, 2, scene.loop.batches) == (scene.spans.open, scene.spans.most, scene.spans.closed)


def test_a_message_that_breaks_the_engine_is_refused_alone_also_where_batches_overlap() -> None:
    scene = Scene(LineOfTwo([], poison=frozenset({7})), 50)
    scene.loop.run()
    assert (98, 2) == (scene.refs(BatchScored), scene.refs(BatchFailed))
