from pathlib import Path

import pytest
from confluent_kafka import KafkaException

import worker
from worker.kafka.embedded_storage import free_port
from worker.kafka.group_offsets import GroupOffsets
from worker.types import TopicPartition


def test_nothing_is_asked_where_no_partition_is_meant() -> None:
    assert {} == GroupOffsets({"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}, "group").committed([])


def test_a_broker_that_does_not_answer_is_told_within_the_time_given() -> None:
    client: dict[str, str | int | float] = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
    with pytest.raises(KafkaException):
        GroupOffsets(client, "group", timeout_seconds=0.1).committed([TopicPartition("in", 0)])


def test_no_admin_client_is_asked_for_offsets_of_a_group() -> None:
    """Librdkafka ends the process by SIGSEGV where the coordinator has moved: see `ask_committed`."""
    rooms = Path(worker.__file__).parent
    assert [] == [file.name for file in rooms.rglob("*.py") if "list_consumer_group_offsets" in file.read_text()]
