"""Rights on a cluster: the fewest that worker, producer and subscriber need, and how they are given and taken."""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

_REQUEST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Right:
    """One right: an operation on one thing, or on all whose names begin so; in the words of Kafka's own enums."""

    kind: str
    name: str
    operation: str
    is_prefix: bool = False

    def rule(self, user: str, permission: str = "ALLOW") -> AclBinding:
        """What Kafka keeps of it, for a user at any address; `*` is everybody."""
        pattern = ResourcePatternType.PREFIXED if self.is_prefix else ResourcePatternType.LITERAL
        kind, operation = ResourceType[self.kind], AclOperation[self.operation]
        return AclBinding(kind, self.name, pattern, f"User:{user}", "*", operation, AclPermissionType[permission])


def worker_rights(topic: str, group_id: str) -> tuple[Right, ...]:
    """All that a worker needs which reads one topic, writes where it does by default, and creates nothing."""
    return (
        Right("TOPIC", topic, "READ"),
        Right("TOPIC", f"{topic}.predictions", "WRITE"),
        Right("TOPIC", f"{topic}.dlq", "WRITE"),
        Right("GROUP", group_id, "READ"),
        Right("TRANSACTIONAL_ID", f"{group_id}.", "WRITE", is_prefix=True),
    )


def producer_rights(topic: str) -> tuple[Right, ...]:
    """All that whoever writes the events needs."""
    return (Right("TOPIC", topic, "WRITE"),)


def reader_rights(topic: str, group_prefix: str) -> tuple[Right, ...]:
    """All that a subscriber of what the worker writes needs, in any group whose name begins with the prefix."""
    return (
        Right("TOPIC", f"{topic}.predictions", "READ"),
        Right("TOPIC", f"{topic}.dlq", "READ"),
        Right("GROUP", group_prefix, "READ", is_prefix=True),
    )


def set_rules(admin: AdminClient, rules: Sequence[AclBinding]) -> None:
    """Have the cluster keep these rules; those that it has stay. Blocks.

    Raises:
        KafkaException: the cluster refused, or did not answer.
    """
    for future in admin.create_acls(list(rules)).values():
        future.result(_REQUEST_SECONDS)


def forget_rules(admin: AdminClient, rules: Sequence[AclBinding]) -> int:
    """How many of these rules the cluster had and has no more. Blocks.

    Raises:
        KafkaException: the cluster refused, or did not answer.
    """
    filters = [
        AclBindingFilter(
            rule.restype,
            rule.name,
            rule.resource_pattern_type,
            rule.principal,
            rule.host,
            rule.operation,
            rule.permission_type,
        )
        for rule in rules
    ]
    return sum(len(future.result(_REQUEST_SECONDS)) for future in admin.delete_acls(filters).values())
