"""The loop with a scripted consumer, a real delivery thread and a publisher that keeps what it is given."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link

from tests.support.scripted_kafka import finished_lane
from tests.support.small_tokenizers import bert_style, save
from tests.support.spans import KeptSpans, attributes
from tests.support.strategies import pairs_of
from tests.support.strategies import record as record_at
from tests.support.wait import wait_until
from worker.backlog import Backlog
from worker.clock import ManualClock, SystemClock
from worker.delivery import Cadence, Delivery, DeliveryParts, Encoder
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.fake import FakeEngine
from worker.errors import EngineError, FatalError
from worker.flow import Inbox, PairQueue
from worker.in_flight import Bounds, InFlight
from worker.intake import Intake, IntakeParts
from worker.kafka.consumer import RecordConsumer
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.kafka.publishing import Published
from worker.kafka.rebalance import RebalanceListener
from worker.labels.schema import parse_schema
from worker.lifecycle import Lifecycle
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED, Tracing
from worker.pipeline.batching import Batcher
from worker.pipeline.evidence import ModelView
from worker.pipeline.score_cache import ScoreCache
from worker.pipeline.tokenization import PairTokenizer
from worker.processor import POLL_EVERY_SECONDS, ProcessorParts, StreamProcessor
from worker.types import Batch, Finished, OutboundRecord, PairScores, Record, Request, TopicPartition

LABELS = parse_schema({"name": "kinds", "version": 1, "labels": [{"name": "a"}, {"name": "b"}]}, "test")
LANE = TopicPartition("in", 0)


class ScriptedConsumer:
    """Gives its records a few at a time; can let a partition go, or die."""

    def __init__(self, count: int) -> None:
        self.waiting = deque(record_at(offset=offset) for offset in range(count))
        self.at: dict[int, Callable[[RebalanceListener], None]] = {}
        self.polls = self.most_polled = 0
        self.committed: dict[TopicPartition, int] = {}
        self.is_closed = self.is_held = False
        self._listener: RebalanceListener | None = None

    def subscribe(self, _topics: Sequence[str], listener: RebalanceListener) -> None:
        self._listener = listener
        listener.assigned(frozenset({LANE}))

    def follow(self, topics: Sequence[str]) -> None:
        assert ["in"] == topics

    def poll(self, max_records: int, _timeout: float) -> list[Record]:
        assert self._listener is not None
        self.polls += 1
        if (step := self.at.get(self.polls)) is not None:
            step(self._listener)
        if self.is_held:
            return []
        return [self.waiting.popleft() for _ in range(min(max_records, 10, len(self.waiting)))]

    def apply_holds(self) -> int:
        assert self._listener is not None
        self.is_held = self._listener.is_held(LANE)
        return int(self.is_held)

    def commit(self, positions: Mapping[TopicPartition, int], *, wait: bool) -> None:
        self.committed |= positions

    def unread(self, _ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {LANE: len(self.waiting)}

    lag = unread

    def end_offsets(self, _topics: Iterable[str], _wait: Callable[[float], bool]) -> dict[TopicPartition, int]:
        return {LANE: len(self.waiting)}

    def is_at(self, _ends: Mapping[TopicPartition, int]) -> bool:
        return not self.waiting

    def awaits_schema(self, _partition: TopicPartition) -> bool:
        return False

    def close(self) -> None:
        self.is_closed = True


class KeepingPublisher:
    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.failure: Exception | None = None

    def start(self) -> None: ...

    def publish(self, finished: Sequence[Finished]) -> Published:
        if self.failure is not None:
            raise self.failure
        self.offsets += [each.record.offset for each in finished]
        return Published(finished)

    def close(self) -> None: ...


class ScriptedEngine(FakeEngine):
    before: Callable[[], None] = staticmethod(lambda: None)

    def score(self, batch: Batch) -> PairScores:
        self.before()
        return super().score(batch)


class Scene:
    def __init__(self, folder: Path, count: int, cache: ScoreCache | None = None, tracing: Tracing = UNTRACED) -> None:
        self.consumer, self.publisher, self.engine = ScriptedConsumer(count), KeepingPublisher(), ScriptedEngine()
        self.assignment = Assignment()
        self.assignment.assign([LANE])
        self.lifecycle, self.inbox, self.offered = Lifecycle(), Inbox(), OfferedPositions(self.assignment)
        self.in_flight = InFlight(Bounds(20, 10**6, 10**6))
        self.readiness, self.is_open = Readiness(), True
        clock, metrics, heartbeats = SystemClock(), Metrics(), Heartbeats(SystemClock())
        self.metrics = metrics
        self.backlog = Backlog(clock)
        pairs = PairQueue(Batcher(100), self.in_flight.note_queued_tokens)
        tokenizer = PairTokenizer(save(bert_style(), folder), 64)
        intake = IntakeParts(
            lambda record: Request(str(record.offset), "the bill"),
            lambda _request, _topic: LABELS,
            tokenizer,
            10,
            self.in_flight,
            self.inbox,
            pairs,
            metrics,
            self.backlog.note_cost,
            tracing,
        )
        delivery = DeliveryParts(
            inbox=self.inbox,
            pairs=pairs,
            in_flight=self.in_flight,
            publisher=self.publisher,
            encoder=Encoder(lambda _prediction, scored: (out(scored.record),), lambda record, _refusal: out(record)),
            model=ModelView(self.engine.info.head, "sha256:0"),
            metrics=metrics,
            clock=clock,
            beat=lambda: None,
            follow_up=lambda _stages, _premise: None,
            tracing=tracing,
        )
        parts = ProcessorParts(
            consumer=cast("RecordConsumer", self.consumer),
            intake=Intake(intake),
            backlog=self.backlog,
            ends=dict,
            scorer=RetryingScorer(
                ScorerParts(
                    self.engine,
                    self.inbox.put,
                    self.lifecycle.wait_for_stop,
                    metrics,
                    heartbeats,
                    self.readiness,
                    clock,
                    retry_seconds=0.0,
                    cache=cache,
                )
            ),
            delivery=Delivery(delivery, Cadence(0.01, 100)),
            inbox=self.inbox,
            pairs=pairs,
            in_flight=self.in_flight,
            offered=self.offered,
            is_open=lambda _topic: self.is_open,
            is_ours=lambda record: record.epoch == 1,
            metrics=metrics,
            heartbeats=heartbeats,
            readiness=self.readiness,
            clock=clock,
            tracing=tracing,
        )
        self.processor = StreamProcessor(parts, self.lifecycle, drain_seconds=5)

    def run(self, *, until_end: bool = True) -> None:
        self.processor.run(lambda: ["in"], until_end=until_end)


def out(record: Record) -> OutboundRecord:
    return OutboundRecord("out", None, b"", (), None, record.source)


def test_up_to_the_end_every_record_is_published_in_order_and_the_group_left(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 100)
    scene.run()
    assert list(range(100)) == scene.publisher.offsets
    assert 0 == scene.in_flight.records
    assert scene.consumer.is_closed


def test_the_end_is_reached_when_all_is_published_however_long_that_takes(tmp_path: Path) -> None:
    """The time to drain is for signals: a slow engine must not make an end of something unfinished."""
    scene = Scene(tmp_path, 20)
    scene.processor._drain_seconds = 0.0
    # The engine goes on only after the loop has had many turns.
    scene.engine.before = lambda: wait_until(lambda: scene.consumer.polls > 20)
    scene.run()
    assert list(range(20)) == scene.publisher.offsets


def test_records_that_all_say_the_same_are_scored_once_and_each_published_in_order(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 100, ScoreCache(10**6))
    seen: list[int] = []
    scene.engine.before = lambda: seen.append(1)
    scene.run()
    assert list(range(100)) == scene.publisher.offsets
    assert (1, 0) == (len(seen), scene.in_flight.records)


def test_records_that_all_say_the_same_outlive_a_partition_that_goes(tmp_path: Path) -> None:
    """Nothing waits for the score of one that went."""
    scene = Scene(tmp_path, 400, ScoreCache(10**6))

    def revoke(listener: RebalanceListener) -> None:
        listener.revoking(frozenset({LANE}))
        listener.gone(frozenset({LANE}))
        scene.consumer.waiting.clear()

    scene.consumer.at[3] = revoke
    scene.run()
    assert list(range(len(scene.publisher.offsets))) == scene.publisher.offsets
    assert 0 == scene.in_flight.records


def test_a_stop_takes_nothing_more_in_and_publishes_what_was(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1000)
    scene.consumer.at[5] = lambda _listener: scene.lifecycle.stop()
    scene.run(until_end=False)
    assert list(range(len(scene.publisher.offsets))) == scene.publisher.offsets
    assert 0 < len(scene.publisher.offsets) < 1000
    assert 0 == scene.in_flight.records


def test_a_revoked_partition_is_published_as_far_as_it_is_finished_then_forgotten(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 1000)

    def revoke(listener: RebalanceListener) -> None:
        listener.revoking(frozenset({LANE}))
        listener.gone(frozenset({LANE}))
        scene.consumer.waiting.clear()

    scene.consumer.at[4] = revoke
    scene.run()
    assert list(range(len(scene.publisher.offsets))) == scene.publisher.offsets
    assert 0 == scene.in_flight.records


def test_records_of_a_former_assignment_are_not_taken_in(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 10)
    scene.consumer.waiting.extend(record_at(offset=offset, epoch=9) for offset in range(10, 20))
    scene.run()
    assert list(range(10)) == scene.publisher.offsets


def test_a_backlog_that_goes_down_ever_so_slowly_keeps_no_worker_from_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does not poll is taken for dead by its group."""
    scene, clock = Scene(tmp_path, 100), ManualClock()
    scene.processor._parts = replace(scene.processor._parts, clock=clock)
    scene.consumer.subscribe(["in"], scene.processor)
    monkeypatch.setattr(InFlight, "wait_for_room", lambda _self, _seconds: True)  # there was room for a moment
    clock.advance(POLL_EVERY_SECONDS)
    for _ in range(3):
        scene.processor._step()
    polls, waiting = scene.consumer.polls, len(scene.backlog)
    assert waiting > 0
    for _ in range(5):
        scene.processor._step()
    assert polls == scene.consumer.polls
    clock.advance(POLL_EVERY_SECONDS)
    scene.processor._step()
    assert (polls + 1, waiting, True) == (scene.consumer.polls, len(scene.backlog), scene.consumer.is_held)


