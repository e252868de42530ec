"""Rights that are taken away and given back while a worker runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.conftest import Verdict
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import HEALTHY, PARTITIONS, STEADY, Stream, under
from tests.support.guarded import open_kafka, without
from tests.support.wait import stays, wait_until
from tests.support.worker import NOTHING, Changes, get
from worker.kafka.rights import Right

pytestmark = pytest.mark.kafka

WITHOUT_SECONDS = 3.0


@pytest.fixture(scope="module")
def running_guarded() -> Iterator[BrokerUnderTest]:
    with open_kafka() as broker:
        yield broker


@pytest.fixture
def guarded(kafka: BrokerUnderTest, request: pytest.FixtureRequest) -> BrokerUnderTest:
    """A broker with an authorizer; whoever has `kafka` can have one."""
    found: BrokerUnderTest = request.getfixturevalue("running_guarded")
    return found


def stream_on(kafka: BrokerUnderTest, folder: Path, count: int, changes: Changes = NOTHING) -> Stream:
    inputs = [f"{stem}-{folder.name}" for stem in ("a", "b")]
    kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
    made = Stream(kafka, folder, inputs, changes)
    made.feed(count)
    return made


def done(attacked: Stream, topic: str) -> int:
    return sum(attacked.kafka.committed_offsets(attacked.group, topic).values())


@pytest.mark.parametrize("output_of", ["predictions", pytest.param("dlq", marks=pytest.mark.soak)])
def test_an_output_that_may_not_be_written_closes_its_own_input_until_it_may(
    guarded: BrokerUnderTest, tmp_path: Path, verdict: Verdict, output_of: str
) -> None:
    attacked = stream_on(guarded, tmp_path, 0)
    closed, other = attacked.setup.inputs
    output = f"{closed}.{output_of}"
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        with without(guarded, Right("TOPIC", output, "WRITE")):
            attacked.feed(400)
            wait_until(lambda: f"{output} takes nothing".encode() in get(attacked.setup, "/readyz")[1], 60)
            wait_until(lambda: done(attacked, other) == 400, 60)
            assert done(attacked, closed) < 400
            stays(lambda: get(attacked.setup, "/livez")[0] == 200, WITHOUT_SECONDS)
        seconds = attacked.await_end()
        wait_until(lambda: attacked.position() == 800, 60)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    name = "an output" if output_of == "predictions" else "a dead letter topic"
    assert verdict(attacked, f"right to write {name} taken, given back", seconds).is_perfect


@pytest.mark.soak
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_that_may_not_be_read_is_waited_for(
    guarded: BrokerUnderTest, tmp_path: Path, verdict: Verdict, protocol: str
) -> None:
    attacked = stream_on(guarded, tmp_path, 1200, under(protocol))
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        with without(guarded, Right("GROUP", attacked.group, "READ")):
            wait_until(lambda: b"grant Read on the consumer group" in get(attacked.setup, "/readyz")[1], 60)
            stays(lambda: get(attacked.setup, "/livez")[0] == 200, WITHOUT_SECONDS)
        seconds = attacked.await_progress(200, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    attacked.run_to_end()
    assert verdict(attacked, f"right to the group taken, given back ({protocol})", seconds).is_perfect


@pytest.mark.soak
def test_transactions_that_are_forbidden_are_waited_for(
    guarded: BrokerUnderTest, tmp_path: Path, verdict: Verdict
) -> None:
    attacked = stream_on(guarded, tmp_path, 1200)
    identity = f"{attacked.group}.pod-0"
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        with without(guarded, Right("TRANSACTIONAL_ID", identity, "WRITE")):
            wanted = b"grant Write and Describe on the transactional id"
            wait_until(lambda: wanted in get(attacked.setup, "/readyz")[1], 60)
            stays(lambda: get(attacked.setup, "/livez")[0] == 200, WITHOUT_SECONDS)
        seconds = attacked.await_progress(200, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    attacked.run_to_end()
    assert verdict(attacked, "right to transactions taken, given back", seconds).is_perfect
