"""A Kafka for tests: where it is, what is written to it, what a `read_committed` subscriber sees of it."""

import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from tests.support.wait import DeadlineError
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_java import KafkaJava, kafka_java

REQUEST_SECONDS = 120.0
"""Four times what the slowest request of a quiet machine may take; see `_PATIENCE` in `tests/support/wait.py`."""
_COMMITTED_SECONDS = 5.0
_FLUSHED = 0
_COORDINATOR_AWAY = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


@dataclass(slots=True)
class BrokerUnderTest:
    """A real broker, embedded or named by the environment."""

    bootstrap_servers: str
    cluster_id: str
    embedded: EmbeddedKafka | None = None
    """The broker itself where it is ours; shared by the session: a test that stops it starts one of its own."""
    _java: KafkaJava | None = field(default=None, repr=False)

    def admin(self) -> AdminClient:
        """A client for topics and groups."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers})

    def create_topics(
        self, topics: Mapping[str, int], config: Mapping[str, str] | None = None, replicas: int = -1
    ) -> None:
        """Create topics, name -> number of partitions, with so many copies of each; -1: as many as the broker says."""
        wanted = [NewTopic(name, count, replicas, config=dict(config or {})) for name, count in topics.items()]
        admin = self.admin()  # alive until its futures are done
        for future in admin.create_topics(wanted, operation_timeout=REQUEST_SECONDS).values():
            future.result(REQUEST_SECONDS)

    def produce(self, topic: str, records: Iterable[bytes | Mapping[str, object] | None]) -> None:
        """Write values, or whole records as keyword arguments of `Producer.produce`, and wait until they are stored."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True})
        failures: list[object] = []
        for record in records:
            arguments = dict(record) if isinstance(record, Mapping) else {"value": record}
            producer.produce(
                topic,
                on_delivery=lambda error, _message: failures.append(error) if error else None,
                **arguments,
            )
            producer.poll(0)
        assert _FLUSHED == producer.flush(REQUEST_SECONDS)
        assert [] == failures

    def read_committed(self, *topics: str) -> list[Message]:
        """Every record that a `read_committed` subscriber sees up to the present end; by topic, partition, offset."""
        return self._read(topics, "read_committed")

    def read_uncommitted(self, *topics: str) -> list[Message]:
        """The same with the records of open and aborted transactions."""
        return self._read(topics, "read_uncommitted")

    def committed_offsets(self, group_id: str, topic: str) -> dict[int, int]:
        """Partition -> committed position of a group, partitions without one left out."""
        deadline = time.monotonic() + REQUEST_SECONDS
        while True:  # with a client of its own each time: one that has met a broker in trouble may keep it in mind
            with self._consumer("read_committed", group_id) as consumer:
                try:
                    found = consumer.committed(self._partitions(consumer, (topic,)), timeout=_COMMITTED_SECONDS)
                    break
                except KafkaException as error:  # a coordinator still loading, a transaction still open
                    if time.monotonic() > deadline:
                        raise DeadlineError(f"the group's offsets cannot be read: {error}") from error
        return {entry.partition: entry.offset for entry in found if entry.offset >= 0}

    def shorten_sessions(self, group_id: str, session_ms: int = 2000) -> None:
        """Under KIP-848, have the broker notice sooner that a member of the group is gone; its default is 45 s."""
        wanted = {
            "consumer.session.timeout.ms": session_ms,
            "consumer.heartbeat.interval.ms": min(1000, session_ms // 4),
        }
        entries = [
            ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in wanted.items()
        ]
        resource = ConfigResource(ResourceType.GROUP, group_id, incremental_configs=entries)
        admin = self.admin()
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(REQUEST_SECONDS)

    def members(self, group_id: str) -> int:
        """How many members of a group have partitions; 0 while its coordinator is still loading."""
        admin = self.admin()
        try:
            described = admin.describe_consumer_groups([group_id])[group_id].result(REQUEST_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in _COORDINATOR_AWAY:
                raise
            return 0
        return sum(bool(member.assignment and member.assignment.topic_partitions) for member in described.members)

    def run_tool(self, class_name: str, arguments: Sequence[str], stdin: bytes = b"") -> bytes:
        """What one of Kafka's own console tools prints; AssertionError unless it ends well."""
        self._java = self._java or kafka_java()
        result = self._java.run_tool(class_name, arguments, stdin)
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return result.stdout

    def console_produce(self, topic: str, lines: bytes) -> None:
        """Write each line as a value with Kafka's own console producer."""
        arguments = ["--bootstrap-server", self.bootstrap_servers, "--topic", topic]
        self.run_tool("org.apache.kafka.tools.ConsoleProducer", arguments, lines)

    def console_consume(self, topic: str, count: int) -> list[bytes]:
        """The first `count` values of `topic` as Kafka's own console consumer prints them."""
        arguments = ["--bootstrap-server", self.bootstrap_servers, "--topic", topic, "--from-beginning"]
        arguments += ["--max-messages", str(count), "--timeout-ms", "30000", "--isolation-level", "read_committed"]
        return self.run_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", arguments).splitlines()

    def kcat_produce(self, topic: str, lines: bytes, *arguments: str) -> None:
        """Write each line as a value with kcat."""
        _kcat(["-b", self.bootstrap_servers, "-P", "-t", topic, *arguments], lines)

    def kcat_consume(self, topic: str, *arguments: str) -> list[bytes]:
        """Every line that kcat prints of `topic` up to its present end."""
        command = ["-b", self.bootstrap_servers, "-C", "-t", topic, "-e", "-q", "-X", "isolation.level=read_committed"]
        return _kcat([*command, *arguments]).splitlines()

    def _read(self, topics: Sequence[str], isolation_level: str) -> list[Message]:
        with self._consumer(isolation_level, f"reader-{uuid.uuid4().hex}") as consumer:
            partitions = self._partitions(consumer, topics)
            consumer.assign(partitions)
            messages = _to_the_end(consumer, {(entry.topic, entry.partition) for entry in partitions})
        return sorted(messages, key=lambda message: (message.topic(), message.partition(), message.offset()))

    @contextmanager
    def _consumer(self, isolation_level: str, group_id: str) -> Iterator[Consumer]:
        settings: dict[str, str | bool] = {"bootstrap.servers": self.bootstrap_servers, "group.id": group_id}
        settings |= {"isolation.level": isolation_level, "enable.auto.commit": False, "enable.partition.eof": True}
        consumer = Consumer(settings)
        try:
            yield consumer
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topics: Sequence[str]) -> list[TopicPartition]:
        found = consumer.list_topics(timeout=REQUEST_SECONDS).topics
        return [TopicPartition(topic, n, OFFSET_BEGINNING) for topic in topics for n in sorted(found[topic].partitions)]


def headers_of(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers of `message` in their order."""
    headers = message.headers() or []
    assert isinstance(headers, list)
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in headers]


def kcat_is_installed() -> bool:
    """Whether the program kcat can be run here."""
    return subprocess.run(["sh", "-c", "command -v kcat"], capture_output=True, check=False).returncode == 0


def _kcat(arguments: Sequence[str], stdin: bytes = b"") -> bytes:
    command = ["kcat", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=REQUEST_SECONDS, check=True).stdout


def _to_the_end(consumer: Consumer, places: set[tuple[str, int]]) -> list[Message]:
    """What is read until every partition has said that it has no more."""
    deadline = time.monotonic() + REQUEST_SECONDS
    messages: list[Message] = []
    while places:
        if time.monotonic() > deadline:
            raise DeadlineError(f"the end was not reached in {sorted(places)}")
        for message in consumer.consume(1000, 0.1):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                places.discard((str(message.topic()), int(message.partition() or 0)))
            else:
                raise KafkaException(error)
    return messages
