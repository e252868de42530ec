"""Which topics exist, with how many partitions, and how large a record they take; kept fresh by asking again."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]  # re-exported without saying so

from worker.errors import RetryableError
from worker.kafka.clients import ClientSettings, checked_settings

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of `max.message.bytes`, used where the topic's configuration may not be read."""

DESCRIBE_SECONDS = 2.0
"""How long to wait for the topics' configurations: good to know, not needed, and librdkafka's mock never answers."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of one topic."""

    partitions: int
    max_message_bytes: int


class TopicDirectory:
    """A thread-safe picture of the topics; `refresh` brings it up to date and blocks, all else answers at once."""

    def __init__(self, client: ClientSettings, *, timeout_seconds: float = 10.0) -> None:
        """`client` holds librdkafka's connection settings."""
        with checked_settings():
            self._admin = AdminClient(dict(client))
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._facts: dict[str, TopicFacts] = {}
        self.cluster_id: str | None = None

    def refresh(self, topics: Iterable[str]) -> None:
        """Ask the broker about `topics`. Blocks for at most the timeout, twice.

        Raises:
            RetryableError: no broker answers.
        """
        wanted = sorted(set(topics))
        try:
            metadata = self._admin.list_topics(timeout=self._timeout_seconds)
        except KafkaException as error:
            message = f"no broker answers ({error.args[0].name()}): check kafka.bootstrap_servers and the network"
            raise RetryableError(message) from error
        self.cluster_id = metadata.cluster_id
        found = {t: len(metadata.topics[t].partitions) for t in wanted if t in metadata.topics}
        sizes = self._max_message_bytes(found)
        with self._lock:
            for topic in wanted:
                self._facts.pop(topic, None)
            for topic, partitions in found.items():
                self._facts[topic] = TopicFacts(partitions, sizes.get(topic, DEFAULT_MAX_MESSAGE_BYTES))

    def create(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> None:
        """Create `topics` (name -> partitions) with the broker's default replication and `config`. Blocks.

        Raises:
            RetryableError: a topic could not be created.
        """
        if not topics:
            return
        extra = dict(config or {})
        new = [
            NewTopic(name, num_partitions=count, replication_factor=-1, config=extra) for name, count in topics.items()
        ]
        for name, future in self._admin.create_topics(new, request_timeout=self._timeout_seconds).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    message = f"topic {name} could not be created ({error.args[0].name()}): create it by hand"
                    raise RetryableError(message) from error
            else:
                log.info("topic.created", topic=name, partitions=topics[name])

    def facts(self, topic: str) -> TopicFacts | None:
        """What is known of `topic`; None when it does not exist (or was not asked about)."""
        with self._lock:
            return self._facts.get(topic)

    def max_message_bytes(self, topic: str) -> int:
        """The largest record that `topic` takes."""
        facts = self.facts(topic)
        return DEFAULT_MAX_MESSAGE_BYTES if facts is None else facts.max_message_bytes

    def _max_message_bytes(self, topics: Iterable[str]) -> dict[str, int]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        if not resources:
            return {}
        sizes: dict[str, int] = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=DESCRIBE_SECONDS).items():
            try:
                sizes[resource.name] = int(future.result()["max.message.bytes"].value)
            except (KafkaException, KeyError, TypeError, ValueError):
                # Describing a topic needs a right of its own; without it the default is a safe guess.
                log.debug("topic.configuration_unread", topic=resource.name)
        return sizes


def murmur2_partition(key: bytes, partitions: int) -> int:
    """The partition that Kafka's Java client gives `key`: toPositive(murmur2(key)) % partitions.

    Austin Appleby's MurmurHash2, 32 bit, with the seed of org.apache.kafka.common.utils.Utils.
    """
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = key[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return ((h ^ (h >> 15)) & 0x7FFFFFFF) % partitions


def target_partition(source_partition: int, key: bytes | None, partitions: int) -> int:
    """Where an output goes: the input's partition number, or where the target has fewer, by key."""
    if source_partition < partitions:
        return source_partition
    return source_partition % partitions if key is None else murmur2_partition(key, partitions)
