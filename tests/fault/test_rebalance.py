"""Partitions that move while their records are in flight."""

import json
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # re-exported without saying so

from tests.conftest import TopicsFactory
from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HEALTHY, STEADY, Stream, under
from tests.support.chaos_worker import Faults
from tests.support.scripted_kafka import finished
from tests.support.wait import wait_until
from worker.clock import SystemClock
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import Assignment
from worker.kafka.producer import TransactionalPublisher
from worker.kafka.publishing import PublisherParts
from worker.kafka.refusals import RefusedTopics
from worker.kafka.topics import TopicDirectory
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


def test_partitions_that_are_added_are_read(kafka: BrokerUnderTest, stream: StreamFactory) -> None:
    attacked = stream(40, {"kafka": {"librdkafka": {"topic.metadata.refresh.interval.ms": 1000}}})
    topic = attacked.setup.inputs[0]
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: attacked.position() == 80, 60)
        admin = kafka.admin()  # alive until its futures are done
        for future in admin.create_partitions([NewPartitions(topic, 6)]).values():
            future.result(REQUEST_SECONDS)
        more = [{"value": json.dumps({"id": f"n-{n}", "text": "more"}), "partition": 5} for n in range(40, 60)]
        wait_until(lambda: _takes(kafka, topic, 5), 30)
        kafka.produce(topic, more)
        wait_until(lambda: attacked.position() == 100, 60)
        assert process.poll() is None
    seen = kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq")
    numbers = Counter((m.value() or b"").split(b"n-")[1].split(b'"')[0] for m in seen)
    assert {str(n).encode(): 1 for n in range(60)} == numbers


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
