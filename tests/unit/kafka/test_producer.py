"""The transactional publisher against a broker that does what each test says."""

import threading
from dataclasses import dataclass, field, replace

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scripted_kafka import (
    BROKEN,
    FENCED,
    MEMBERSHIP,
    STALE,
    TIMED_OUT,
    KnownTopics,
    OneAtATime,
    ScriptedBroker,
    Step,
    Waits,
    finished,
    finished_lane,
    kafka_error,
    publisher_parts,
)
from tests.support.strategies import record as record_at
from tests.support.wait import wait_until
from worker.clock import ManualClock
from worker.errors import FatalError
from worker.kafka.bounded_calls import BoundedCalls
from worker.kafka.offsets import Assignment
from worker.kafka.producer import FENCE_WINDOW_SECONDS, TransactionalPublisher
from worker.kafka.publishing import StoppedError
from worker.types import Finished, OutboundRecord, TopicPartition

LANES = tuple(TopicPartition("in", number) for number in range(4))


@dataclass
class Scene:
    """A publisher that owns four partitions, and all that it talks to."""

    broker: ScriptedBroker = field(default_factory=ScriptedBroker)
    assignment: Assignment = field(default_factory=Assignment)
    topics: KnownTopics = field(default_factory=lambda: KnownTopics({"out"}))
    clock: ManualClock = field(default_factory=ManualClock)
    troubles: list[str | None] = field(default_factory=list)
    calls: BoundedCalls = field(default_factory=BoundedCalls)

    def __post_init__(self) -> None:
        self.assignment.assign(LANES)
        self.assignment.note_membership(MEMBERSHIP)
        self.waits = Waits(self.clock)
        parts = publisher_parts(self.broker, self.assignment, self.topics, self.clock)
        self.publisher = TransactionalPublisher(parts, self.waits, self.troubles.append, self.calls)
        self.publisher.start()
        self.broker.calls.clear()

    def values(self) -> list[bytes | None]:
        return [value for _, _, value in self.broker.outputs]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def values_of(records: list[Finished]) -> list[bytes | None]:
    return [output.value for each in records for output in each.outputs]


def test_outputs_and_offsets_leave_in_one_transaction(scene: Scene) -> None:
    records = finished_lane(0, range(3)) + finished_lane(1, [7])
    published = scene.publisher.publish(records)
    assert records == list(published.committed)
    assert values_of(records) == scene.values()
    assert {LANES[0]: 3, LANES[1]: 8} == scene.broker.offsets
    assert ["begin", *["produce"] * 4, "send_offsets", "commit"] == scene.broker.calls


def test_after_an_abort_the_same_records_are_sent_again(scene: Scene) -> None:
    scene.broker.plan("send_offsets", Step(STALE))
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    once = ["begin", "produce", "produce", "send_offsets"]
    assert [*once, "abort", *once, "commit"] == scene.broker.calls
    assert values_of(records) == scene.values()


def test_a_commit_that_is_refused_is_aborted_and_sent_again(scene: Scene) -> None:
    scene.broker.plan("commit", Step(kafka_error(KafkaError.MSG_SIZE_TOO_LARGE, "abort")))
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    assert 1 == scene.broker.calls.count("abort")
    assert values_of(records) == scene.values()


@pytest.mark.parametrize("call", ["begin", "send_offsets", "commit"])
def test_a_retriable_error_repeats_the_same_call(scene: Scene, call: str) -> None:
    scene.broker.plan(call, Step(TIMED_OUT), Step(TIMED_OUT))
    scene.publisher.publish(finished_lane(0, [0]))
    assert 3 == scene.broker.calls.count(call)
    assert 0 == scene.broker.calls.count("abort")
    assert 1 == len(scene.broker.producers)
    assert 1 == len(scene.broker.outputs)
    assert scene.troubles[-1] is None


