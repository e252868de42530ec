"""The last stable offsets, as the broker tells them."""

import gc
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.scripted_kafka import TIMED_OUT
from worker.kafka import ends
from worker.kafka.ends import StableEnds
from worker.kafka.offsets import Assignment
from worker.types import TopicPartition

FIRST, SECOND = TopicPartition("in", 0), TopicPartition("in", 1)


class ScriptedAdmin:
    """Answers with what `known` says; fails for all else. Each client made is counted."""

    known: Mapping[TopicPartition, int] = {}
    made = 0

    def __init__(self, _settings: object) -> None:
        type(self).made += 1

    def list_offsets(self, wanted: Mapping[KafkaPartition, object], **more: Any) -> dict[KafkaPartition, Future[Any]]:  # noqa: ANN401
        assert IsolationLevel.READ_COMMITTED == more["isolation_level"]
        return {each: self._answer(TopicPartition(each.topic, each.partition)) for each in wanted}

    def _answer(self, partition: TopicPartition) -> "Future[Any]":
        future: Future[Any] = Future()
        if partition in self.known:
            future.set_result(SimpleNamespace(offset=self.known[partition]))
        else:
            future.set_exception(KafkaException(TIMED_OUT))
        return future


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedAdmin]:
    admin = type("OneTestsAdmin", (ScriptedAdmin,), {})
    monkeypatch.setattr(ends, "AdminClient", admin)
    return admin


def test_ends_of_owned_partitions_are_known_after_a_look_and_forgotten_with_them(admin: type[ScriptedAdmin]) -> None:
    assignment = Assignment()
    stable = StableEnds({}, assignment)
    assignment.assign([FIRST, SECOND])
    admin.known = {FIRST: 7, SECOND: 9}
    assert {} == stable.ends()
    stable.look()
    assert {FIRST: 7, SECOND: 9} == stable.ends()
    assignment.revoke([FIRST])
    stable.look()
    assert {SECOND: 9} == stable.ends()
    assignment.revoke([SECOND])
    stable.look()
    assert {} == stable.ends()


def test_what_the_broker_does_not_answer_stays_as_it_was_and_the_client_is_replaced(admin: type[ScriptedAdmin]) -> None:
    assignment = Assignment()
    stable = StableEnds({}, assignment)
    assignment.assign([FIRST])
    admin.known = {FIRST: 7}
    stable.look()
    admin.known = {}
    stable.look()
    assert ({FIRST: 7}, 2) == (stable.ends(), admin.made)


def test_it_looks_until_it_is_told_to_stop(admin: type[ScriptedAdmin]) -> None:
    assignment = Assignment()
    assignment.assign([FIRST])
    admin.known = {FIRST: 7}
    stable, answers = StableEnds({}, assignment), iter([False, True])
    stable.run(lambda _seconds: next(answers))
    assert {FIRST: 7} == stable.ends()


def test_a_client_that_was_replaced_is_gone_at_once(admin: type[ScriptedAdmin]) -> None:
    """Each is a handful of threads and connections, and `worker run` has the garbage collector look seldom."""
    assignment = Assignment()
    stable = StableEnds({}, assignment)
    assignment.assign([FIRST])
    before = weakref.ref(stable._admin)
    gc.disable()
    try:
        stable.look()
        assert 2 == admin.made
        assert before() is None
    finally:
        gc.enable()
