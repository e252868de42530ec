"""The delivery thread by a manual clock: when it publishes, what it drops, what becomes a dead letter."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.support.spans import KeptSpans
from tests.support.strategies import pairs_of
from tests.support.strategies import record as record_at
from worker.clock import ManualClock
from worker.delivery import IDLE_SECONDS, Cadence, Delivery, DeliveryParts, Encoder
from worker.engines.fake import TWO_CLASS_HEAD
from worker.errors import ErrorCode, MessageError, Stage
from worker.flow import (
    Admitted,
    BatchFailed,
    BatchScored,
    Event,
    Finish,
    Flush,
    Inbox,
    NotAdmitted,
    PairQueue,
    PartitionsGone,
    TakenIn,
)
from worker.in_flight import Bounds, InFlight
from worker.kafka.publishing import Published, StoppedError
from worker.labels.schema import parse_schema
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED, Tracing
from worker.pipeline.assembly import Scored
from worker.pipeline.batching import Batcher
from worker.pipeline.evidence import ModelView
from worker.pipeline.planning import plan_pairs
from worker.types import (
    Batch,
    Finished,
    OutboundRecord,
    PairCounts,
    PairRef,
    PairScores,
    Prediction,
    Record,
    Refusal,
    Request,
    Shortlist,
    TopicPartition,
)

LABELS = parse_schema({"name": "kinds", "version": 1, "labels": [{"name": "a"}, {"name": "b"}]}, "test")
PLAN = plan_pairs(Request("id", "text"), LABELS, 10)
REFUSAL = Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "text: empty")
CADENCE = Cadence(interval_seconds=0.1, records=3)


class ScriptedInbox:
    """Gives the events of its script; a number in it lets that many seconds pass while the thread waits."""

    def __init__(self, clock: ManualClock, script: Sequence[Event | float]) -> None:
        self.clock, self.script = clock, deque[Event | float](script)
        self.waits: list[float] = []

    def take(self, timeout_seconds: float) -> Event | None:
        if timeout_seconds > 0:
            self.waits.append(round(timeout_seconds, 6))
        if not self.script:
            return Finish()
        if not isinstance(self.script[0], float):
            return cast("Event", self.script.popleft())
        if timeout_seconds > 0:
            passed = min(timeout_seconds, self.script[0])
            self.clock.advance(passed)
            rest = self.script.popleft()
            assert isinstance(rest, float)
            if rest - passed > 1e-9:
                self.script.appendleft(rest - passed)
        return None


class KeepingPublisher:
    """Commits what it is given, unless told to leave or to stop."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.published: list[tuple[float, list[int]]] = []
        self.codes: dict[int, ErrorCode | None] = {}
        self.left_once: set[int] = set()
        self.lost_once: set[int] = set()
        self.is_stopped = self.is_closed = False

    def start(self) -> None: ...

    def publish(self, finished: Sequence[Finished]) -> Published:
        if self.is_stopped:
            raise StoppedError
        left = [each for each in finished if each.record.offset in self.left_once]
        self.left_once -= {each.record.offset for each in left}
        going = [each for each in finished if each not in left and each.record.offset not in self.lost_once]
        self.published.append((round(self.clock.monotonic() - 1000, 6), [each.record.offset for each in going]))
        self.codes |= {each.record.offset: each.code for each in going}
        return Published(going, left)

    def close(self) -> None:
        self.is_closed = True


