"""Half an hour at full speed with a fault every 20 to 60 s; SOAK_MINUTES makes it shorter or longer.

Two workers on three nodes. One of them lives through all of it and is looked at: memory, handles, threads. The other is
killed again and again. The samples are kept as CSV in the file that SOAK_VITALS names.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fault.conftest import Noted
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import PARTITIONS, Stream, Tally, promised
from tests.support.chaos_worker import Faults
from tests.support.cluster import ClusterUnderTest
from tests.support.endless import EndlessStream, Vitals
from tests.support.network import Network, network
from tests.support.wait import wait_until
from worker.kafka.embedded_cluster import EmbeddedCluster
from worker.kafka.embedded_storage import EmbeddedSettings

MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
SEED = int(os.environ.get("SOAK_SEED", "21"))
WARM_UP_SECONDS = min(240.0, MINUTES * 60 / 6)
LOOK_SECONDS = 5.0
CALM_SECONDS = (20.0, 60.0)
"""Between two faults."""
SETTLED_SECONDS = 300.0
NODES = (1, 2, 3)
NO_FAULT = "nothing, between two faults"
FULL_SPEED = Faults()

pytestmark = [pytest.mark.soak, pytest.mark.kafka, pytest.mark.timeout(MINUTES * 60 + 1200)]


@dataclass
class Site:
    """All that can break."""

    cluster: ClusterUnderTest
    networks: dict[int, Network]
    attacked: Stream
    stack: ExitStack
    endless: EndlessStream
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    workers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, number: int) -> None:
        environment = {"WORKER_KAFKA__INSTANCE_ID": f"pod-{number}", "WORKER_HTTP__PORT": "0"}
        self.workers[number] = self.stack.enter_context(self.attacked.worker(FULL_SPEED, environment=environment))

    def stop(self) -> dict[int, int]:
        """Ask the workers to end; the exit code of each."""
        for process in self.workers.values():
            process.send_signal(signal.SIGTERM)
        return {number: process.wait(270) for number, process in self.workers.items()}

    def wait(self, shortest: float, longest: float) -> None:
        """Some time passes, and the elder is looked at."""
        until = time.monotonic() + self.dice.uniform(shortest, longest)
        wait_until(lambda: time.monotonic() >= until, longest + 1)

    def kill_worker(self) -> None:
        self.workers[1].kill()
        self.workers[1].wait()
        self.wait(0, 5)
        self.start(1)

    def stop_and_wake(self) -> None:
        """A worker sleeps past its session and its transaction."""
        process = self.workers[self.dice.choice((0, 1))]
        process.send_signal(signal.SIGSTOP)
        self.wait(3, 10)
        process.send_signal(signal.SIGCONT)

    def kill_broker(self) -> None:
        self.cluster.await_in_sync()
        node = self.cluster.nodes[self.dice.choice(NODES)]
        node.kill()
        self.wait(3, 10)
        node.start()

    def rebalance(self) -> None:
        self.start(2)
        group = self.attacked.group
        wait_until(lambda: self.cluster.kafka.members(group) == len(self.workers), 120, "its joining", 0.5)
        self.wait(0, 5)
        self.workers[2].send_signal(signal.SIGTERM)
        assert 0 == self.workers.pop(2).wait(270)

    def cut(self) -> None:
        how = self.dice.choice(("cut", "swallow"))
        for each in self.networks.values():
            getattr(each, how)()
        self.wait(5, 15)
        for each in self.networks.values():
            each.mend()

    @property
    def faults(self) -> dict[str, Callable[[], None]]:
        return {
            "SIGKILL of a worker": self.kill_worker,
            "SIGSTOP, SIGCONT": self.stop_and_wake,
            "kill -9 of a node": self.kill_broker,
            "a worker joins and leaves": self.rebalance,
            "network cut": self.cut,
        }


@contextmanager
def far_cluster() -> Iterator[tuple[ClusterUnderTest, dict[int, Network]]]:
    """Three nodes, and what lies between each of them and the workers."""
    with ExitStack() as stack:
        networks = {node: stack.enter_context(network()) for node in NODES}
        settings = EmbeddedSettings(
            extra_listeners={"FAR": "PLAINTEXT"},
            properties={
                "log.retention.bytes": str(50 * 1024**2),
                "log.segment.bytes": str(20 * 1024**2),
                "log.retention.check.interval.ms": "60000",
            },
        )
        advertised = {node: {"FAR": each.port} for node, each in networks.items()}
        embedded = stack.enter_context(EmbeddedCluster(settings, advertised_ports=advertised))
        for node, each in networks.items():
            each.target_port = embedded.nodes[node].listener_port("FAR")
        yield ClusterUnderTest.of(embedded), networks


def test_half_an_hour_of_faults_loses_nothing_and_leaks_nothing(
    kafka: BrokerUnderTest, tmp_path: Path, noted: Noted
) -> None:
    with far_cluster() as (cluster, networks), ExitStack() as stack:
        inputs = ["soak-a", "soak-b"]
        cluster.kafka.create_topics(dict.fromkeys(inputs, PARTITIONS))
        servers = ",".join(f"127.0.0.1:{each.port}" for each in networks.values())
        limits = {"limits": {"in_flight_records": 4000}, "batching": {"latency_target_ms": 200}}
        attacked = Stream(cluster.kafka, tmp_path, inputs, {"kafka": {"bootstrap_servers": servers}, **limits})
        endless = EndlessStream(cluster.kafka, inputs)
        site = Site(cluster, networks, attacked, stack, endless)
        site.start(0)
        site.start(1)
        vitals = Vitals(site.workers[0].pid, Path(os.environ.get("SOAK_VITALS", str(tmp_path / "vitals.csv"))), endless)
        with endless.running():
            recoveries = under_fire(site, vitals)
            endless.finish(SETTLED_SECONDS)
            codes = site.stop()
            endless.read_to_end(SETTLED_SECONDS)  # also what a worker had still to say when it was told to end
            tally = endless.tally()
        assert endless.failure is None
        for name, seconds in recoveries.items():
            say(
                f"{name}: {len(seconds)} times, {min(seconds):.1f} to {max(seconds):.1f} s that a partition stood still"
            )
            for each in seconds:
                noted(f"soak: {name}", Tally(0, 0, 0, 0, 0), each)
        noted(f"soak: {MINUTES:.0f} min, all of these", tally, None)
        say(f"vitals: {vitals.samples[0]} {vitals.samples[-1]}")
        assert "thread.overdue" not in attacked.log()
        assert {0: 0, 1: 0} == codes
    assert promised(tally).is_perfect
    assert_flat(vitals)


def say(line: str) -> None:
    """For whoever watches."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def under_fire(site: Site, vitals: Vitals) -> dict[str, list[float]]:
    """Fault after fault until the time is over; fault -> how long a partition stood still, each time.

    From the moment the fault begins: it may be over before whoever was hit has recovered, and the reverse.
    """
    recoveries: defaultdict[str, list[float]] = defaultdict(list)
    end, faults, names = time.monotonic() + MINUTES * 60, site.faults, list(site.faults)
    silences = site.endless.silences
    await_all(site, "the beginning")
    while time.monotonic() < end and site.endless.failure is None:
        silences.restart()
        calm_until = time.monotonic() + site.dice.uniform(*CALM_SECONDS)
        while time.monotonic() < calm_until:
            vitals.look()
            next_look = time.monotonic() + LOOK_SECONDS
            wait_until(lambda at=next_look: time.monotonic() >= at, LOOK_SECONDS + 1)  # type: ignore[misc]
        recoveries[NO_FAULT].append(silences.longest())
        name = site.dice.choice(names)
        say(f"{time.monotonic() - end + MINUTES * 60:.0f} s: {name}, {site.endless.seen} results")
        silences.restart()
        faults[name]()
        await_all(site, name)
        recoveries[name].append(silences.longest())
    return recoveries


def await_all(site: Site, after: str) -> None:
    """Until every partition has shown a result from now on."""
    now = time.monotonic()

    def is_well() -> bool:
        return site.endless.is_past(-1) and site.endless.silences.are_over(now)

    wait_until(is_well, 120, f"a result of every partition after: {after}")


def assert_flat(vitals: Vitals) -> None:
    """No more at the end than at the beginning, but for what differs from one moment to the next."""
    for name, share, more in (("rss_megabytes", 1.10, 10), ("handles", 1.0, 8), ("threads", 1.0, 3)):
        first, last = vitals.thirds(name, WARM_UP_SECONDS)
        say(f"{name}: median {first:.0f} in the first third, {last:.0f} in the last")
        assert last <= first * share + more, f"{name}: {first:.0f} in the first third, {last:.0f} in the last"