@pytest.mark.parametrize("is_done", [True, False])
def test_a_commit_that_times_out_for_good_is_never_aborted_but_asked_of_the_group(scene: Scene, is_done: bool) -> None:
    def stop_answering() -> None:
        scene.clock.advance(11)

    scene.broker.plan("commit", Step(TIMED_OUT, is_done=is_done, before=stop_answering))
    records = finished_lane(0, [0])
    published = scene.publisher.publish(records)
    assert 0 == scene.broker.calls.count("abort")
    assert 2 == len(scene.broker.producers)
    assert 1 == scene.broker.calls.count("committed")
    assert (1 if is_done else 2) == scene.broker.calls.count("begin")
    assert records == list(published.committed)
    assert values_of(records) == scene.values()


@pytest.mark.parametrize("is_done", [True, False])
def test_after_a_fatal_error_a_producer_of_the_same_id_sends_what_the_group_has_not(
    scene: Scene, is_done: bool
) -> None:
    scene.broker.plan("commit", Step(FENCED, is_done=is_done))
    records = finished_lane(0, range(3)) + finished_lane(2, range(2))
    scene.publisher.publish(records)
    assert ["group.pod-0"] * 2 == [producer.settings["transactional.id"] for producer in scene.broker.producers]
    assert values_of(records) == scene.values()
    assert {LANES[0]: 3, LANES[2]: 2} == scene.broker.offsets


@pytest.mark.parametrize("is_done", [True, False])
def test_a_commit_that_is_refused_after_it_went_unanswered_is_asked_of_the_group(scene: Scene, is_done: bool) -> None:
    scene.broker.plan("commit", Step(TIMED_OUT, is_done=is_done), Step(STALE))
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    assert 0 == scene.broker.calls.count("abort")
    assert values_of(records) == scene.values()


def test_two_fences_within_a_minute_name_the_shared_id(scene: Scene) -> None:
    scene.broker.plan("commit", Step(FENCED), Step(FENCED))
    with pytest.raises(FatalError, match=r"another process uses the transactional id group\.pod-0"):
        scene.publisher.publish(finished_lane(0, [0]))
    assert [] == scene.broker.outputs


def test_two_fences_further_apart_are_no_reason_to_end(scene: Scene) -> None:
    scene.broker.plan("commit", Step(FENCED))
    scene.publisher.publish(finished_lane(0, [0]))
    scene.clock.advance(FENCE_WINDOW_SECONDS + 1)
    scene.broker.plan("commit", Step(FENCED))
    scene.publisher.publish(finished_lane(0, [1]))
    assert 2 == len(scene.broker.outputs)


@pytest.mark.parametrize("call", ["send_offsets", "commit"])
def test_a_transaction_that_the_broker_ended_for_its_age_is_no_fence(scene: Scene, call: str) -> None:
    slow = Step(FENCED, before=lambda: scene.clock.advance(6))
    scene.broker.plan(call, slow, slow, slow)
    scene.publisher.publish(finished_lane(0, [0]))
    assert 4 == len(scene.broker.producers)
    assert 1 == len(scene.broker.outputs)


def test_what_takes_longer_than_the_broker_grants_is_sent_in_smaller_transactions_until_they_get_through(
    scene: Scene,
) -> None:
    """On a slow network; sent again as it is it would take as long again, and so for ever."""
    late = Step(FENCED, before=lambda: scene.clock.advance(20))
    scene.broker.plan("commit", late, late, *[Step()] * 3, late)
    records = finished_lane(0, range(8))
    scene.publisher.publish(records)
    assert values_of(records) == scene.values()
    assert [8, 4, 2, 3, 3] == sent_before_each(scene, "commit")[:5]
    scene.publisher.publish(finished_lane(1, range(100)))
    assert 108 == len(scene.values())


def test_a_transaction_that_is_lost_at_once_is_sent_again_as_it_is(scene: Scene) -> None:
    scene.broker.plan("commit", Step(FENCED))
    scene.publisher.publish(finished_lane(0, range(8)))
    assert [8, 8] == sent_before_each(scene, "commit")


def sent_before_each(scene: Scene, call: str) -> list[int]:
    """How many records were sent before each `call`, since the one before it."""
    counts = [0]
    for each in scene.broker.calls:
        if each == "produce":
            counts[-1] += 1
        elif each == call:
            counts.append(0)
    return counts[:-1]


