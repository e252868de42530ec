"""What the client reports: told once, taken back, or the end."""

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from worker.clock import ManualClock
from worker.errors import FatalError
from worker.kafka.complaints import LAPSE_SECONDS, Complaints, StartOverError


def error(code: int, text: str = "") -> KafkaError:
    make = cast("Any", KafkaError)  # the stubs know only its first two arguments
    return cast("KafkaError", make(code, text))


FORBIDDEN = error(KafkaError.GROUP_AUTHORIZATION_FAILED)
Told = list[tuple[str, str | None]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def complaints(told: Told, clock: ManualClock) -> Complaints:
    return Complaints("pod-0", clock, lambda subject, reason: told.append((subject, reason)))


def test_a_right_that_is_missing_is_told_with_its_fix_until_it_is_no_longer_missed(
    complaints: Complaints, told: Told, clock: ManualClock
) -> None:
    complaints.note(FORBIDDEN, None)
    clock.advance(LAPSE_SECONDS - 1)
    complaints.note(FORBIDDEN, None)
    clock.advance(LAPSE_SECONDS - 1)
    complaints.review()
    reason = "the group may not be used (GROUP_AUTHORIZATION_FAILED): grant Read on the consumer group"
    assert {("group", reason)} == set(told)
    clock.advance(1)
    complaints.review()
    assert ("group", None) == told[-1]


def test_a_topic_that_may_not_be_read_is_told_by_name_until_it_gives_records_again(
    complaints: Complaints, told: Told
) -> None:
    complaints.note(error(KafkaError.TOPIC_AUTHORIZATION_FAILED), "in")
    complaints.over("in")
    complaints.over("in")
    reason = "in may not be read (TOPIC_AUTHORIZATION_FAILED): grant Read and Describe on it"
    assert [("in", reason), ("in", None)] == told


def test_what_the_client_gets_over_by_itself_is_nobody_elses_matter(complaints: Complaints, told: Told) -> None:
    complaints.note(error(KafkaError._TRANSPORT), None)
    assert [] == told


def test_a_name_that_another_worker_has_taken_ends_the_worker_with_the_fix(complaints: Complaints) -> None:
    words = "Broker: Static consumer fenced by other consumer with same group.instance.id"
    with pytest.raises(FatalError, match=r"another worker has joined as kafka.instance_id pod-0: give every worker"):
        complaints.note(error(KafkaError._FATAL, words), None)


def test_a_name_that_is_not_free_yet_is_tried_again(complaints: Complaints) -> None:
    words = "Broker: The instance ID is still used by another member in the consumer group"
    with pytest.raises(StartOverError, match=r"kafka\.instance_id pod-0"):
        complaints.note(error(KafkaError._FATAL, words), None)


def test_a_group_that_may_not_be_used_is_tried_again_where_that_ends_the_client(complaints: Complaints) -> None:
    with pytest.raises(StartOverError, match="grant Read on the consumer group"):
        complaints.note(error(KafkaError._FATAL, "Broker: Group authorization failed"), None)


def test_any_other_end_of_the_client_is_the_end(complaints: Complaints) -> None:
    with pytest.raises(FatalError, match="cannot go on"):
        complaints.note(error(KafkaError._FATAL, "something else"), None)
