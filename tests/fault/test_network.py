"""The network between worker and broker: cut, swallowing everything, slow."""

import json
import os
import random
import signal
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fault.conftest import Verdict
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import PARTITIONS, SOON, STEADY, Stream, kind_of, metric, of_transactions
from tests.support.chaos_worker import Faults
from tests.support.network import END_TXN, Network, network
from tests.support.wait import stays, wait_until
from tests.support.worker import NOTHING, Changes, get
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_storage import EmbeddedSettings

pytestmark = pytest.mark.kafka

OUTAGE_SECONDS = 15.0
"""Longer than the session (2 s) and the transaction (4 s) of these workers."""
LONG_OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "600"))


LASTING: Changes = {"librdkafka": {**SOON, "session.timeout.ms": 60_000}}
"""A session that outlives the cut: what is in doubt is still the worker's own when it asks what became of it."""
IN_DOUBT = 'worker_transactions_total{outcome="in_doubt"}'


@dataclass(frozen=True, slots=True)
class Far:
    """A broker that a worker reaches only through a network."""

    kafka: BrokerUnderTest
    network: Network

    def stream(
        self,
        folder: Path,
        count: int,
        odd: Mapping[int, Mapping[str, object]] | None = None,
        kafka: Changes = NOTHING,
    ) -> Stream:
        inputs = [f"{stem}-{folder.name}" for stem in ("a", "b")]
        self.kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
        there = {"bootstrap_servers": f"127.0.0.1:{self.network.port}"}
        made = Stream(self.kafka, folder, inputs, {"kafka": {**there, **kafka}})
        made.feed(count, odd)
        return made


@pytest.fixture(scope="module")
def far_kafka() -> Iterator[Far]:
    with network() as between:
        settings = EmbeddedSettings(extra_listeners={"FAR": "PLAINTEXT"}, advertised_ports={"FAR": between.port})
        with EmbeddedKafka(settings) as embedded:
            between.target_port = embedded.listener_port("FAR")
            yield Far(BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded), between)


@pytest.fixture
def far(kafka: BrokerUnderTest, request: pytest.FixtureRequest) -> Iterator[Far]:
    """A broker behind a network that is well again after the test; whoever has `kafka` can have one."""
    found: Far = request.getfixturevalue("far_kafka")
    yield found
    found.network.mend()


def outage(far: Far, attacked: Stream, how: str, seconds: float) -> float:
    """No broker for `seconds` under a worker that goes on by itself afterwards; how long that took."""
    with attacked.worker(STEADY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        attacked.await_progress(100)
        getattr(far.network, how)()
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 503, 30)
        wait_until(lambda: b"broker" in get(attacked.setup, "/readyz")[1], 30)
        stays(lambda: get(attacked.setup, "/livez")[0] == 200 and get(attacked.setup, "/readyz")[0] == 503, seconds)
        far.network.mend()
        recovery_seconds = attacked.await_progress(200, 90)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    return recovery_seconds


@pytest.mark.parametrize("how", ["cut", pytest.param("swallow", marks=pytest.mark.soak)])
def test_a_worker_outlives_a_network_that_is_gone_and_says_so_meanwhile(
    far: Far, tmp_path: Path, verdict: Verdict, how: str
) -> None:
    attacked = far.stream(tmp_path, 1200)
    seconds = outage(far, attacked, how, OUTAGE_SECONDS)
    attacked.run_to_end()
    assert verdict(attacked, f"network: {how} for {OUTAGE_SECONDS:.0f} s", seconds).is_perfect


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_outage_of_ten_minutes_restarts_nothing(far: Far, tmp_path: Path, verdict: Verdict) -> None:
    attacked = far.stream(tmp_path, 1200)
    seconds = outage(far, attacked, "swallow", LONG_OUTAGE_SECONDS)
    attacked.run_to_end()
    assert verdict(attacked, f"network: swallow for {LONG_OUTAGE_SECONDS:.0f} s", seconds).is_perfect


def cut_within_a_commit(far: Far, attacked: Stream, what: str) -> Mapping[str, Mapping[int, int]]:
    """Cut the network at the worker's next commit: what it would have committed, by topic and partition."""
    attacked.await_progress(50)
    far.network.swallow_at(END_TXN, what)
    wait_until(lambda: far.network.weather.is_one_way or far.network.weather.is_swallowed, 30)
    (*_, sent) = [json.loads(line) for line in attacked.log().splitlines() if '"offsets_sent"' in line]
    asked: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for place, offset in (position.rsplit("@", 1) for position in sent["positions"]):
        topic, partition = place.rsplit("/", 1)
        asked[topic][int(partition)] = int(offset)
    return asked


def has_held(attacked: Stream, asked: Mapping[str, Mapping[int, int]]) -> bool:
    """Whether the group has committed it; waits for a transaction that is still open."""
    return all(
        offsets.items() <= attacked.kafka.committed_offsets(attacked.group, t).items() for t, offsets in asked.items()
    )