def test_an_abort_that_fails_for_good_replaces_the_producer(scene: Scene) -> None:
    scene.broker.plan("send_offsets", Step(STALE))
    scene.broker.plan("abort", Step(BROKEN))
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    assert 2 == len(scene.broker.producers)
    assert values_of(records) == scene.values()


def test_a_partition_revoked_before_the_offsets_are_sent_aborts_and_the_others_go_on(scene: Scene) -> None:
    scene.broker.plan("produce", Step(), Step(before=lambda: scene.assignment.revoke([LANES[0]])))
    lost, kept = finished_lane(0, [0]), finished_lane(1, [0])
    published = scene.publisher.publish(lost + kept)
    assert 1 == scene.broker.calls.count("abort")
    assert 1 == scene.broker.calls.count("send_offsets")
    assert values_of(kept) == scene.values()
    assert {LANES[1]: 1} == scene.broker.offsets
    assert kept == list(published.committed)


def test_a_partition_that_went_and_came_back_while_its_offsets_were_sent_is_not_committed(scene: Scene) -> None:
    def lose_and_regain() -> None:
        scene.assignment.revoke([LANES[0]])
        scene.assignment.assign([LANES[0]])  # in the same generation: the broker takes the offsets

    scene.broker.plan("send_offsets", Step(before=lose_and_regain))
    lost, kept = finished_lane(0, [0]), finished_lane(1, [0])
    published = scene.publisher.publish(lost + kept)
    assert 1 == scene.broker.calls.count("abort")
    assert {LANES[1]: 1} == scene.broker.offsets
    assert values_of(kept) == scene.values()
    assert kept == list(published.committed)


def test_records_of_a_former_assignment_are_never_sent(scene: Scene) -> None:
    scene.assignment.revoke([LANES[0]])
    scene.assignment.assign([LANES[0]])  # back again, under a new epoch
    published = scene.publisher.publish(finished_lane(0, [0], epoch=1))
    assert [] == scene.broker.calls
    assert ((), ()) == (tuple(published.committed), tuple(published.left))


def test_records_in_doubt_of_a_partition_that_went_are_not_sent_again(scene: Scene) -> None:
    scene.broker.plan("commit", Step(FENCED, before=lambda: scene.assignment.revoke([LANES[0]])))
    kept = finished_lane(1, [0])
    scene.publisher.publish(finished_lane(0, [0]) + kept)
    assert values_of(kept) == scene.values()


def test_without_a_member_nothing_is_sent_until_there_is_one(scene: Scene) -> None:
    scene.assignment.note_membership(None)
    scene.waits.at[3] = lambda: scene.assignment.note_membership(MEMBERSHIP)
    scene.publisher.publish(finished_lane(0, [0]))
    assert 3 == scene.waits.count
    assert ["begin", "produce", "send_offsets", "commit"] == scene.broker.calls
    assert "this worker is no member of its group at the moment" in scene.troubles


def test_a_missing_output_topic_leaves_only_the_records_of_its_input(scene: Scene) -> None:
    scene.assignment.assign([TopicPartition("other", 0)])
    waiting = finished(record_at("other", 0, 0, epoch=2), "gone")
    going = finished_lane(0, [0])
    published = scene.publisher.publish([waiting, *going])
    assert [waiting] == list(published.left)
    assert going == list(published.committed)
    assert values_of(going) == scene.values()


def test_records_left_for_a_missing_topic_are_still_left_after_an_abort(scene: Scene) -> None:
    scene.assignment.assign([TopicPartition("other", 0)])
    scene.broker.plan("commit", Step(STALE), Step(FENCED))
    waiting = finished(record_at("other", 0, 0, epoch=2), "gone")
    going = finished_lane(0, [0])
    published = scene.publisher.publish([waiting, *going])
    assert [waiting] == list(published.left)
    assert values_of(going) == scene.values()


