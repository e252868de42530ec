"""`worker check` names what is missing in a cluster, and what to do about it."""

from dataclasses import replace

import pytest

from worker.cluster_checks import (
    Finding,
    of_creation,
    of_foundations,
    of_group,
    of_replicas,
    of_rights,
    of_sizes,
    of_transaction,
    of_transaction_timeout,
)
from worker.config import fixed_config
from worker.kafka.inspection import Operations, TopicInspection, TransactionRefusal
from worker.types import JsonValue

GOOD = TopicInspection(
    exists=True,
    replication_factor=3,
    min_insync_replicas=2,
    max_message_bytes=1_048_588,
    operations=frozenset({"READ", "WRITE", "DESCRIBE"}),
)


@pytest.mark.parametrize(
    ("seen", "needed", "expected"),
    [
        (GOOD, "READ", None),
        (replace(GOOD, operations=None), "READ", None),
        (replace(GOOD, operations=frozenset({"DESCRIBE"})), "READ", "grant Read on this topic"),
        (replace(GOOD, operations=frozenset({"READ"})), "WRITE", "grant Write on this topic"),
        (TopicInspection(exists=False), "WRITE", None),
        (TopicInspection(exists=False, is_forbidden=True), "WRITE", "grant Write and Describe on this topic"),
    ],
)
def test_a_missing_right_on_a_topic_is_named(seen: TopicInspection, needed: str, expected: str | None) -> None:
    found = list(of_rights("t", seen, needed))
    assert (0 if expected is None else 1) == len(found)
    for each in found:
        assert ("failed", "t") == (each.verdict, each.subject)
        assert str(expected) in each.message


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        (None, []),
        (frozenset({"READ", "DESCRIBE"}), []),
        (frozenset({"DESCRIBE"}), ["the right is missing: grant Read on this group"]),
        (frozenset(), ["the right is missing: grant Read and Describe on this group"]),
    ],
)
def test_a_missing_right_on_the_group_is_named(operations: Operations | None, expected: list[str]) -> None:
    assert expected == [each.message for each in of_group("g", operations)]


@pytest.mark.parametrize(
    ("replicas", "in_sync", "verdict", "words"),
    [
        (3, 2, "ok", "replication factor 3, min.insync.replicas 2"),
        (1, 1, "warning", "give the topic 3 replicas"),
        (3, 1, "warning", "set min.insync.replicas to 2"),
        (2, 2, "warning", "lower min.insync.replicas or add replicas"),
        (3, None, "ok", "min.insync.replicas unknown"),
    ],
)
def test_replicas_that_do_not_outlive_a_broker_are_a_warning(
    replicas: int, in_sync: int | None, verdict: str, words: str
) -> None:
    seen = replace(GOOD, replication_factor=replicas, min_insync_replicas=in_sync)
    (found,) = of_replicas({"t": seen})
    assert verdict == found.verdict
    assert words in found.message


def test_nothing_is_said_of_replicas_that_nobody_told_us_of() -> None:
    assert [] == list(of_replicas({"t": TopicInspection(exists=False)}))


def test_kafkas_own_topics_are_looked_at_too_with_what_they_hold() -> None:
    one = replace(GOOD, replication_factor=1, min_insync_replicas=1)
    seen = list(of_foundations({"__consumer_offsets": one, "__transaction_state": GOOD}))
    assert ["warning", "ok"] == [each.verdict for each in seen]
    assert "give the topic 3 replicas (it holds the group's positions)" in seen[0].message
    assert seen[1].message.endswith("min.insync.replicas 2 (it holds which transactions are committed)")


@pytest.mark.parametrize("hidden", [TopicInspection(exists=False), TopicInspection(exists=False, is_forbidden=True)])
def test_kafkas_own_topics_that_are_not_there_yet_or_not_ours_to_see_are_no_trouble(hidden: TopicInspection) -> None:
    assert [] == list(of_foundations({"__consumer_offsets": hidden, "__transaction_state": hidden}))
    assert [] == list(of_foundations({}))


@pytest.mark.parametrize(("largest", "count"), [(1_048_588, 0), (5_000_000, 1), (None, 0)])
def test_an_input_with_larger_records_than_the_worker_sends_is_a_warning(largest: int | None, count: int) -> None:
    config = fixed_config({"kafka": {"bootstrap_servers": "h:1", "group_id": "g"}, "topics": [{"input": "t"}]})
    found = list(of_sizes(config, {"t": replace(GOOD, max_message_bytes=largest)}))
    assert ["warning"] * count == [each.verdict for each in found]
    assert all("message.max.bytes" in each.message for each in found)


def test_a_client_whose_queue_is_smaller_than_an_input_s_records_is_told_which_settings_to_raise() -> None:
    kafka: dict[str, JsonValue] = {"bootstrap_servers": "h:1", "group_id": "g"}
    kafka["librdkafka"] = {"queue.buffering.max.kbytes": 500}
    config = fixed_config({"kafka": kafka, "topics": [{"input": "t"}]})
    (found,) = of_sizes(config, {"t": replace(GOOD, max_message_bytes=5_000_000)})
    assert "the worker sends at most 512000:" in found.message
    assert found.message.endswith("raise message.max.bytes of kafka.librdkafka and queue.buffering.max.kbytes")


@pytest.mark.parametrize(
    ("operations", "count"), [(None, 0), (frozenset({"CREATE"}), 0), (frozenset({"DESCRIBE"}), 1), (frozenset(), 1)]
)
def test_a_missing_right_to_create_topics_is_named(operations: Operations | None, count: int) -> None:
    found = list(of_creation(["a", "b"], operations))
    assert count == len(found)
    assert all("grant Create on the cluster, or on a, b" in each.message for each in found)


def test_the_outcome_of_the_transaction_is_told() -> None:
    assert "ok" == of_transaction(None).verdict
    assert Finding("failed", "transactions", "X: grant Y") == of_transaction(TransactionRefusal("X: grant Y"))


@pytest.mark.parametrize(("most_ms", "verdict"), [(900_000, "ok"), (30_000, "ok"), (29_999, "failed"), (None, "ok")])
def test_a_transaction_timeout_over_the_brokers_maximum_fails(most_ms: int | None, verdict: str) -> None:
    assert verdict == of_transaction_timeout(30_000, most_ms).verdict
