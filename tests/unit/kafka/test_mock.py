"""The mock broker takes and gives records, and promises no more."""

import pytest
from confluent_kafka import KafkaException

from tests.support.broker import BrokerUnderTest
from worker.kafka.embedded_jars import BrokerUnavailableError
from worker.kafka.mock import MOCK_PARTITIONS, MockKafka


def test_what_is_written_can_be_read_and_every_topic_has_the_same_partitions() -> None:
    with MockKafka() as mock:
        mock.create_topics({"in": 1})
        client = BrokerUnderTest(mock.bootstrap_servers, mock.cluster_id)
        client.produce("in", [{"value": b"first", "partition": 3}])

        assert MOCK_PARTITIONS == len(client.admin().list_topics("in", timeout=10).topics["in"].partitions)
        assert [(3, b"first")] == [(message.partition(), message.value()) for message in client.read_committed("in")]


def test_after_closing_nobody_answers() -> None:
    mock = MockKafka()
    mock.start()
    client = BrokerUnderTest(mock.bootstrap_servers, mock.cluster_id)

    mock.close()
    mock.close()

    with pytest.raises(KafkaException):
        client.admin().list_topics(timeout=1)


def test_topics_of_a_broker_that_is_not_started_cannot_be_created() -> None:
    with pytest.raises(BrokerUnavailableError, match="not started"):
        MockKafka().create_topics({"in": 1})
