"""Partitions that move while their records are in flight."""

import re
import signal
import subprocess
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # re-exported without saying so

from tests.conftest import TopicsFactory
from tests.fault.conftest import Noted, StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import (
    HEALTHY,
    PARTITIONS,
    SOON,
    STEADY,
    Stream,
    Tally,
    event,
    kind_of,
    number_of,
    promised,
    under,
)
from tests.support.chaos_worker import Faults
from tests.support.scripted_kafka import finished
from tests.support.wait import conclusive, wait_until
from worker.clock import SystemClock
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import Assignment
from worker.kafka.producer import TransactionalPublisher
from worker.kafka.publishing import PublisherParts
from worker.kafka.refusals import RefusedTopics
from worker.kafka.topics import TopicDirectory, murmur2_partition
from worker.messages.dead_letter import dead_letter
from worker.types import Record, TopicPartition

pytestmark = pytest.mark.kafka

SLOW = Faults(engine_seconds=0.1)
DEAD_SESSION_MS = 10_000
ANY_PORT = {"WORKER_HTTP__PORT": "0"}


def member(number: int) -> dict[str, str]:
    return {"WORKER_KAFKA__INSTANCE_ID": f"pod-{number}", **ANY_PORT}


def storm(attacked: Stream, changes: int, *, kill_every: int, static: bool = False) -> None:
    """Two workers, of which the older is replaced again and again, every `kill_every`-th time without warning.

    With `static` members whoever comes has the name of who went before the last one.
    """
    with ExitStack() as stack:

        def start(number: int) -> subprocess.Popen[bytes]:
            environment = member(number % 3 if static else number)
            return stack.enter_context(attacked.worker(STEADY, environment=environment))

        workers = [start(number) for number in range(2)]
        attacked.await_members(2)
        for change in range(changes):
            workers.append(start(2 + change))
            attacked.await_members(3)
            leaving = workers.pop(0)
            if change % kill_every == 0:
                leaving.kill()
            else:
                leaving.send_signal(signal.SIGTERM)
                assert 0 == leaving.wait(180)
            attacked.await_members(2)
            attacked.await_progress(30, 90)
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [0, 0] == [worker.wait(180) for worker in workers]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_workers_that_join_leave_and_die_lose_and_double_nothing(
    stream: StreamFactory, verdict: Verdict, protocol: str
) -> None:
    attacked = stream(4000, under(protocol))
    storm(attacked, 2, kill_every=2)
    assert verdict(attacked, f"workers join, leave and die ({protocol})", attacked.run_to_end()).is_perfect


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("membership", ["dynamic", "static"])
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_storm_of_twenty_rebalances_loses_and_doubles_nothing(
    stream: StreamFactory, verdict: Verdict, protocol: str, membership: str
) -> None:
    attacked = stream(40_000, under(protocol, static_membership=membership == "static"))
    storm(attacked, 20, kill_every=3, static=membership == "static")
    name = f"storm of 20 changes ({protocol}, {membership} members)"
    assert verdict(attacked, name, attacked.run_to_end(600)).is_perfect


ADDED = range(600, 720)
"""Numbers of the records in partitions that were added; half of them have keys."""


