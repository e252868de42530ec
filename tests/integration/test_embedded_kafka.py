"""The embedded broker is a real one: transactional, durable, and gone when it is closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_jars import BrokerUnavailableError
from worker.kafka.embedded_storage import EmbeddedSettings, free_port

pytestmark = pytest.mark.kafka

_RUN_UNTIL_KILLED = """
import sys
from worker.kafka.embedded import EmbeddedKafka
kafka = EmbeddedKafka()
kafka.start()
print(kafka._server.pid, kafka._home, flush=True)
sys.stdin.read()
"""


def _transactional(broker: BrokerUnderTest, name: str) -> Producer:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": name})
    producer.init_transactions(30)
    return producer


def test_a_read_committed_reader_sees_committed_records_and_no_others(
    kafka: BrokerUnderTest, topics: TopicsFactory
) -> None:
    (topic,) = topics("transactional")
    producer = _transactional(kafka, topic)
    for value, end in [(b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(30)
        end(30)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(30)

    committed = kafka.read_committed(topic)
    everything = kafka.read_uncommitted(topic)
    producer.abort_transaction(30)

    assert [b"kept"] == [message.value() for message in committed]
    assert [b"kept", b"dropped", b"open"] == [message.value() for message in everything]


def test_topics_have_the_partitions_that_were_asked_for(kafka: BrokerUnderTest, topics: TopicsFactory) -> None:
    (three,) = topics("three", partitions=3)

    assert 3 == len(kafka.admin().list_topics(three, timeout=30).topics[three].partitions)


def test_a_topic_that_nobody_created_does_not_come_to_be(kafka: BrokerUnderTest) -> None:
    if kafka.embedded is None:
        pytest.skip("says something of the embedded broker, not of the one that was named")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.timeout.ms": 2_000})
    failed: list[bool] = []
    producer.produce("nobody-created-this", b"x", on_delivery=lambda error, _: failed.append(error is not None))
    producer.flush(30)

    assert [True] == failed
    assert "nobody-created-this" not in kafka.admin().list_topics(timeout=30).topics


@pytest.mark.usefixtures("kafka")
def test_records_and_address_survive_a_kill() -> None:
    with EmbeddedKafka() as broker:
        broker.create_topics({"kept": 2})
        client = BrokerUnderTest(broker.bootstrap_servers, broker.cluster_id)
        client.produce("kept", [{"value": b"one", "partition": 0}, {"value": b"two", "partition": 1}])
        before = (broker.bootstrap_servers, broker.cluster_id)

        broker.kill()
        assert not broker.is_running
        broker.start()

        assert before == (broker.bootstrap_servers, broker.cluster_id)
        assert [b"one", b"two"] == [message.value() for message in client.read_committed("kept")]


@pytest.mark.usefixtures("kafka")
def test_closing_ends_the_process_and_removes_its_folder() -> None:
    broker = EmbeddedKafka()
    broker.start()
    home = broker._home
    assert home is not None
    assert home.exists()

    broker.close()
    broker.close()

    assert not broker.is_running
    assert not home.exists()


@pytest.mark.usefixtures("kafka")
def test_a_named_folder_keeps_records_and_cluster_id_over_two_lives(tmp_path: Path) -> None:
    settings = EmbeddedSettings(data_dir=tmp_path / "data", properties={"num.partitions": "1"})
    with EmbeddedKafka(settings) as first:
        first.create_topics({"kept": 1}, {"cleanup.policy": "compact"})
        BrokerUnderTest(first.bootstrap_servers, first.cluster_id).produce("kept", [{"key": b"k", "value": b"v"}])
        cluster_id = first.cluster_id
    with EmbeddedKafka(settings) as second:
        client = BrokerUnderTest(second.bootstrap_servers, second.cluster_id)

        assert cluster_id == second.cluster_id
        assert [b"v"] == [message.value() for message in client.read_committed("kept")]


@pytest.mark.usefixtures("kafka")
def test_a_broker_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with (
        pytest.raises(BrokerUnavailableError, match=r"ended while starting.*num\.io\.threads"),
        EmbeddedKafka(EmbeddedSettings(properties={"num.io.threads": "none"})),
    ):
        pytest.fail("it started")

    assert [] == list(tmp_path.iterdir())


@pytest.mark.usefixtures("kafka")
def test_another_listener_answers_beside_the_first() -> None:
    with EmbeddedKafka(EmbeddedSettings(port=free_port(), extra_listeners={"SECOND": "PLAINTEXT"})) as broker:
        client = BrokerUnderTest(f"127.0.0.1:{broker.listener_port('SECOND')}", broker.cluster_id)

        assert broker.cluster_id == client.admin().list_topics(timeout=30).cluster_id


@pytest.mark.usefixtures("kafka")
def test_the_broker_ends_when_the_process_that_started_it_is_killed() -> None:
    command = [sys.executable, "-c", _RUN_UNTIL_KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid, home = parent.stdout.readline().decode().split()
        assert _is_alive(int(pid))

        parent.kill()

    wait_until(lambda: not _is_alive(int(pid)) and not Path(home).exists(), what="the broker's end")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # killed but not yet collected by whoever inherited it counts as ended
    return not state.exists() or " Z " not in state.read_text()
