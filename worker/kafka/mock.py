"""librdkafka's mock cluster: a broker inside this process, for where no real one can be had."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer

from worker.kafka.embedded_jars import BrokerUnavailableError

MOCK_PARTITIONS = 4
_REQUEST_SECONDS = 10.0


class MockKafka:
    """Brokers that live as long as this object. A context manager: started on entry, closed on exit.

    They know groups and records, not transactions: offsets sent to one are not stored and aborted records are not
    hidden, so only at-least-once delivery means anything here. Every topic has `MOCK_PARTITIONS` partitions.
    """

    def __init__(self, brokers: int = 1) -> None:
        """`brokers` is how many there will be."""
        self._brokers = brokers
        self._host: Producer | None = None
        self._bootstrap_servers = ""
        self._cluster_id = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bootstrap_servers(self) -> str:
        """Where clients of any process find it: `host:port,…`."""
        return self._bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """What the mock cluster calls itself."""
        return self._cluster_id

    def start(self) -> None:
        """Start it. Blocks until it answers.

        Raises:
            BrokerUnavailableError: it did not answer.
        """
        if self._host is not None:
            return
        self._host = Producer({"test.mock.num.brokers": self._brokers, "log_level": 0})
        try:
            found = self._host.list_topics(timeout=_REQUEST_SECONDS)
        except KafkaException as error:
            self._host = None
            raise BrokerUnavailableError(f"the mock broker does not answer: {error.args[0].name()}") from error
        self._bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in found.brokers.values())
        self._cluster_id = found.cluster_id or ""

    def create_topics(
        self,
        topics: Mapping[str, int],
        config: Mapping[str, str] | None = None,  # noqa: ARG002 - called as the real one is
    ) -> None:
        """Make sure that the topics are there, with `MOCK_PARTITIONS` partitions each whatever is asked. Blocks.

        Raises:
            BrokerUnavailableError: the broker does not answer.
        """
        if self._host is None:
            raise BrokerUnavailableError("the mock broker is not started: call start() first")
        for name in topics:  # asking for a topic is what makes it here; it takes no configuration
            self._host.list_topics(name, timeout=_REQUEST_SECONDS)

    def close(self) -> None:
        """End the brokers, and with them every record. May be repeated."""
        self._host = None
