"""Three nodes, of which one goes: everything is on the other two."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.fault.conftest import Verdict
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import PARTITIONS, STEADY, Stream
from tests.support.cluster import ROLES, ClusterUnderTest
from tests.support.wait import found_in_time, stays, wait_until
from worker.kafka.embedded_cluster import EmbeddedCluster
from worker.kafka.embedded_storage import EmbeddedSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1500)]

GONE = {0, -signal.SIGTERM}
"""How a worker ends that is told to: drained, or while it was still starting."""


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterUnderTest]:
    with EmbeddedCluster(EmbeddedSettings(data_dir=tmp_path_factory.mktemp("cluster"))) as embedded:
        yield ClusterUnderTest.of(embedded)


@pytest.fixture
def cluster(kafka: BrokerUnderTest, request: pytest.FixtureRequest) -> ClusterUnderTest:
    """Three nodes, all there and in sync; whoever has `kafka` can have them."""
    found: ClusterUnderTest = request.getfixturevalue("running_cluster")
    for node in found.nodes.values():
        node.start()
    found.await_in_sync()
    return found


TOLD_SECONDS = 120.0
"""Within which a transaction has to begin, to take offsets and to end."""


def stream_on(cluster: ClusterUnderTest, folder: Path, count: int) -> Stream:
    inputs = [f"{stem}-{folder.name}" for stem in ("a", "b")]
    cluster.embedded.create_topics(dict.fromkeys(inputs, PARTITIONS))
    made = Stream(cluster.kafka, folder, inputs)
    made.feed(count)
    return made


def lose(cluster: ClusterUnderTest, attacked: Stream, role: str) -> float:
    """Kill the node that has the role under a worker, then start it again; seconds until the worker went on."""
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        topic, identity = attacked.setup.outputs[0], f"{attacked.group}.pod-0"
        node = cluster.nodes[cluster.holder(role, topic=topic, group=attacked.group, transactional_id=identity)]
        node.kill()
        seconds = attacked.await_progress(200, 120)
        node.start()
        attacked.await_progress(200, 120)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    return seconds


def test_the_loss_of_a_leader_costs_nothing_but_time(
    cluster: ClusterUnderTest, tmp_path: Path, verdict: Verdict
) -> None:
    attacked = stream_on(cluster, tmp_path, 2000)
    seconds = lose(cluster, attacked, "leader")
    attacked.run_to_end()
    assert verdict(attacked, "3 nodes: kill -9 of a leader, restart", seconds).is_perfect


@pytest.mark.soak
@pytest.mark.parametrize("role", ["group coordinator", "transaction coordinator"])
def test_the_loss_of_a_coordinator_costs_nothing_but_time(
    cluster: ClusterUnderTest, tmp_path: Path, verdict: Verdict, role: str
) -> None:
    attacked = stream_on(cluster, tmp_path, 2000)
    seconds = lose(cluster, attacked, role)
    attacked.run_to_end()
    assert verdict(attacked, f"3 nodes: kill -9 of the {role}, restart", seconds).is_perfect


@pytest.mark.soak
def test_a_rolling_restart_costs_nothing_but_time(cluster: ClusterUnderTest, tmp_path: Path, verdict: Verdict) -> None:
    attacked = stream_on(cluster, tmp_path, 8000)
    waits = []
    with attacked.worker(STEADY) as process:
        attacked.await_progress(100)
        for node in cluster.nodes.values():
            node.close()
            waits.append(attacked.await_progress(100, 120))
            node.start()
            cluster.await_in_sync()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    attacked.run_to_end()
    assert verdict(attacked, "3 nodes: rolling restart", max(waits)).is_perfect


@pytest.mark.soak
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("bounced", ["brokers", "workers"])
@pytest.mark.parametrize("how", ["clean", "hard"])
def test_the_worker_passes_the_system_test_of_kafkas_own_copier(
    cluster: ClusterUnderTest, tmp_path: Path, verdict: Verdict, bounced: str, how: str
) -> None:
    """Kafka's `transactions_test` bounces brokers or its TransactionalMessageCopier; here the worker is the copier."""
    attacked = stream_on(cluster, tmp_path, 25_000)
    with ExitStack() as stack:
        workers = [stack.enter_context(attacked.worker(STEADY, environment=member(number))) for number in range(2)]
        await_starts(attacked, 2)
        for bounces in range(3):
            if bounced == "brokers":
                bounce_brokers(cluster, attacked, how)
                continue
            for number in range(2):
                bounce_worker(workers[number], how)
                workers[number] = stack.enter_context(attacked.worker(STEADY, environment=member(number)))
                # The other one's progress alone would let this one be bounced before it has begun.
                await_starts(attacked, 2 + 2 * bounces + number + 1)
                attacked.await_progress(100, 120)
        attacked.await_members(2)  # one that was killed may still be a member
        assert [None, None] == [worker.poll() for worker in workers]
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert [0, 0] == [worker.wait(180) for worker in workers]
    assert verdict(attacked, f"copier: {how} bounce of {bounced}, 3 rounds", attacked.run_to_end(600)).is_perfect