class Scene:
    """A delivery thread, run to its end on the test's own thread."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.publisher = KeepingPublisher(self.clock)
        self.in_flight = InFlight(Bounds(1000, 10**6, 10**6))
        self.pairs = PairQueue(Batcher(1000), self.in_flight.note_queued_tokens)
        self.inbox = ScriptedInbox(self.clock, ())
        self.encode: Callable[[Prediction, Scored], OutboundRecord] = lambda _prediction, scored: out(scored.record)
        self.tracing: Tracing = UNTRACED
        self._number = 0

    def good(self, *offsets: int, partition: int = 0) -> list[Event]:
        """Records admitted and queued for the engine."""
        events: list[Event] = []
        for offset in offsets:
            record, pairs = self._admit(offset, partition), pairs_of([4, 4])
            self.pairs.add(self._number, pairs)
            events.append(Admitted(self._number, record, PLAN, pairs))
        return events

    def bad(self, *offsets: int, partition: int = 0) -> list[Event]:
        """Records that are dead letters from the start."""
        return [NotAdmitted(self._number, self._admit(offset, partition), REFUSAL) for offset in offsets]

    def scored(self) -> Event:
        """The engine's answer for all that is queued."""
        batch = self.pairs.pop(0)
        assert batch is not None
        return BatchScored(batch, PairScores(np.ones((len(batch.refs), 2), np.float32)))

    def run(self, *script: Event | float) -> list[tuple[float, list[int]]]:
        self.inbox.script.extend(script)
        self.metrics = Metrics()
        parts = DeliveryParts(
            inbox=cast("Inbox", self.inbox),
            pairs=self.pairs,
            in_flight=self.in_flight,
            publisher=self.publisher,
            encoder=Encoder(self._prediction, lambda record, _refusal: out(record)),
            model=ModelView(TWO_CLASS_HEAD, "sha256:0"),
            metrics=self.metrics,
            clock=self.clock,
            beat=lambda: None,
            follow_up=lambda _stages, _premise: None,
            tracing=self.tracing,
        )
        Delivery(parts, CADENCE).run()
        return self.publisher.published

    def _prediction(self, prediction: Prediction, scored: Scored) -> tuple[OutboundRecord, ...]:
        return (self.encode(prediction, scored),)

    def _admit(self, offset: int, partition: int) -> Record:
        self._number += 1
        (record,) = self.tracing.taken_in([record_at(partition=partition, offset=offset)], self._number)
        self.in_flight.admit(record)
        return record


def out(record: Record) -> OutboundRecord:
    return OutboundRecord("out", None, b"", (), None, record.source)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_finished_records_are_published_when_the_first_has_waited_the_interval(scene: Scene) -> None:
    events = scene.bad(0, 1)
    assert [(0.1, [0, 1])] == scene.run(events[0], 0.04, events[1], 0.5)
    assert [IDLE_SECONDS, 0.1, 0.06] == scene.inbox.waits[:3]


def test_as_many_finished_records_as_the_cadence_names_are_published_at_once(scene: Scene) -> None:
    assert (0.0, [0, 1, 2]) == scene.run(*scene.bad(0, 1, 2, 3))[0]


def test_records_still_at_the_engine_do_not_start_the_interval(scene: Scene) -> None:
    events = scene.good(0)
    assert [(5.1, [0])] == scene.run(*events, 5.0, scene.scored(), 1.0)


def test_a_flush_publishes_what_is_finished_and_then_answers(scene: Scene) -> None:
    done = threading.Event()
    finished, unfinished = scene.bad(0), scene.good(1)
    assert [(0.0, [0])] == scene.run(*finished, *unfinished, Flush(done))
    assert done.is_set()
    assert 1 == scene.in_flight.records


def test_what_is_finished_at_the_end_is_published(scene: Scene) -> None:
    assert [(0.0, [0])] == scene.run(*scene.bad(0), Finish())
    assert scene.publisher.is_closed
    assert 0 == scene.in_flight.records


def test_partitions_that_went_are_forgotten_finished_or_not_and_the_others_stay(scene: Scene) -> None:
    here = scene.bad(0, partition=1) + scene.good(1, partition=1)
    there = scene.bad(0) + scene.good(1)
    gone = PartitionsGone(frozenset({TopicPartition("in", 0)}))
    assert [(0.0, [0])] == scene.run(*here, *there, gone, Finish())
    assert 1 == scene.in_flight.records
    assert 2 == scene.pairs.pairs


def test_scores_of_a_partition_that_went_are_ignored(scene: Scene) -> None:
    events = scene.good(0)
    gone = PartitionsGone(frozenset({TopicPartition("in", 0)}))
    assert [] == scene.run(*events, gone, scene.scored(), Finish())
    assert 0 == scene.in_flight.records


def test_dead_letters_keep_their_place_behind_what_is_not_yet_scored(scene: Scene) -> None:
    events = [*scene.good(0), *scene.bad(1), *scene.good(2)]
    assert [(2.0, [0, 1, 2])] == scene.run(*events, 2.0, scene.scored(), Finish())
    assert {0: None, 1: ErrorCode.TEXT_EMPTY, 2: None} == scene.publisher.codes