def test_records_left_for_a_missing_topic_are_still_left_after_a_time_without_a_member(scene: Scene) -> None:
    scene.assignment.assign([TopicPartition("other", 0)])
    scene.assignment.note_membership(None)
    scene.waits.at[1] = lambda: scene.assignment.note_membership(MEMBERSHIP)
    waiting = finished(record_at("other", 0, 0, epoch=2), "gone")
    going = finished_lane(0, [0])
    published = scene.publisher.publish([waiting, *going])
    assert [waiting] == list(published.left)
    assert going == list(published.committed)


def test_a_topic_that_goes_between_the_look_and_the_send_aborts(scene: Scene) -> None:
    scene.broker.plan("begin", Step(before=scene.topics.names.clear))
    records = finished_lane(0, [0])
    published = scene.publisher.publish(records)
    assert records == list(published.left)
    assert 1 == scene.broker.calls.count("abort")
    assert [] == scene.broker.outputs


def test_a_stop_while_the_broker_is_silent_gives_up_and_aborts_what_is_surely_open(scene: Scene) -> None:
    scene.broker.plan("send_offsets", Step(TIMED_OUT))
    scene.waits.is_stopping = True
    with pytest.raises(StoppedError):
        scene.publisher.publish(finished_lane(0, [0]))
    scene.publisher.close()
    assert ["abort", "purge"] == scene.broker.calls[-2:]


def test_a_stop_while_a_commit_is_in_doubt_leaves_the_transaction_alone(scene: Scene) -> None:
    scene.broker.plan("commit", Step(TIMED_OUT))
    scene.waits.is_stopping = True
    with pytest.raises(StoppedError):
        scene.publisher.publish(finished_lane(0, [0]))
    scene.publisher.close()
    assert 0 == scene.broker.calls.count("abort")


def test_a_group_that_does_not_answer_is_asked_until_it_does(scene: Scene) -> None:
    scene.broker.plan("commit", Step(FENCED, is_done=True))
    scene.broker.plan("committed", Step(TIMED_OUT), Step(TIMED_OUT))
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    assert 3 == scene.broker.calls.count("committed")
    assert values_of(records) == scene.values()


def test_a_broker_that_refuses_transactions_ends_the_worker_with_the_fix() -> None:
    broker = ScriptedBroker()
    broker.plan("init", Step(kafka_error(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)))
    clock = ManualClock()
    parts = publisher_parts(broker, Assignment(), KnownTopics({"out"}), clock)
    publisher = TransactionalPublisher(parts, Waits(clock), lambda _reason: None)
    with pytest.raises(FatalError, match="grant Write and Describe on the transactional id"):
        publisher.start()


def test_offsets_that_are_sent_for_ever_are_left_behind_with_their_producer() -> None:
    scene, comes_back = Scene(calls=BoundedCalls(0.05)), threading.Event()
    scene.broker.plan("send_offsets", Step(BROKEN, before=lambda: wait_until(comes_back.is_set, 60)))
    records = finished_lane(0, range(2))
    assert records == list(scene.publisher.publish(records).committed)
    assert 2 == len(scene.broker.producers)
    assert values_of(records) == scene.values()
    assert {LANES[0]: 2} == scene.broker.offsets
    comes_back.set()


def test_a_commit_that_held_and_was_told_to_be_aborted_is_found_when_it_cannot_be_aborted(scene: Scene) -> None:
    scene.broker.plan("commit", Step(STALE, is_done=True))
    scene.broker.plan("abort", Step(BROKEN))
    records = finished_lane(0, range(2))
    published = scene.publisher.publish(records)
    assert values_of(records) == scene.values()
    assert values_of(records) == values_of(list(published.committed))


mishaps = st.one_of(
    st.tuples(st.sampled_from(["begin", "send_offsets"]), st.builds(Step, st.sampled_from([STALE, TIMED_OUT, BROKEN]))),
    st.tuples(st.just("produce"), st.builds(Step, st.just(kafka_error(KafkaError._QUEUE_FULL)))),
    st.tuples(st.sampled_from(["abort", "init"]), st.builds(Step, st.sampled_from([TIMED_OUT, BROKEN]))),
    st.tuples(st.just("commit"), st.builds(Step, st.just(STALE))),
    st.tuples(st.just("commit"), st.builds(Step, st.sampled_from([TIMED_OUT, BROKEN]), st.booleans())),
    st.tuples(st.just("committed"), st.builds(Step, st.just(TIMED_OUT))),
)