def added(number: int) -> dict[str, object]:
    """The record of this number in a partition that was added."""
    return {**event(number), "key": event(number)["key"] if number // 2 % 2 else None, "partition": 4 + number % 2}


def test_partitions_that_are_added_under_load_are_read_in_order(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    """Their outputs have fewer: a key has one of those to itself, and without keys a whole partition has."""
    attacked = stream(600, {"kafka": {"librdkafka": {**SOON, "topic.metadata.refresh.interval.ms": 1000}}})
    topic, other = attacked.setup.inputs
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        admin = kafka.admin()  # alive until its futures are done
        for future in admin.create_partitions([NewPartitions(topic, 6)]).values():
            future.result(REQUEST_SECONDS)
        wait_until(lambda: _takes(kafka, topic, 5), 30)
        kafka.produce(topic, [added(number) for number in ADDED])
        conclusive(attacked.position() < attacked.total, "they were added when all was done")
        wait_until(lambda: kafka.committed_offsets(attacked.group, topic).keys() > {4, 5}, 90)
        process.kill()
    conclusive(attacked.position() < attacked.total + len(ADDED), "all was done when it was killed")
    with attacked.worker(HEALTHY, "--until-end") as process:
        assert 0 == process.wait(270)
    assert attacked.position() == attacked.total + len(ADDED)
    seen = kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq")
    assert dict.fromkeys(range(ADDED.stop), 1) == Counter(map(number_of_added, seen))
    lanes = defaultdict(list)
    for message in seen:
        number = number_of_added(message)
        record = added(number) if number in ADDED else event(number)
        source, key = int(str(record["partition"])), record["key"]
        is_spread = source >= PARTITIONS and key is not None
        place = murmur2_partition(str(key).encode(), PARTITIONS) if is_spread else source % PARTITIONS
        assert place == message.partition()
        assert ("predictions" if kind_of(number) == "good" else "dlq") == str(message.topic()).rsplit(".", 1)[1]
        lanes[message.topic(), source, message.partition()].append(number)
    assert [] == [lane for lane, numbers in lanes.items() if numbers != sorted(numbers)]
    assert 18 == len(lanes)  # the four partitions that were there, two of them with dead letters, and eight and four
    rest = attacked.tally_topic(other, kafka.read_committed(f"{other}.predictions", f"{other}.dlq"))
    tally = Tally(len(seen) + rest["results"], rest["lost"], rest["doubled"], rest["reordered"], rest["misplaced"])
    noted("partitions added under load, half of their records with keys, SIGKILL", tally, None)
    assert Tally(1320, lost=0, doubled=0, reordered=0, misplaced=0) == promised(tally)


def number_of_added(message: Message) -> int:
    """As `number_of`, where partitions have come: there the number of a record says nothing of its position."""
    assert message.value() is not None
    return number_of(message)


def test_a_topic_that_comes_to_match_a_pattern_is_read_while_workers_come_and_go(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, verdict: Verdict
) -> None:
    first = topics("family", partitions=PARTITIONS)[0]
    later = f"{first}.later"
    changes = {
        "topics": [{"input": f"^{re.escape(first)}(\\.later)?$", "label_schema": "kinds"}],
        "kafka": {"librdkafka": {**SOON, "topic.metadata.refresh.interval.ms": 1000}},
    }
    attacked = Stream(kafka, tmp_path, [first], changes)
    attacked.feed(1200)
    with (
        attacked.worker(STEADY, environment=member(0)) as dying,
        attacked.worker(STEADY, environment=member(1)) as other,
    ):
        attacked.await_progress(100)
        attacked.setup = replace(attacked.setup, inputs=(first, later))
        kafka.create_topics(dict.fromkeys([f"{later}.predictions", f"{later}.dlq"], PARTITIONS))
        kafka.create_topics({later: PARTITIONS})
        kafka.produce(later, [event(number) for number in range(attacked.count)])
        wait_until(lambda: any(kafka.committed_offsets(attacked.group, later).values()), 60)
        dying.kill()
        attacked.await_progress(100, 90)
        assert other.poll() is None
    attacked.run_to_end()
    assert verdict(attacked, "a topic comes to match a pattern, SIGKILL of one of two").is_perfect


def _takes(kafka: BrokerUnderTest, topic: str, partition: int) -> bool:
    return partition in kafka.admin().list_topics(timeout=REQUEST_SECONDS).topics[topic].partitions


@contextmanager
def moved_partition(kafka: BrokerUnderTest, topic: str) -> Iterator[tuple[Consumer, KafkaPartition]]:
    """A member that owned all partitions, and the one of them that it has just lost to another member."""
    settings: dict[str, str | int | bool] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": f"group-{topic}",
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    former, latter = Consumer(settings), Consumer(settings)
    former.subscribe([topic])
    _poll_until(former, lambda: len(former.assignment()) == 4)
    latter.subscribe([topic])
    _poll_until(former, lambda: bool(latter.poll(0.05) or latter.assignment()))
    _poll_until(former, lambda: len(former.assignment()) == 2 and bool(latter.poll(0.05) or latter.assignment()))
    (lost, *_) = latter.assignment()
    latter.commit(offsets=[KafkaPartition(topic, lost.partition, 10)], asynchronous=False)
    try:
        yield former, lost
    finally:
        former.close()
        latter.close()


def _poll_until(consumer: Consumer, predicate: Callable[[], bool]) -> None:
    def step() -> bool:
        consumer.poll(0.05)
        return predicate()

    wait_until(step, 30)


def publisher_of(kafka: BrokerUnderTest, topics: list[str], assignment: Assignment) -> TransactionalPublisher:
    client: dict[str, str | int | float] = {"bootstrap.servers": kafka.bootstrap_servers}
    directory = TopicDirectory(client)
    directory.refresh(topics)
    settings = {**client, "transactional.id": f"group-{topics[0]}.former", "transaction.timeout.ms": 10_000}
    group = GroupOffsets(client, f"group-{topics[0]}")
    clock = SystemClock()
    parts = PublisherParts(
        settings,
        group,
        assignment,
        directory,
        clock,
        lambda _outcome: None,
        lambda record, refusal: dead_letter(record, refusal, topics[1]),
        RefusedTopics(clock, lambda _topic, _reason: None),
    )
    publisher = TransactionalPublisher(parts, threading.Event().wait, lambda _reason: None)
    publisher.start()
    return publisher


@pytest.mark.parametrize("is_filtered", [True, False])
def test_only_the_worker_itself_can_keep_a_lost_partition_from_being_committed_again(
    kafka: BrokerUnderTest, topics: TopicsFactory, is_filtered: bool
) -> None:
    """Fresh metadata and a partition of another member: the broker takes outputs and offset; the filter does not."""
    topic, out = topics("in", "out")
    assignment = Assignment()
    assignment.assign([TopicPartition(topic, number) for number in range(4)])
    with moved_partition(kafka, topic) as (former, lost):
        assignment.note_membership(former.consumer_group_metadata())
        if is_filtered:
            assignment.revoke([TopicPartition(topic, lost.partition)])
        publisher = publisher_of(kafka, [topic, out], assignment)
        record = Record(topic, lost.partition, 3, epoch=1, key=None, value=b"{}")
        publisher.publish([finished(record, out)])
        publisher.close()
    assert (0 if is_filtered else 1) == len(kafka.read_committed(out))
    assert (10 if is_filtered else 4) == kafka.committed_offsets(f"group-{topic}", topic)[lost.partition]


def test_a_run_until_the_end_waits_for_what_a_dead_member_holds(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    """Under KIP-848 a worker gets what the living held at once, and the rest when the dead one's session has ended."""
    attacked = stream(600, under("consumer"))
    kafka.shorten_sessions(attacked.group, DEAD_SESSION_MS)
    with (
        attacked.worker(SLOW, environment=member(0)) as dying,
        attacked.worker(SLOW, environment=member(1)) as other,
    ):
        wait_until(lambda: attacked.log().count('"partition.assigned"') >= 2, 60)
        attacked.await_progress(20)
        dying.kill()
        other.send_signal(signal.SIGTERM)
        assert 0 == other.wait(180)
    name = f"SIGKILL of one of two (consumer, session {DEAD_SESSION_MS // 1000} s), until the end"
    assert verdict(attacked, name, attacked.run_to_end()).is_perfect


def test_two_that_run_until_the_end_wait_for_each_other(stream: StreamFactory, verdict: Verdict) -> None:
    attacked = stream(600)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(attacked.worker(SLOW, "--until-end", environment=member(number))) for number in range(2)
        ]
        assert [0, 0] == [worker.wait(360) for worker in workers]
    assert attacked.position() == 2 * attacked.count
    assert verdict(attacked, "two workers until the end").is_perfect