def test_an_input_whose_outputs_are_missing_is_held(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 100)
    scene.is_open = False
    scene.consumer.at[3] = lambda _listener: scene.lifecycle.stop()
    scene.run(until_end=False)
    assert [] == scene.publisher.offsets
    assert 100 == len(scene.consumer.waiting)


def test_an_engine_that_cannot_go_on_ends_the_worker_with_its_error(tmp_path: Path, expected_errors: set[str]) -> None:
    expected_errors.add("thread.died")
    scene = Scene(tmp_path, 100)

    def die() -> None:
        raise EngineError("the device is gone")

    scene.engine.before = die
    with pytest.raises(EngineError, match="the device is gone"):
        scene.run()
    assert [] == scene.publisher.offsets
    assert scene.consumer.is_closed


def test_a_delivery_thread_that_dies_ends_the_worker_and_names_only_the_type(
    tmp_path: Path, expected_errors: set[str]
) -> None:
    expected_errors.add("thread.died")
    scene = Scene(tmp_path, 100)
    scene.publisher.failure = ValueError("quotes a text")
    with pytest.raises(FatalError, match=r"a thread ended with ValueError; nothing unfinished was committed"):
        scene.run()
    assert scene.consumer.is_closed


def test_positions_that_delivery_has_earned_are_committed_by_the_poll_thread(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 10)
    scene.offered.offer(finished_lane(0, [6]))
    scene.run()
    assert {LANE: 7} == scene.consumer.committed