@pytest.mark.parametrize("told", ["committed", pytest.param("aborted", marks=pytest.mark.soak)])
def test_what_a_transaction_was_told_holds_though_an_output_had_no_leader_as_it_ended(
    cluster: ClusterUnderTest, tmp_path: Path, told: str
) -> None:
    """Not the worker's promise but the broker's, on which it stands: Kafka 4.3.1 breaks it (KAFKA-20734)."""
    source, output, identity = (f"{name}-{tmp_path.name}" for name in ("in", "out", "id"))
    cluster.embedded.create_topics({source: 1})
    cluster.kafka.create_topics({output: 6}, {"min.insync.replicas": "1"}, replicas=1)
    servers = {"bootstrap.servers": cluster.kafka.bootstrap_servers}
    producer = Producer({**servers, "transactional.id": identity})
    producer.init_transactions(TOLD_SECONDS)
    assert {} == cluster.kafka.committed_offsets(identity, source)  # from here on there are coordinators of both kinds
    group = Consumer({**servers, "group.id": identity}).consumer_group_metadata()
    end = {"committed": producer.commit_transaction, "aborted": producer.abort_transaction}
    # The coordinators stay: another one would look at everything anew.
    stay = {cluster.holder(role, topic=output, group=identity, transactional_id=identity) for role in ROLES[1:]}
    leaders = [cluster.leader(output, n) for n in range(6)]
    place = next(n for n in range(6) if leaders[n] not in stay)
    node = cluster.nodes[leaders[place]]

    fill(producer, output, place, b"first")
    producer.send_offsets_to_transaction([TopicPartition(source, 0, 4)], group, TOLD_SECONDS)
    node.kill()
    wait_until(lambda: cluster.leader(output, place) == -1, 60, "a partition without a leader")
    stays(lambda: cluster.leader(output, place) == -1, 2)  # by then every node knows
    end[told](TOLD_SECONDS)
    node.start()
    if told == "committed":
        found_in_time(lambda: [b"first"] * 4 == values_in(cluster, output), 60)
    fill(producer, output, place, b"second")
    producer.send_offsets_to_transaction([TopicPartition(source, 0, 8)], group, TOLD_SECONDS)
    end["aborted" if told == "committed" else "committed"](TOLD_SECONDS)

    expected, offset = ([b"first"] * 4, 4) if told == "committed" else ([b"second"] * 4, 8)
    found_in_time(lambda: expected == values_in(cluster, output), 60)
    assert {0: offset} == cluster.kafka.committed_offsets(identity, source)


def fill(producer: Producer, output: str, partition: int, value: bytes) -> None:
    """Begin a transaction, and have four records of it in the log."""
    producer.begin_transaction()
    for _ in range(4):
        producer.produce(output, value, partition=partition)
    assert 0 == producer.flush(TOLD_SECONDS)


def values_in(cluster: ClusterUnderTest, topic: str) -> list[bytes | None]:
    return [message.value() for message in cluster.kafka.read_committed(topic)]


def await_starts(attacked: Stream, starts: int) -> None:
    wait_until(lambda: starts == attacked.log().count('"worker.started"'), 60, f"{starts} workers that have started")


def bounce_brokers(cluster: ClusterUnderTest, attacked: Stream, how: str) -> None:
    """Each node goes and comes back, one after the other."""
    for node in cluster.nodes.values():
        if how == "clean":
            node.close()
        else:
            node.kill()
        attacked.await_progress(100, 120)
        node.start()
        cluster.await_in_sync()


def bounce_worker(worker: subprocess.Popen[bytes], how: str) -> None:
    """It goes; whoever asks starts the next one."""
    if how == "clean":
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(180) in GONE
    else:
        worker.kill()
        worker.wait()


def member(number: int) -> dict[str, str]:
    """A worker's own name and port."""
    return {"WORKER_KAFKA__INSTANCE_ID": f"pod-{number}", "WORKER_HTTP__PORT": "0"}