def test_a_message_that_the_engine_cannot_score_becomes_a_dead_letter_in_its_place(scene: Scene) -> None:
    events = scene.good(0, 1)
    batch = scene.pairs.pop(0)
    assert batch is not None
    rows = [row for row, ref in enumerate(batch.refs) if ref.message == 2]
    ok = Batch(tuple(batch.refs[row] for row in rows), batch.token_ids[:8], batch.type_ids[:8], batch.lengths[:2])
    failed = Batch((PairRef(1, 0), PairRef(1, 1)), batch.token_ids[8:], batch.type_ids[8:], batch.lengths[2:])
    refusal = Refusal(ErrorCode.ENGINE_FAILED, Stage.SCORE, "the engine failed")
    scores = PairScores(np.ones((2, 2), np.float32))
    assert [(0.0, [0, 1])] == scene.run(*events, BatchScored(ok, scores), BatchFailed(failed, refusal), Finish())
    assert {0: ErrorCode.ENGINE_FAILED, 1: None} == scene.publisher.codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MessageError(ErrorCode.MERGE_FIELD_TAKEN, Stage.ENCODE, "taken"), ErrorCode.MERGE_FIELD_TAKEN),
        (ValueError("a bug"), ErrorCode.ENCODE_FAILED),
    ],
)
def test_a_prediction_that_cannot_be_encoded_becomes_a_dead_letter_and_its_neighbours_go_on(
    scene: Scene, expected_errors: set[str], error: Exception, code: ErrorCode
) -> None:
    expected_errors.add("message.encoding_failed")

    def encode(_prediction: Prediction, scored: Scored) -> OutboundRecord:
        if scored.record.offset == 1:
            raise error
        return out(scored.record)

    scene.encode = encode
    events = scene.good(0, 1, 2)
    scene.run(*events, scene.scored(), Finish())
    assert {0: None, 1: code, 2: None} == scene.publisher.codes


def test_what_the_publisher_left_is_given_again_after_the_interval(scene: Scene) -> None:
    scene.publisher.left_once = {1}
    assert [(0.1, [0]), (0.2, [1])] == scene.run(*scene.bad(0, 1), 0.5)
    assert 0 == scene.in_flight.records


def test_what_was_left_still_counts_as_in_flight(scene: Scene) -> None:
    scene.publisher.left_once = {1}
    scene.run(*scene.bad(0, 1), Finish())
    assert 1 == scene.in_flight.records


def test_a_stop_while_the_broker_is_silent_gives_up_without_an_error(scene: Scene) -> None:
    scene.publisher.is_stopped = True
    assert [] == scene.run(*scene.bad(0), Finish())
    assert scene.publisher.is_closed
    assert 1 == scene.in_flight.records


def test_what_waits_for_a_missing_topic_takes_no_room_from_others(scene: Scene) -> None:
    scene.publisher.left_once = {1}
    scene.in_flight.note_cost(1, 1)
    room = scene.in_flight.room()
    scene.run(*scene.bad(0, 1), Finish())
    assert 1 == scene.in_flight.records
    assert room == scene.in_flight.room()
    assert scene.in_flight.is_idle


def test_what_waited_for_a_missing_topic_counts_no_longer_once_its_partition_went(scene: Scene) -> None:
    scene.publisher.left_once = {1, 2}
    scene.in_flight.note_cost(1, 1)
    room = scene.in_flight.room()
    gone = PartitionsGone(frozenset({TopicPartition("in", 0)}))
    scene.run(*scene.bad(0, 1, 2), Flush(threading.Event()), gone, *scene.good(3, partition=1), Finish())
    assert 1 == scene.in_flight.records
    assert room - 1 == scene.in_flight.room()
    assert not scene.in_flight.is_idle


def test_refusals_of_one_kind_are_one_line_of_the_log(scene: Scene) -> None:
    with capture_logs() as lines:
        scene.run(TakenIn([event for event in scene.bad(0, 1, 2) if isinstance(event, NotAdmitted)]), Finish())
    told = [line for line in lines if line["event"] == "message.dead_lettered"]
    assert [("in", "text_empty", 3)] == [(line["topic"], line["reason"], line["records"]) for line in told]


def test_records_that_came_together_are_published_in_their_order(scene: Scene) -> None:
    events = [*scene.good(0), *scene.bad(1), *scene.good(2)]
    places = [event for event in events if isinstance(event, Admitted | NotAdmitted)]
    assert [(0.0, [0, 1, 2])] == scene.run(TakenIn(places), scene.scored(), Finish())


