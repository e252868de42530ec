"""What the broker says of topics, rights and limits, and whether it lets us have a transaction. Changes nothing."""

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]  # re-exported without saying so

from worker.kafka.clients import ClientSettings, checked_settings

_SECONDS = 5.0
_INIT_SECONDS = 15.0
_NEVER_ALLOWED_MS = 2_000_000_000
"""A transaction timeout of 23 days, near the most that the protocol can say."""

Operations = frozenset[str]
"""What may be done, in the words of Kafka's ACLs: `READ`, `WRITE`, `DESCRIBE`, …"""


@dataclass(frozen=True, slots=True)
class TopicInspection:
    """What the broker says of one topic; None: it does not say."""

    exists: bool
    is_forbidden: bool = False
    """It does not even say whether there is such a topic."""
    replication_factor: int | None = None
    """The least of its partitions."""
    min_insync_replicas: int | None = None
    max_message_bytes: int | None = None
    operations: Operations | None = None


@dataclass(frozen=True, slots=True)
class TransactionRefusal:
    """Why a transactional producer cannot work."""

    told: str
    """With what to do about it."""
    code: int = KafkaError._FAIL  # noqa: SLF001  so named
    """Kafka's, or librdkafka's."""

    @property
    def is_of_id(self) -> bool:
        """Whether the right to its transactional id is missing."""
        return self.code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


class ClusterInspection:
    """Asks the broker; what it does not answer is None. Every method blocks for some seconds at most."""

    def __init__(self, client: ClientSettings) -> None:
        """`client` holds librdkafka's connection settings."""
        with checked_settings():
            self._admin = AdminClient(dict(client))

    def topics(self, names: Iterable[str]) -> dict[str, TopicInspection]:
        """What is known of each topic; no entry where the broker does not answer."""
        wanted = sorted(set(names))
        described = self._admin.describe_topics(
            TopicCollection(wanted), include_authorized_operations=True, request_timeout=_SECONDS
        )
        configs = self._configs(ResourceType.TOPIC, wanted)
        found = {}
        for name, future in described.items():
            inspection = _topic(future, configs.get(name, {}))
            if inspection is not None:
                found[name] = inspection
        return found

    def group_operations(self, group_id: str) -> Operations | None:
        """What we may do with the group; empty where it may not be looked at."""
        described = self._admin.describe_consumer_groups(
            [group_id], include_authorized_operations=True, request_timeout=_SECONDS
        )
        try:
            return _operations(described[group_id].result().authorized_operations)
        except KafkaException as error:
            is_forbidden = error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED
            return frozenset() if is_forbidden else None

    def cluster_operations(self) -> Operations | None:
        """What we may do with the cluster as a whole."""
        try:
            described = self._admin.describe_cluster(include_authorized_operations=True, request_timeout=_SECONDS)
            return frozenset(operation.name for operation in described.result().authorized_operations or ())
        except KafkaException:
            return None

    def max_transaction_timeout_ms(self) -> int | None:
        """The longest transaction timeout that the brokers allow."""
        try:
            brokers = self._admin.list_topics(timeout=_SECONDS).brokers
        except KafkaException:
            return None
        one = str(min(brokers)) if brokers else ""
        value = self._configs(ResourceType.BROKER, [one] if one else []).get(one, {}).get("transaction.max.timeout.ms")
        return _number(value)

    def _configs(self, kind: ResourceType, names: Iterable[str]) -> dict[str, Mapping[str, str | None]]:
        resources = [ConfigResource(kind, name) for name in names]
        if not resources:
            return {}
        found: dict[str, Mapping[str, str | None]] = {}
        for resource, future in self._admin.describe_configs(resources, request_timeout=_SECONDS).items():
            try:
                found[resource.name] = {name: entry.value for name, entry in future.result().items()}
            except KafkaException:  # the right to look at configurations is one of its own
                continue
        return found


def try_transaction(settings: ClientSettings) -> TransactionRefusal | None:
    """Why a transactional producer with these settings cannot work, and what to do; None where it can. Blocks.

    Opens an empty transaction and gives it up: nothing is written. Fences whoever has the same transactional id.
    """
    with checked_settings():
        producer = Producer({**settings, "error_cb": lambda _: None})
    try:
        producer.init_transactions(_INIT_SECONDS)
        producer.begin_transaction()
        producer.abort_transaction(_SECONDS)
    except KafkaException as exception:
        error = exception.args[0]
        fixes = {
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
                f"grant Write and Describe on the transactional id {settings['transactional.id']}, "
                "best on all with the group's id as their prefix"
            ),
            KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant IdempotentWrite on the cluster",
            KafkaError.INVALID_TRANSACTION_TIMEOUT: (
                "lower kafka.transaction_timeout_ms to at most the broker's transaction.max.timeout.ms"
            ),
        }
        fix = fixes.get(error.code(), "see that the topic __transaction_state has its leaders, and try again")
        return TransactionRefusal(f"{error.name()}: {fix}", error.code())
    finally:
        producer.purge()
    return None


def try_transactional_id(
    settings: ClientSettings, most_ms: int | None
) -> TransactionRefusal | Literal["allowed"] | None:
    """Whether the transactional id of these settings may be used, or why not; None where it is not known. Blocks.

    Disturbs nobody who works under that id: no protocol says which rights we have on one, but a broker looks at them
    first, then at the timeout, and refuses one above its maximum, `most_ms`, before it touches the id.
    """
    if most_ms is None or most_ms >= _NEVER_ALLOWED_MS:
        return None
    refusal = try_transaction({**settings, "transaction.timeout.ms": _NEVER_ALLOWED_MS})
    if refusal is None or refusal.code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
        return "allowed"
    return refusal if refusal.is_of_id else None


def _topic(future: "Future[Any]", config: Mapping[str, str | None]) -> TopicInspection | None:
    try:
        described = future.result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return TopicInspection(exists=False, is_forbidden=True)
        return TopicInspection(exists=False) if code == KafkaError.UNKNOWN_TOPIC_OR_PART else None
    return TopicInspection(
        exists=True,
        replication_factor=min((len(each.replicas) for each in described.partitions), default=None),
        min_insync_replicas=_number(config.get("min.insync.replicas")),
        max_message_bytes=_number(config.get("max.message.bytes")),
        operations=_operations(described.authorized_operations),
    )


def _operations(listed: Iterable[AclOperation] | None) -> Operations | None:
    names = frozenset(operation.name for operation in listed or ())
    return names or None


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdecimal() else None
