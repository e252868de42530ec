"""Rights that are taken away and given back while a worker runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.fault.conftest import Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import HEALTHY, PARTITIONS, STEADY, Stream, under
from tests.support.wait import stays, wait_until
from tests.support.worker import NOTHING, Changes, get
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_storage import EmbeddedSettings

pytestmark = pytest.mark.kafka

AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
WITHOUT_SECONDS = 3.0


@pytest.fixture(scope="module")
def running_guarded() -> Iterator[BrokerUnderTest]:
    with EmbeddedKafka(EmbeddedSettings(properties=AUTHORIZER)) as embedded:
        yield BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)


@pytest.fixture
def guarded(kafka: BrokerUnderTest, request: pytest.FixtureRequest) -> BrokerUnderTest:
    """A broker with an authorizer; whoever has `kafka` can have one."""
    found: BrokerUnderTest = request.getfixturevalue("running_guarded")
    return found


@contextmanager
def without(kafka: BrokerUnderTest, kind: ResourceType, name: str, operation: AclOperation) -> Iterator[None]:
    """Everything is allowed on one thing but `operation`; inside the block."""
    admin = kafka.admin()
    place, anyone = (kind, name, ResourcePatternType.LITERAL), ("User:*", "*")
    rights = (AclOperation.ALL, AclPermissionType.ALLOW), (operation, AclPermissionType.DENY)
    for right in rights:
        for made in admin.create_acls([AclBinding(*place, *anyone, *right)]).values():
            made.result(REQUEST_SECONDS)
    try:
        yield
    finally:
        for right in rights:
            for gone in admin.delete_acls([AclBindingFilter(*place, *anyone, *right)]).values():
                gone.result(REQUEST_SECONDS)


def stream_on(kafka: BrokerUnderTest, folder: Path, count: int, changes: Changes = NOTHING) -> Stream:
    inputs = [f"{stem}-{folder.name}" for stem in ("a", "b")]
    kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
    made = Stream(kafka, folder, inputs, changes)
    made.feed(count)
    return made


def done(attacked: Stream, topic: str) -> int:
    return sum(attacked.kafka.committed_offsets(attacked.group, topic).values())


def test_an_output_that_may_not_be_written_closes_its_own_input_until_it_may(
    guarded: BrokerUnderTest, tmp_path: Path, verdict: Verdict
) -> None:
    attacked = stream_on(guarded, tmp_path, 0)
    closed, other = attacked.setup.inputs
    output = f"{closed}.predictions"
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        with without(guarded, ResourceType.TOPIC, output, AclOperation.WRITE):
            attacked.feed(400)
            wait_until(lambda: f"{output} takes nothing".encode() in get(attacked.setup, "/readyz")[1], 60)
            wait_until(lambda: done(attacked, other) == 400, 60)
            assert done(attacked, closed) < 400
            stays(lambda: get(attacked.setup, "/livez")[0] == 200, WITHOUT_SECONDS)
        seconds = attacked.await_end()
        wait_until(lambda: attacked.position() == 800, 60)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    assert verdict(attacked, "right to write an output taken, given back", seconds).is_perfect


@pytest.mark.soak
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_that_may_not_be_read_is_waited_for(
    guarded: BrokerUnderTest, tmp_path: Path, verdict: Verdict, protocol: str
) -> None:
    attacked = stream_on(guarded, tmp_path, 1200, under(protocol))
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        with without(guarded, ResourceType.GROUP, attacked.group, AclOperation.READ):
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
        with without(guarded, ResourceType.TRANSACTIONAL_ID, identity, AclOperation.WRITE):
            wanted = b"grant Write and Describe on the transactional id"
            wait_until(lambda: wanted in get(attacked.setup, "/readyz")[1], 60)
            stays(lambda: get(attacked.setup, "/livez")[0] == 200, WITHOUT_SECONDS)
        seconds = attacked.await_progress(200, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    attacked.run_to_end()
    assert verdict(attacked, "right to transactions taken, given back", seconds).is_perfect
