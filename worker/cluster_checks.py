"""What `worker check` finds about the cluster: rights, transactions, replicas, limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from worker.config import Config
from worker.kafka.clients import ClientSettings, connection, producer_settings
from worker.kafka.inspection import (
    ClusterInspection,
    Operations,
    TopicInspection,
    TransactionRefusal,
    try_transaction,
    try_transactional_id,
)
from worker.kafka.topics import DEFAULT_MAX_MESSAGE_BYTES
from worker.messages.binding import Binding
from worker.settings import CHECK_INSTANCE, QUEUE_KILOBYTES

Verdict = Literal["ok", "warning", "failed"]

_POSITIONS, _TRANSACTIONS = "__consumer_offsets", "__transaction_state"
_FOUNDATIONS = {_POSITIONS: "the group's positions", _TRANSACTIONS: "which transactions are committed"}
"""Topics of Kafka's own that what we promise rests on, and what they hold."""
_SAFE_REPLICAS = 3
_SAFE_IN_SYNC = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    subject: str
    message: str


def of_cluster(config: Config, bindings: Sequence[Binding]) -> Iterator[Finding]:
    """Everything to say about a cluster that answers, as it is found. Changes nothing. Blocks."""
    client = connection(config.kafka, CHECK_INSTANCE)
    inspection = ClusterInspection(client)
    inputs = {binding.input for binding in bindings}
    outputs = {topic for binding in bindings for topic in binding.topics_written}
    schemas = config.schemas
    read, written = inputs | set(filter(None, [schemas.topic])), outputs | set(filter(None, [schemas.answers_topic]))
    topics = inspection.topics(read | written)
    for topic, seen in sorted(topics.items()):
        yield from of_rights(topic, seen, "READ" if topic in read else "WRITE")
    missing = sorted(topic for topic in outputs if topic in topics and not topics[topic].exists)
    if config.kafka.create_topics and missing:
        yield from of_creation(missing, inspection.cluster_operations())
    yield from of_group(config.kafka.group_id, inspection.group_operations(config.kafka.group_id))
    yield from of_replicas({topic: topics[topic] for topic in sorted(outputs) if topic in topics})
    yield from of_sizes(config, {name: topics[name] for name in sorted(inputs) if name in topics})
    if config.delivery == "exactly_once":
        settings = producer_settings(config.kafka, CHECK_INSTANCE, transactional=True)
        timeout_ms, most_ms = int(settings["transaction.timeout.ms"]), inspection.max_transaction_timeout_ms()
        yield _of_transactions(config, settings, most_ms)
        yield of_transaction_timeout(timeout_ms, most_ms)
    # Last: on a fresh cluster they come with the first question for a group and the first transaction.
    foundations = [_POSITIONS, _TRANSACTIONS] if config.delivery == "exactly_once" else [_POSITIONS]
    yield from of_foundations(inspection.topics(foundations))


def of_rights(topic: str, seen: TopicInspection, needed: str) -> Iterator[Finding]:
    """Whether we may do what is `needed` with a topic."""
    if seen.is_forbidden:
        yield Finding("failed", topic, f"it may not be looked at: grant {needed.title()} and Describe on this topic")
    elif seen.operations is not None and needed not in seen.operations:
        yield Finding("failed", topic, f"the right is missing: grant {needed.title()} on this topic")


def of_creation(missing: Sequence[str], operations: Operations | None) -> Iterator[Finding]:
    """Whether missing topics can be created, as far as it is told: rights on names to come are not."""
    if operations is not None and "CREATE" not in operations:
        fix = f"grant Create on the cluster, or on {', '.join(missing)}; where that is done, all is well"
        yield Finding("warning", "cluster", f"topics are to be created: {fix}")


def of_group(group_id: str, operations: Operations | None) -> Iterator[Finding]:
    """Whether we may join the group and commit."""
    if operations is not None and "READ" not in operations:
        right = "Read" if operations else "Read and Describe"
        yield Finding("failed", f"group {group_id}", f"the right is missing: grant {right} on this group")


