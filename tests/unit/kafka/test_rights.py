"""The rights that are given are those that the documentation lists."""

import re
import shlex
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from worker.kafka.rights import Right, producer_rights, reader_rights, worker_rights

PAGE = Path(__file__).parents[3] / "docs" / "security.md"
KINDS = {"--topic": "TOPIC", "--group": "GROUP", "--transactional-id": "TRANSACTIONAL_ID"}


def documented() -> set[Right]:
    """What the commands of the page would give."""
    found = set()
    for line in re.findall(r"^    kafka-acls.sh (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE):
        words = shlex.split(line)
        operation = words[words.index("--operation") + 1].upper()
        is_prefix = "prefixed" in words
        found |= {
            Right(KINDS[word], words[n + 1], operation, is_prefix) for n, word in enumerate(words) if word in KINDS
        }
    return found


def test_a_worker_has_the_rights_of_the_documentation_and_no_other() -> None:
    assert documented() == set(worker_rights("support.tickets", "support-labels"))


def test_a_producer_may_write_its_topic_and_nothing_else() -> None:
    assert (Right("TOPIC", "t", "WRITE"),) == producer_rights("t")


def test_a_reader_writes_nothing_and_sees_no_event_but_in_its_prediction() -> None:
    rights = reader_rights("t", "r")

    assert {"READ"} == {right.operation for right in rights}
    assert {"t.predictions", "t.dlq", "r"} == {right.name for right in rights}


def test_a_rule_says_who_may_do_what_where() -> None:
    rule = Right("TRANSACTIONAL_ID", "labels.", "WRITE", is_prefix=True).rule("worker", "DENY")

    assert ("User:worker", "labels.", "*") == (rule.principal, rule.name, rule.host)
    assert (ResourceType.TRANSACTIONAL_ID, ResourcePatternType.PREFIXED) == (rule.restype, rule.resource_pattern_type)
    assert (AclOperation.WRITE, AclPermissionType.DENY) == (rule.operation, rule.permission_type)
