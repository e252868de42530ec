"""A replay whose broker does what no real one does when asked."""

import re
import threading
from collections.abc import Iterator
from typing import Self

import pytest
from confluent_kafka import KafkaError

from tests.support.scripted_kafka import FENCED, STALE, TIMED_OUT, ScriptedBroker, Step, kafka_error
from worker.clock import ManualClock
from worker.errors import ConfigError, FatalError, RetryableError
from worker.kafka import replay as replay_module
from worker.kafka.clients import ClientSettings
from worker.kafka.replay import Note, Replayer
from worker.types import OutboundRecord, TopicPartition

LETTERS = TopicPartition("dlq", 0)
NOTES = {LETTERS: Note(1, "")}
OUTPUT = OutboundRecord("in", None, b"again", (), None, TopicPartition("in", 0))
GROUP = "group.dead-letters-replay"


class Nobody:
    """A consumer that is asked for the name of its group only."""

    def __init__(self, _settings: ClientSettings) -> None: ...

    def consumer_group_metadata(self) -> Self:
        return self

    def close(self) -> None: ...


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> ScriptedBroker:
    made = ScriptedBroker()
    monkeypatch.setattr(replay_module, "Producer", made.make_producer)
    monkeypatch.setattr(replay_module, "Consumer", Nobody)
    return made


@pytest.fixture
def hangs() -> Iterator[threading.Event]:
    """Set at the end, so that the thread of a call that hangs goes."""
    over = threading.Event()
    yield over
    over.set()


def send(broker: ScriptedBroker, clock: ManualClock, timeout_ms: int = 1000) -> None:
    settings: ClientSettings = {"transactional.id": GROUP, "transaction.timeout.ms": timeout_ms}
    with Replayer(settings, {}, GROUP, clock) as replayer:
        broker.calls.clear()
        replayer.send([OUTPUT], NOTES)


def test_records_and_notes_are_committed_together(broker: ScriptedBroker) -> None:
    send(broker, ManualClock())
    assert ([("in", 0, b"again")], {LETTERS: 1}) == (broker.outputs, broker.offsets)
    assert "abort" not in broker.calls


def test_a_coordinator_that_never_answers_ends_the_replay_in_time_and_its_producer_is_left_alone(
    broker: ScriptedBroker, hangs: threading.Event
) -> None:
    """Another call of that producer would wait for the one that hangs."""

    def hang() -> None:
        hangs.wait(60)

    broker.plan("send_offsets", Step(before=hang))
    with pytest.raises(RetryableError, match="run it again, it goes on where this one ended"):
        send(broker, ManualClock(), timeout_ms=50)
    assert "abort" not in broker.calls
    assert [] == broker.outputs


@pytest.mark.parametrize("answer", [TIMED_OUT, FENCED])
def test_a_commit_that_may_have_held_is_not_aborted(broker: ScriptedBroker, answer: KafkaError) -> None:
    clock = ManualClock()
    broker.plan("commit", Step(TIMED_OUT), Step(answer, before=lambda: clock.advance(2)))
    with pytest.raises((RetryableError, FatalError)):
        send(broker, clock)
    assert ["commit", "commit"] == broker.calls[-3:-1]
    assert "abort" not in broker.calls


def test_a_commit_that_went_unanswered_is_in_doubt_whatever_its_repetition_says(broker: ScriptedBroker) -> None:
    broker.plan("commit", Step(TIMED_OUT, is_done=True), Step(STALE))
    with pytest.raises(RetryableError, match="ILLEGAL_GENERATION"):
        send(broker, ManualClock())
    assert "abort" not in broker.calls


def test_a_commit_that_is_refused_at_once_is_aborted_so_that_no_reader_waits_for_it(broker: ScriptedBroker) -> None:
    """What the broker refuses of the records themselves is told by the commit."""
    broker.plan("commit", Step(kafka_error(KafkaError.TOPIC_AUTHORIZATION_FAILED, "abort")))
    with pytest.raises(ConfigError, match="grant Write and Describe on the input topics"):
        send(broker, ManualClock())
    assert "abort" in broker.calls
    assert [] == broker.outputs


def test_what_fails_before_the_commit_is_aborted(broker: ScriptedBroker) -> None:
    broker.plan("send_offsets", Step(kafka_error(KafkaError.GROUP_AUTHORIZATION_FAILED, "abort")))
    with pytest.raises(ConfigError, match=f"grant Read and Describe on the group {re.escape(GROUP)}"):
        send(broker, ManualClock())
    assert ["abort", "purge"] == broker.calls[-2:]
