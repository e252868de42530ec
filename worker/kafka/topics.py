"""Which topics exist, with how many partitions, and what records they take; kept fresh by asking again."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]  # re-exported without saying so

from worker.errors import RetryableError
from worker.kafka.clients import ClientSettings, checked_settings, no_answer

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's own default of `max.message.bytes`, used where the topic's configuration may not be read."""

DEFAULT_TIMESTAMP_AFTER_MS = 3_600_000
"""Kafka's own default of `message.timestamp.after.max.ms` since 4.0, used in the same case."""

MARGIN_MS = 60_000
"""How far the broker's clock may be off ours before it refuses a timestamp that we thought good."""

ORIGINAL_TIMESTAMP_HEADER = "nli-original-timestamp"

DESCRIBE_SECONDS = 2.0
"""How long to wait for the topics' configurations: good to know, not needed, and librdkafka's mock never answers."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of one topic."""

    partitions: int
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    timestamp_before_ms: int | None = None
    """How far a record's timestamp may lie in the past; None without a limit."""
    timestamp_after_ms: int | None = DEFAULT_TIMESTAMP_AFTER_MS
    """The same for the future."""

    def takes_timestamp(self, timestamp_ms: int, now_ms: int) -> bool:
        """Whether the topic takes a record of this timestamp now, also by a clock that is a little off ours."""
        bound = self.timestamp_before_ms if timestamp_ms < now_ms else self.timestamp_after_ms
        return bound is None or abs(timestamp_ms - now_ms) < bound - min(MARGIN_MS, bound // 10)


class TopicDirectory:
    """A thread-safe picture of the topics; `refresh` brings it up to date and blocks, all else answers at once."""

    def __init__(self, client: ClientSettings, *, timeout_seconds: float = 10.0) -> None:
        """`client` holds librdkafka's connection settings."""
        self._client = client
        with checked_settings():
            self._admin = AdminClient(dict[str, Any](client) | {"error_cb": self._note})
        self._complaint: KafkaError | None = None
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._facts: dict[str, TopicFacts] = {}
        self.cluster_id: str | None = None
        self.names: frozenset[str] = frozenset()
        """Every topic that was there when last asked, as far as we may see."""

    def refresh(self, topics: Iterable[str]) -> None:
        """Ask the broker about `topics`. Blocks for at most the timeout, twice.

        Raises:
            RetryableError: no broker answers.
        """
        wanted = sorted(set(topics))
        try:
            metadata = self._admin.list_topics(timeout=self._timeout_seconds)
        except KafkaException as error:
            self._admin.poll(0)  # has the client say why
            raise RetryableError(no_answer(self._client, error, self._complaint)) from error
        self._complaint = None
        self.cluster_id = metadata.cluster_id
        self.names = frozenset(metadata.topics)
        found = {t: len(metadata.topics[t].partitions) for t in wanted if t in metadata.topics}
        described = self._describe(found)
        with self._lock:
            known = {topic: self._facts.pop(topic, None) for topic in wanted}
            for topic, partitions in found.items():
                self._facts[topic] = _facts(partitions, described.get(topic), known[topic])

    def _note(self, error: KafkaError) -> None:
        # That no broker is left comes after what each of them had to say.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  so named
            self._complaint = error

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

    def unwritable(self, topics: Iterable[str]) -> set[str]:
        """Those of `topics` that we have no right to write, as far as the broker says. Blocks for some seconds."""
        wanted = TopicCollection(sorted(set(topics)))
        described = self._admin.describe_topics(
            wanted, include_authorized_operations=True, request_timeout=DESCRIBE_SECONDS
        )
        found = set()
        for topic, future in described.items():
            try:
                operations = future.result().authorized_operations
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    found.add(topic)
            else:
                found |= {topic} if AclOperation.WRITE not in (operations or [AclOperation.WRITE]) else set()
        return found

    def facts(self, topic: str) -> TopicFacts | None:
        """What is known of `topic`; None when it does not exist (or was not asked about)."""
        with self._lock:
            return self._facts.get(topic)

    def max_message_bytes(self, topic: str) -> int:
        """The largest record that `topic` takes."""
        facts = self.facts(topic)
        return DEFAULT_MAX_MESSAGE_BYTES if facts is None else facts.max_message_bytes

    def _describe(self, topics: Iterable[str]) -> dict[str, Mapping[str, str | None]]:
        resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
        if not resources:
            return {}
        described: dict[str, Mapping[str, str | None]] = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=DESCRIBE_SECONDS).items():
            try:
                described[resource.name] = {name: entry.value for name, entry in future.result().items()}
            except KafkaException:
                # Describing a topic needs a right of its own; without it the defaults are a safe guess.
                log.debug("topic.configuration_unread", topic=resource.name)
        return described


def _facts(partitions: int, config: Mapping[str, str | None] | None, known: TopicFacts | None) -> TopicFacts:
    if config is None:  # not told, this time or ever
        return TopicFacts(partitions) if known is None else replace(known, partitions=partitions)
    before, after = (_number(config.get(f"message.timestamp.{side}.max.ms")) for side in ("before", "after"))
    size = _number(config.get("max.message.bytes")) or DEFAULT_MAX_MESSAGE_BYTES
    if config.get("message.timestamp.type") == "LogAppendTime":  # the broker sets its own and looks at none
        return TopicFacts(partitions, size, None, None)
    return TopicFacts(partitions, size, before, DEFAULT_TIMESTAMP_AFTER_MS if after is None else after)


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None


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