def test_an_audited_shortlist_is_counted_by_whether_it_held_the_best_label(scene: Scene) -> None:
    events: list[Event] = []
    for offset, nodes in enumerate([(0,), (1,)]):
        [admitted] = scene.good(offset)
        assert isinstance(admitted, Admitted)
        pairs = replace(admitted.pairs, shortlist=Shortlist(nodes, is_audited=True))
        events.append(replace(admitted, pairs=pairs))
    assert [(0.1, [0, 1])] == scene.run(*events, scene.scored(), 0.1, Finish())
    found = [scene.metrics.shortlist_audits.labels(outcome=outcome)._value.get() for outcome in ("found", "missed")]
    assert [1.0, 1.0] == found  # both labels score alike: the first is the best


def test_a_prediction_says_how_many_of_its_scores_were_known_from_before(scene: Scene) -> None:
    counts: list[PairCounts] = []

    def encode(prediction: Prediction, scored: Scored) -> OutboundRecord:
        counts.append(prediction.pairs)
        return out(scored.record)

    scene.encode = encode
    first, second = scene.good(0), scene.good(1)
    scored = scene.scored()
    assert isinstance(scored, BatchScored)
    rows = {ref: row for row, ref in enumerate(scored.batch.refs)}
    [known] = [row for ref, row in rows.items() if (ref.message, ref.pair) == (2, 1)]
    others = [row for row in rows.values() if row != known]
    parts = [
        BatchScored(scored.batch.take(chosen), PairScores(scored.scores.logits[chosen]), is_cached=is_cached)
        for chosen, is_cached in (([known], True), (others, False))
    ]
    scene.run(*first, *second, *parts, 0.1, Finish())
    assert [PairCounts(2), PairCounts(1, cached=1)] == counts


def test_a_record_is_traced_up_to_its_commit_however_often_it_was_left(scene: Scene) -> None:
    kept = KeptSpans()
    scene.tracing, scene.publisher.left_once = kept.tracing, {1}
    events = [*scene.bad(0, 1), *scene.good(2)]
    assert [(0.1, [0]), (0.2, [1]), (0.35, [2])] == scene.run(*events, 0.25, scene.scored(), 0.1)
    assert ["dead_letter", "dead_letter", "predicted"] == kept.outcomes()


def test_what_is_neither_left_nor_committed_is_traced_as_dropped(scene: Scene) -> None:
    kept = KeptSpans()
    scene.tracing = kept.tracing
    events = scene.bad(0, 1)
    scene.publisher.lost_once = {0}
    assert [(0.1, [1])] == scene.run(*events, 0.2)
    assert ["dropped", "dead_letter"] == kept.outcomes()
    assert 0 == scene.in_flight.records


def test_what_went_with_its_partition_is_traced_as_dropped_finished_or_not(scene: Scene) -> None:
    kept = KeptSpans()
    scene.tracing = kept.tracing
    events = [*scene.bad(0), *scene.good(1)]
    gone = PartitionsGone(frozenset({TopicPartition("in", 0)}))
    assert [] == scene.run(*events, gone, Finish())
    assert ["dropped", "dropped"] == kept.outcomes()


def test_what_predictions_select_is_counted_abstentions_by_topic_and_drift_by_version(scene: Scene) -> None:
    schema = parse_schema(
        {"name": "kinds", "version": 3, "labels": [{"name": "a"}, {"name": "b"}], "abstain": {"below": 0.9}}, "test"
    )
    events: list[Event] = []
    for offset, labels in enumerate([schema, LABELS, schema]):
        [admitted] = scene.good(offset)
        assert isinstance(admitted, Admitted)
        events.append(replace(admitted, plan=plan_pairs(Request("id", "text"), labels, 10)))
    scene.run(*events, *scene.bad(3), scene.scored(), Finish())
    assert 2.0 == scene.metrics.abstentions.labels(topic="in")._value.get()
    noted = {key: kept._predictions for key, kept in scene.metrics.label_drift._versions.items()}
    assert {("kinds", 3): 2, ("kinds", 1): 1} == noted


def test_a_topic_that_never_abstains_says_so(scene: Scene) -> None:
    """A series that is not there yet has no rate when it comes."""
    scene.run(*scene.good(0), scene.scored(), Finish())
    assert 'worker_abstentions_total{topic="in"} 0.0' in scene.metrics.render().decode()
