"""Three nodes to attack, and which of them does what."""

from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.wait import wait_until
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_cluster import EmbeddedCluster

ROLES = ("leader", "group coordinator", "transaction coordinator")


@dataclass(frozen=True, slots=True)
class ClusterUnderTest:
    """A cluster of our own, and the client's side of it."""

    embedded: EmbeddedCluster
    kafka: BrokerUnderTest

    @classmethod
    def of(cls, embedded: EmbeddedCluster) -> "ClusterUnderTest":
        """`embedded`, which is running."""
        return cls(embedded, BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id))

    @property
    def nodes(self) -> Mapping[int, EmbeddedKafka]:
        """Node id -> node."""
        return self.embedded.nodes

    def holder(self, role: str, *, topic: str, group: str, transactional_id: str) -> int:
        """The node that leads partition 0 of `topic`, or coordinates the group or the transactions."""
        if role == "leader":
            return self.leader(topic, 0)
        if role == "group coordinator":
            return self._coordinator("__consumer_offsets", group)
        return self._coordinator("__transaction_state", transactional_id)

    def await_in_sync(self) -> None:
        """Until every partition has all its replicas in sync: the next node may go."""
        wait_until(self._is_in_sync, 90, "replicas in sync")

    def _is_in_sync(self) -> bool:
        topics = self.kafka.admin().list_topics(timeout=REQUEST_SECONDS).topics.values()
        return all(len(p.isrs) == len(p.replicas) for topic in topics for p in topic.partitions.values())

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads a partition; -1 while none does."""
        found = self.kafka.admin().list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
        return int(found.partitions[partition].leader)

    def _coordinator(self, topic: str, name: str) -> int:
        partitions = len(self.kafka.admin().list_topics(topic, timeout=REQUEST_SECONDS).topics[topic].partitions)
        return self.leader(topic, _java_hash(name) % partitions)


def _java_hash(text: str) -> int:
    """What Kafka makes of a name to find its coordinator: Java's `String.hashCode`, without its sign."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) & 0xFFFFFFFF
    return abs(value - (1 << 32) if value >= 1 << 31 else value) % (1 << 31)