@given(st.lists(mishaps, max_size=12), st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 5))
def test_after_any_mishaps_every_record_is_committed_once_and_in_order(
    planned: list[tuple[str, Step]], lanes: list[int], size: int
) -> None:
    scene = Scene()
    for call, step in planned:
        scene.broker.plan(call, step)
    ahead = dict.fromkeys(range(4), 0)
    records: list[Finished] = []
    for lane in lanes:
        records += finished_lane(lane, [ahead[lane]])
        ahead[lane] += 1
    for at in range(0, len(records), size):
        published = scene.publisher.publish(records[at : at + size])
        assert sorted(values_of(records[at : at + size]), key=str) == sorted(
            values_of(list(published.committed)), key=str
        )
    for lane in range(4):
        expected = values_of([each for each in records if each.record.partition == lane])
        assert expected == [value for _, partition, value in scene.broker.outputs if partition == lane]
    assert {LANES[lane]: count for lane, count in ahead.items() if count} == scene.broker.offsets


@pytest.mark.parametrize(("minutes", "is_kept"), [(-600, True), (0, True), (30, True), (61, False)])
def test_a_timestamp_that_the_topic_would_refuse_goes_into_a_header(scene: Scene, minutes: int, is_kept: bool) -> None:
    timestamp_ms = int(scene.clock.wall() * 1000) + minutes * 60_000
    source = record_at()
    output = OutboundRecord("out", None, b"", (("trace", b"1"),), timestamp_ms, source.source)
    scene.publisher.publish([Finished(source, (output,))])
    (sent,) = scene.broker.producers[0].arguments
    told = [] if is_kept else [("nli-original-timestamp", str(timestamp_ms).encode())]
    assert (timestamp_ms if is_kept else None) == sent.get("timestamp")
    assert [("trace", b"1"), *told] == sent["headers"]


def test_a_right_to_transactions_that_is_taken_away_while_it_works_is_waited_for(scene: Scene) -> None:
    forbidden = Step(kafka_error(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED))
    scene.broker.plan("send_offsets", Step(BROKEN))
    scene.broker.plan("init", forbidden, forbidden)
    records = finished_lane(0, range(2))
    scene.publisher.publish(records)
    assert values_of(records) == scene.values()
    assert any("grant Write and Describe on the transactional id" in (reason or "") for reason in scene.troubles)
    assert scene.troubles[-1] is None


def test_a_coordinator_that_only_takes_its_time_is_asked_again_by_the_same_producer(scene: Scene) -> None:
    scene.broker.plan("send_offsets", Step(BROKEN))
    scene.broker.plan("init", Step(TIMED_OUT), Step(TIMED_OUT))
    scene.publisher.publish(finished_lane(0, range(2)))
    assert 2 == len(scene.broker.producers)


@pytest.mark.parametrize("step", ["commit", "begin", "send_offsets", "abort"])
def test_a_replaced_producer_is_gone_before_the_next_one_is_made(step: str) -> None:
    """Its sockets, its threads and what it has not sent: garbage is collected seldom, so nothing may hold it."""
    broker, assignment, clock = ScriptedBroker(), Assignment(), ManualClock()
    assignment.assign(LANES)
    assignment.note_membership(MEMBERSHIP)
    make = OneAtATime(broker)
    parts = replace(publisher_parts(broker, assignment, KnownTopics({"out"}), clock), make_producer=make)
    publisher = TransactionalPublisher(parts, Waits(clock), lambda _reason: None)
    publisher.start()
    broker.plan("commit", Step(STALE))
    broker.plan(step, Step(BROKEN))
    publisher.publish(finished_lane(0, [0]))
    publisher.close()
    assert 2 == len(make.made)
