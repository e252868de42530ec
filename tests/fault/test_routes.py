"""Copies to other topics under attack: they live and die with the transaction of their prediction."""

import json
import signal

import pytest
from confluent_kafka import Message

from tests.conftest import TopicsFactory
from tests.fault.conftest import StreamFactory, Verdict
from tests.support.chaos import of_transactions
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive

pytestmark = pytest.mark.kafka


@of_transactions
def test_a_copy_that_was_written_in_an_aborted_transaction_is_never_seen(
    stream: StreamFactory, topics: TopicsFactory, verdict: Verdict
) -> None:
    [queue] = topics("queue")
    attacked = stream(200, {"binding": {"routes": {"billing": queue, "bug": queue}}})
    with attacked.worker(Faults(phase="after_produce", at=3)) as process:
        assert -signal.SIGKILL == process.wait(180)  # the broker has the records, and no commit
    attacked.run_to_end()
    assert verdict(attacked, "killed with routed copies in its transaction").is_perfect
    copies = attacked.kafka.read_committed(queue)
    predictions = attacked.kafka.read_committed(*(f"{topic}.predictions" for topic in attacked.setup.inputs))
    assert _places(predictions) == _places(copies)
    written = attacked.kafka.read_uncommitted(queue)
    conclusive(len(written) > len(copies), "the transaction that was aborted had no copies in it")
    assert set(_places(written)) == set(_places(copies)), "what was aborted was written again"


def _places(messages: list[Message]) -> list[tuple[str, int, int]]:
    """Of which input record each is, in order."""
    sources = (json.loads(message.value() or b"")["source"] for message in messages)
    return sorted((source["topic"], source["partition"], source["offset"]) for source in sources)
