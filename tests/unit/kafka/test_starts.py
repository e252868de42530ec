"""Where reading begins and ends, as a client that stumbles says."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.scripted_kafka import kafka_error
from worker.errors import FatalError, RetryableError
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.starts import BEGINNING_TRIES, ENDS_TRIES, Starts
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


LANE, OTHER = TopicPartition("in", 0), TopicPartition("in", 1)
BOTH = frozenset({LANE, OTHER})


class Group:
    """A group, the partitions it reads, and a member of it: what is committed, and what the next calls meet."""

    def __init__(self) -> None:
        self.offsets: dict[TopicPartition, int] = {}
        self.first = {LANE: 20, OTHER: 0}
        self.refusals: list[int] = []
        """Codes with which the next commits are refused."""
        self.silences = 0
        self.silent: set[TopicPartition] = set()
        self.forbidden: set[TopicPartition] = set()
        self.calls: list[str] = []

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.offsets[partition] for partition in partitions if partition in self.offsets}

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=[0, 1])})

    def get_watermark_offsets(self, partition: KafkaPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return self.first[TopicPartition(partition.topic, partition.partition)], 50

    def offsets_for_times(self, partitions: Sequence[KafkaPartition], timeout: float) -> list[SimpleNamespace]:
        assert timeout > 0
        assert {OFFSET_BEGINNING} == {each.offset for each in partitions}
        self.calls.append("beginnings")
        if self.silences:
            self.silences -= 1
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        places = [TopicPartition(each.topic, each.partition) for each in partitions]
        told = {place: offset for place, offset in self.first.items() if place not in self.silent}
        return [answer(place, told.get(place, OFFSET_BEGINNING), place in self.silent) for place in places]

    def commit(self, offsets: Sequence[KafkaPartition], asynchronous: bool) -> list[SimpleNamespace]:
        assert not asynchronous
        self.calls.append("commit")
        if self.refusals:
            raise KafkaException(kafka_error(self.refusals.pop(0)))
        wanted = {TopicPartition(each.topic, each.partition): each.offset for each in offsets}
        self.offsets |= {place: offset for place, offset in wanted.items() if place not in self.forbidden}
        return [answer(place, offset, place in self.forbidden) for place, offset in wanted.items()]

    def starts(self, start: str = "earliest") -> Starts:
        return Starts(lambda: cast("Consumer", self), cast("GroupOffsets", self), start)


def answer(place: TopicPartition, offset: int, is_refused: bool) -> SimpleNamespace:
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED) if is_refused else None
    return SimpleNamespace(topic=place.topic, partition=place.partition, offset=offset, error=error)


def no_wait(_attempt: int) -> None: ...


def test_where_reading_begins_is_committed_before_a_record_is_read() -> None:
    """Else what retention takes before the first commit would be skipped without a word by whoever comes next."""
    group = Group()
    assert {LANE: 20, OTHER: 0} == group.starts().of(BOTH, no_wait)
    assert {LANE: 20, OTHER: 0} == group.offsets


def test_a_position_that_is_committed_stays_as_it_is() -> None:
    group = Group()
    group.offsets = {LANE: 7}
    assert {LANE: 7, OTHER: 0} == group.starts().of(BOTH, no_wait)
    assert {LANE: 7, OTHER: 0} == group.offsets
    group.calls.clear()
    assert {LANE: 7, OTHER: 0} == group.starts().of(BOTH, no_wait)
    assert [] == group.calls


def test_nothing_is_asked_or_committed_for_no_partitions() -> None:
    group = Group()
    assert {} == group.starts().of(frozenset(), no_wait)
    assert [] == group.calls


def test_a_beginning_that_was_committed_late_is_committed_all_the_same() -> None:
    group, waits = Group(), list[int]()
    group.silences, group.refusals = 1, [KafkaError.REBALANCE_IN_PROGRESS]
    assert {LANE: 20, OTHER: 0} == group.starts().of(BOTH, waits.append)
    assert ([1, 2], group.first) == (waits, group.offsets)


def test_a_member_that_was_thrown_out_meanwhile_does_not_wait_for_what_cannot_come() -> None:
    """The client tells of the next assignment only once this one is dealt with."""
    group, waits = Group(), list[int]()
    group.refusals = [KafkaError.ILLEGAL_GENERATION]
    assert dict.fromkeys(BOTH, OFFSET_BEGINNING) == group.starts().of(BOTH, waits.append)
    assert ([], {}) == (waits, group.offsets)


def test_beginnings_that_nobody_tells_hold_up_no_assignment() -> None:
    group, waits = Group(), list[int]()
    group.silences = 1000
    assert dict.fromkeys(BOTH, OFFSET_BEGINNING) == group.starts().of(BOTH, waits.append)
    assert BEGINNING_TRIES == len(waits)


@pytest.mark.parametrize("which", ["silent", "forbidden"])
def test_a_partition_that_does_not_tell_or_take_one_keeps_no_other_from_it(which: str) -> None:
    group = Group()
    getattr(group, which).add(OTHER)
    assert {LANE: 20, OTHER: OFFSET_BEGINNING} == group.starts().of(BOTH, no_wait)
    assert {LANE: 20} == group.offsets


def test_latest_commits_the_end_of_what_was_there_and_the_beginning_of_what_came_later() -> None:
    group = Group()
    starts = group.starts("latest")
    starts.prepare(["in"])
    later = TopicPartition("later", 0)
    group.first[later] = 3
    assert {LANE: 50, OTHER: 50, later: 3} == starts.of(BOTH | {later}, no_wait)
    assert {LANE: 50, OTHER: 50, later: 3} == group.offsets


def test_error_commits_nothing_where_nothing_is_committed() -> None:
    group = Group()
    with pytest.raises(FatalError, match="in/0 has no committed offset"):
        group.starts("error").of(BOTH, no_wait)
    assert {} == group.offsets