@pytest.mark.parametrize("cache", [None, ScoreCache(10**6)])
def test_every_record_has_one_span_and_is_linked_with_the_batches_that_hold_its_pairs(
    tmp_path: Path, cache: ScoreCache | None
) -> None:
    kept = KeptSpans()
    scene = Scene(tmp_path, 100, cache, kept.tracing)
    scene.run()
    records, batches = kept.ended("process"), kept.ended("score")
    assert list(range(100)) == [attributes(span)["messaging.kafka.offset"] for span in records]
    assert ["predicted"] * 100 == kept.outcomes()
    forth = {(_id(batch), _id(link)) for batch in batches for link in batch.links}
    back = {(_id(link), _id(span)) for span in records for link in span.links}
    assert forth == back
    assert {_id(span) for span in records} == {record for _, record in forth}


def _id(told: ReadableSpan | Link) -> int:
    assert told.context is not None
    return told.context.span_id


def test_the_records_of_a_partition_that_went_are_traced_as_dropped(tmp_path: Path) -> None:
    kept = KeptSpans()
    scene = Scene(tmp_path, 400, tracing=kept.tracing)

    def revoke(listener: RebalanceListener) -> None:
        listener.revoking(frozenset({LANE}))
        listener.gone(frozenset({LANE}))
        scene.consumer.waiting.clear()

    scene.consumer.at[3] = revoke
    scene.engine.before = lambda: wait_until(lambda: scene.consumer.polls > 3)
    scene.run()
    published = len(scene.publisher.offsets)
    assert ["predicted"] * published == kept.outcomes()[:published]
    assert {"dropped"} == set(kept.outcomes()[published:])


def test_lag_of_which_nothing_is_delivered_takes_for_ever_and_none_takes_no_time(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 100)
    told: list[float] = []
    scene.consumer.at[2] = lambda _listener: told.append(scene.metrics.drain_seconds._value.get())
    scene.run()
    scene.processor._observe()
    assert [math.inf, 0.0] == [*told, scene.metrics.drain_seconds._value.get()]


def test_pairs_and_tokens_that_wait_are_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 20)
    scene.processor._parts.pairs.add(1, pairs_of([4, 5]))
    scene.processor._observe()
    assert (2.0, 9.0) == (scene.metrics.queue_pairs._value.get(), scene.metrics.queue_tokens._value.get())
