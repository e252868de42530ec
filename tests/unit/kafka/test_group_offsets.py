import pytest
from confluent_kafka import KafkaException

from worker.kafka.embedded_storage import free_port
from worker.kafka.offsets import GroupOffsets
from worker.types import TopicPartition


def test_nothing_is_asked_where_no_partition_is_meant() -> None:
    assert {} == GroupOffsets({"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}, "group").committed([])


def test_a_client_that_failed_is_not_asked_again() -> None:
    """Librdkafka's admin client never finds a coordinator again whose broker was down once."""
    client: dict[str, str | int | float] = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
    group = GroupOffsets(client, "group", timeout_seconds=0.1)
    before = group._admin
    with pytest.raises(KafkaException):
        group.committed([TopicPartition("in", 0)])
    assert before is not group._admin
