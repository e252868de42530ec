"""Clients that nobody here wrote understand what ours write, and ours what they write."""

import os

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, kcat_is_installed

pytestmark = pytest.mark.kafka


@pytest.fixture
def _kcat() -> None:
    if kcat_is_installed():
        return
    if os.environ.get("CI"):
        pytest.fail("kcat is not installed: apt-get install kcat", pytrace=False)
    pytest.skip("kcat is not installed: apt-get install kcat")


@pytest.mark.usefixtures("_kcat")
def test_kcat_and_kafkas_console_tools_and_we_read_each_others_records(
    kafka: BrokerUnderTest, topics: TopicsFactory
) -> None:
    (topic,) = topics("foreign", partitions=1)

    kafka.kcat_produce(topic, '{"text": "von kcat, größer"}\n'.encode())
    kafka.console_produce(topic, b'{"text": "from the console producer"}\n')
    kafka.produce(topic, [b'{"text": "from us"}'])

    expected = [
        '{"text": "von kcat, größer"}'.encode(),
        b'{"text": "from the console producer"}',
        b'{"text": "from us"}',
    ]
    assert expected == kafka.kcat_consume(topic)
    assert expected == kafka.console_consume(topic, count=3)
    assert expected == [message.value() for message in kafka.read_committed(topic)]


@pytest.mark.usefixtures("_kcat")
def test_kcat_writes_keys_and_headers_that_we_read(kafka: BrokerUnderTest, topics: TopicsFactory) -> None:
    (topic,) = topics("keyed")

    kafka.kcat_produce(topic, b"customer-7:value\n", "-K", ":", "-H", "trace=abc")

    (message,) = kafka.read_committed(topic)
    assert (b"customer-7", b"value") == (message.key(), message.value())
    assert [("trace", b"abc")] == message.headers()