@of_transactions
@pytest.mark.parametrize("session", ["lasts", pytest.param("ends", marks=pytest.mark.soak)])
@pytest.mark.parametrize("what", ["answer", pytest.param("request", marks=pytest.mark.soak)])
def test_a_commit_that_nobody_answered_is_neither_made_again_where_it_held_nor_left_out_where_it_did_not(
    far: Far, tmp_path: Path, verdict: Verdict, what: str, session: str
) -> None:
    """It held where only the answer was lost: from where the worker is, both look alike. The group knows."""
    attacked = far.stream(tmp_path, 200, kafka=LASTING if session == "lasts" else NOTHING)
    with attacked.worker(STEADY) as process:
        asked = cut_within_a_commit(far, attacked, what)
        wait_until(lambda: '"producer.replaced"' in attacked.log(), 30)  # past the deadline, while nobody answers
        assert (what == "answer") == has_held(attacked, asked)
        wait_until(lambda: b"publish: " in get(attacked.setup, "/readyz")[1], 30)
        far.network.mend()
        seconds = attacked.await_progress(50, 90)
        assert 1 <= metric(attacked, IN_DOUBT)
        assert process.poll() is None
        attacked.await_end()
        if session == "lasts":  # then it was its own to ask for, and nobody else has read it again
            assert 1 == attacked.log().count('"partition.assigned"')
    name = f"the {what} of a commit is lost, the network is back after its deadline"
    assert verdict(attacked, f"{name}, the session {session}", seconds).is_perfect


@of_transactions
def test_a_worker_killed_when_its_commit_held_and_before_it_heard_so_leaves_nothing_to_do_twice(
    far: Far, tmp_path: Path, verdict: Verdict
) -> None:
    attacked = far.stream(tmp_path, 200)
    with attacked.worker(STEADY) as process:
        asked = cut_within_a_commit(far, attacked, "answer")
        wait_until(lambda: has_held(attacked, asked), 30)
        process.kill()
    far.network.mend()
    assert verdict(attacked, "SIGKILL", attacked.run_to_end(), phase="commit held, unheard").is_perfect


@pytest.mark.soak
@of_transactions
def test_a_commit_that_is_answered_late_is_one_commit(far: Far, tmp_path: Path, verdict: Verdict) -> None:
    """Within its deadline: the call is repeated, and the client asks again on another connection."""
    attacked = far.stream(tmp_path, 200, kafka={**LASTING, "transaction_timeout_ms": 60_000})
    with attacked.worker(STEADY) as process:
        asked = cut_within_a_commit(far, attacked, "answer")
        wait_until(lambda: has_held(attacked, asked), 30)
        wait_until(lambda: b"the broker does not answer" in get(attacked.setup, "/readyz")[1], 30)
        far.network.mend()
        seconds = attacked.await_progress(50, 90)
        assert process.poll() is None
        attacked.await_end()
    assert verdict(attacked, "the answer of a commit comes late, within its deadline", seconds).is_perfect


@pytest.mark.soak
def test_a_slow_broker_makes_it_slow_and_nothing_else(far: Far, tmp_path: Path, verdict: Verdict) -> None:
    attacked = far.stream(tmp_path, 400)
    far.network.slow_down(0.1, bytes_per_second=200_000)
    attacked.run_to_end()
    assert '"producer.replaced"' not in attacked.log()
    assert verdict(attacked, "network: 0.1 s each way, 200 kB/s").is_perfect


def noise(numbers: range) -> dict[int, dict[str, object]]:
    """Events of twenty kilobytes that no compression makes smaller."""
    dice = random.Random(11)
    characters = string.ascii_letters + string.digits
    more = {number: {"id": f"n-{number}", "text": f"text {number}"} for number in numbers if kind_of(number) == "good"}
    return {
        n: {"value": json.dumps({**each, "noise": "".join(dice.choices(characters, k=20_000))})}
        for n, each in more.items()
    }


@pytest.mark.soak
@of_transactions
def test_what_is_too_much_for_one_transaction_on_a_slow_network_is_published_in_smaller_ones(
    far: Far, tmp_path: Path, verdict: Verdict
) -> None:
    """What has come together takes longer than the broker grants: sent again as it is it would be so for ever."""
    attacked = far.stream(tmp_path, 150, noise(range(150)))
    with attacked.worker(Faults(pair_seconds=0.02)) as process:
        attacked.await_progress(10)
        far.network.slow_down(0.01, bytes_per_second=100_000)
        wait_until(lambda: '"producer.replaced"' in attacked.log(), 60)
        seconds = attacked.await_progress(20, 60)
        far.network.mend()
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    assert "thread.overdue" not in attacked.log()
    attacked.run_to_end()
    assert verdict(attacked, "network: 100 kB/s, more than a transaction's time allows", seconds).is_perfect
