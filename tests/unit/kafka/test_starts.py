"""Where reading begins and ends, as a client that stumbles says."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import RetryableError
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.starts import ENDS_TRIES, Starts
from worker.types import TopicPartition


class Stumbling:
    """A client that knows no leader for the first calls, as just after a topic was made."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=[0, 1])})

    def get_watermark_offsets(self, partition: KafkaPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        if self.failures:
            self.failures -= 1
            raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        return 0, 10 + partition.partition


def ends(client: Stumbling, waits: list[float], answers: Sequence[bool] = ()) -> dict[TopicPartition, int]:
    told = iter(answers)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return next(told, False)

    starts = Starts(lambda: cast("Consumer", client), cast("GroupOffsets", None), "earliest")
    return starts.ends(["in"], wait)


def test_ends_are_asked_for_again_while_a_new_topic_has_no_leader() -> None:
    waits: list[float] = []
    expected = {TopicPartition("in", 0): 10, TopicPartition("in", 1): 11}
    assert expected == ends(Stumbling(ENDS_TRIES - 1), waits)
    assert ENDS_TRIES - 1 == len(waits)
    assert sorted(waits) == waits


def test_ends_that_nobody_tells_are_an_error_that_names_the_reason() -> None:
    with pytest.raises(RetryableError, match="_UNKNOWN_PARTITION"):
        ends(Stumbling(1000), [])


def test_ends_are_not_waited_for_once_the_worker_is_to_stop() -> None:
    waits: list[float] = []
    with pytest.raises(RetryableError):
        ends(Stumbling(1000), waits, [True])
    assert 1 == len(waits)