def of_replicas(outputs: Mapping[str, TopicInspection]) -> Iterator[Finding]:
    """Whether what is written outlives a broker."""
    for topic, seen in outputs.items():
        replicas, in_sync = seen.replication_factor, seen.min_insync_replicas
        if replicas is None:
            continue
        told = f"replication factor {replicas}, min.insync.replicas {in_sync or 'unknown'}"
        if replicas == 1:
            fix = f"a lost disk takes it along; give the topic {_SAFE_REPLICAS} replicas"
            yield Finding("warning", topic, f"{told}: {fix}")
        elif in_sync == 1:
            fix = f"what one broker alone has acknowledged can be lost; set min.insync.replicas to {_SAFE_IN_SYNC}"
            yield Finding("warning", topic, f"{told}: {fix}")
        elif in_sync is not None and in_sync >= replicas:
            fix = "nothing can be written while one broker is away; lower min.insync.replicas or add replicas"
            yield Finding("warning", topic, f"{told}: {fix}")
        else:
            yield Finding("ok", topic, told)


def of_foundations(topics: Mapping[str, TopicInspection]) -> Iterator[Finding]:
    """Whether Kafka's own topics outlive a broker; nothing where they are not there yet, or not for us to see."""
    for each in of_replicas(topics):
        yield replace(each, message=f"{each.message} (it holds {_FOUNDATIONS[each.subject]})")


def of_sizes(config: Config, inputs: Mapping[str, TopicInspection]) -> Iterator[Finding]:
    """Whether the largest event can be handed on whole."""
    for topic, seen in inputs.items():
        largest = seen.max_message_bytes
        # Kafka's default is 5 % above the client's: a warning that everybody gets would tell nobody anything.
        if largest is not None and largest > max(config.max_record_bytes, DEFAULT_MAX_MESSAGE_BYTES):
            told = f"takes records of {largest} bytes, the worker sends at most {config.max_record_bytes}"
            fix = "large events go out without their event; raise message.max.bytes of kafka.librdkafka"
            if QUEUE_KILOBYTES in config.kafka.librdkafka:
                fix += f" and {QUEUE_KILOBYTES}"
            yield Finding("warning", topic, f"{told}: {fix}")


def of_transaction(refusal: TransactionRefusal | None) -> Finding:
    """What came of an empty transaction."""
    if refusal is None:
        return Finding("ok", "transactions", "an empty one was opened and given up")
    return Finding("failed", "transactions", refusal.told)


def _of_transactions(config: Config, settings: ClientSettings, most_ms: int | None) -> Finding:
    """Whether the worker's own transactional id may be used, where it is known; then an empty one under another."""
    instance = config.kafka.instance_id
    if instance is None:
        return of_transaction(try_transaction(settings))
    own = producer_settings(config.kafka, instance, transactional=True)
    may_use = try_transactional_id(own, most_ms)
    if isinstance(may_use, TransactionRefusal):
        return of_transaction(may_use)
    refusal = try_transaction(settings)
    if may_use == "allowed" and refusal is not None and refusal.is_of_id:
        told = f"the transactional id {own['transactional.id']} may be used"
        fix = f"an empty one was not tried, that takes the right to {settings['transactional.id']}"
        return Finding("ok", "transactions", f"{told}; {fix}")
    return of_transaction(refusal)


def of_transaction_timeout(timeout_ms: int, most_ms: int | None) -> Finding:
    """Whether the broker allows transactions as long as ours."""
    if most_ms is None:
        told = f"timeout {timeout_ms} ms; the broker's maximum is not told without DescribeConfigs on the cluster"
        return Finding("ok", "transactions", told)
    told = f"timeout {timeout_ms} ms, the broker's maximum is {most_ms} ms"
    if timeout_ms > most_ms:
        fix = "lower kafka.transaction_timeout_ms, or raise transaction.max.timeout.ms of the brokers"
        return Finding("failed", "transactions", f"{told}: {fix}")
    return Finding("ok", "transactions", told)
