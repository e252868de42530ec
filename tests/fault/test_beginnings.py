"""A worker that dies before it has committed anything, and retention that goes on meanwhile."""

import signal

import pytest
from confluent_kafka import TopicPartition as KafkaPartition

from tests.fault.conftest import StreamFactory
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HEALTHY, PARTITIONS
from tests.support.chaos_worker import Faults
from tests.support.wait import wait_until

pytestmark = pytest.mark.kafka


def forget(kafka: BrokerUnderTest, topic: str, first_left: int) -> None:
    """What retention does to partition 0 of `topic`."""
    admin = kafka.admin()  # alive until its futures are done
    (future,) = admin.delete_records([KafkaPartition(topic, 0, first_left)]).values()
    future.result(REQUEST_SECONDS)


def test_what_retention_takes_before_the_first_commit_is_an_error_with_the_gap_counted(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    """The first worker dies with its first records in hand; the second one must not begin with what is left."""
    attacked = stream(100)
    topic = attacked.setup.inputs[0]
    forget(kafka, topic, 5)
    with attacked.worker(Faults(phase="while_scoring")) as process:
        assert -signal.SIGKILL == process.wait(180)
    began = {topic: {0: 5, **dict.fromkeys(range(1, PARTITIONS), 0)}}
    assert began[topic] == kafka.committed_offsets(attacked.group, topic)
    forget(kafka, topic, 15)
    with attacked.worker(HEALTHY, "--until-end") as process:
        assert 1 == process.wait(180)
    assert f"the position of {topic}/0 is out of range: 10 records are gone" in attacked.log()


def test_partitions_of_which_nothing_was_ever_read_are_told_from_those_that_begin_at_0(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    """An empty topic has a position as soon as somebody has it: what comes and goes in it later is a gap."""
    attacked = stream(0)
    topic = attacked.setup.inputs[0]
    with attacked.worker() as process:
        wait_until(lambda: len(kafka.committed_offsets(attacked.group, topic)) == PARTITIONS, 60)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    attacked.feed(100)
    forget(kafka, topic, 25)
    with attacked.worker(HEALTHY, "--until-end") as process:
        assert 1 == process.wait(180)
    assert f"the position of {topic}/0 is out of range: 25 records are gone" in attacked.log()
