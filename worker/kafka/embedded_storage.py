"""What a node of Kafka finds on its disk when it starts: its properties and its formatted storage."""

import base64
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import ConfigError
from worker.kafka.embedded_jars import KAFKA_VERSION, BrokerUnavailableError
from worker.kafka.embedded_java import KafkaJava

HOST = "127.0.0.1"
# Below the ports that operating systems lend to outgoing connections, so that a killed broker finds its own again.
_PORT_RANGE = range(20_000, 32_000)
_CHECKPOINT = "bootstrap.checkpoint"
_META = "meta.properties"

# For one machine and soon: no replicas, few partitions of its own topics, small pools and buffers.
_DEFAULTS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    # Ten seconds by default: how long readers wait for the transaction of a dead worker, beyond its timeout.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A broker that was killed registers again only when its old session has ended: 9 s by default.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": "8388608",
}


# What three or more nodes do differently: everything outlives the loss of one.
_REPLICATED = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
_SAFE_NODES = 3


@dataclass(frozen=True, slots=True)
class Place:
    """Which node of which cluster one is."""

    node_id: int = 1
    cluster_id: str | None = None
    """What a cluster of several agreed on; None draws one."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Listener name -> port, where they had to be known before the start; empty takes free ones."""
    controllers: Mapping[int, int] = field(default_factory=dict)
    """Node id -> port of its controller, of every node; empty is this node alone."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where a node is reached by whom, and what is spoken there: as it stands, in the clear and by everybody."""

    clients: str = "PLAINTEXT"
    """The one that has the port of the settings."""
    brokers: str = "PLAINTEXT"
    """The one of brokers among themselves, and of the owner."""
    protocols: Mapping[str, str] = field(default_factory=lambda: {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"})
    """Name -> security protocol of each, the controller's too."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """How an embedded Kafka differs from the default one."""

    port: int | None = None
    """Port for clients; None takes a free one."""
    data_dir: Path | None = None
    """Where records are kept; None is a folder of its own that goes when the broker is closed."""
    properties: Mapping[str, str] = field(default_factory=dict)
    """Server properties, over the defaults."""
    extra_listeners: Mapping[str, str] = field(default_factory=dict)
    """Name -> security protocol of further listeners, each on a free port."""
    advertised_ports: Mapping[str, int] = field(default_factory=dict)
    """Listener name -> the port that clients are told, where it is another's that stands in between."""
    listeners: Listeners = field(default_factory=Listeners)
    owner: Mapping[str, str] = field(default_factory=dict)
    """librdkafka's settings of whoever started it, for the listener of brokers; with secrets: never to be printed."""
    place: Place = field(default_factory=Place)


def free_port() -> int:
    """A port of this machine that nothing listens on just now."""
    candidates = random.SystemRandom()
    while True:
        port = candidates.choice(_PORT_RANGE)
        if _is_free(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(settings: EmbeddedSettings) -> dict[str, int]:
    """Listener name -> port: what the settings name, free ones for the rest.

    Raises:
        ConfigError: the port that the settings name is taken.
    """
    if settings.port is not None and not _is_free(settings.port):
        raise ConfigError(f"port {settings.port} of {HOST} is taken: name another one, or let a free one be chosen")
    names = [*settings.listeners.protocols, *settings.extra_listeners]
    ports: dict[str, int] = {} if settings.port is None else {settings.listeners.clients: settings.port}
    for name in names:
        port = free_port()
        while port in ports.values():
            port = free_port()
        ports.setdefault(name, port)
    return ports


def write_properties(path: Path, data_dir: Path, ports: Mapping[str, int], settings: EmbeddedSettings) -> None:
    """Write the server properties of a node that listens on `ports` and keeps its records in `data_dir`."""
    place = settings.place
    advertised = {name: port for name, port in {**ports, **settings.advertised_ports}.items() if name != "CONTROLLER"}
    protocols = {**settings.listeners.protocols, **settings.extra_listeners}
    controllers = place.controllers or {place.node_id: ports["CONTROLLER"]}
    properties = {
        **_DEFAULTS,
        **(_REPLICATED if len(controllers) >= _SAFE_NODES else {}),
        "node.id": str(place.node_id),
        "log.dirs": str(data_dir),
        "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in controllers.items()),
        "inter.broker.listener.name": settings.listeners.brokers,
        "listeners": _addresses(ports),
        "advertised.listeners": _addresses(advertised),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        **settings.properties,
    }
    path.touch()
    path.chmod(0o600)  # there may be passwords in it
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def stored_cluster_id(data_dir: Path) -> str | None:
    """The cluster id of storage that is formatted already, else None."""
    meta = data_dir / _META
    if not meta.exists():
        return None
    lines = meta.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), None)


def format_storage(java: KafkaJava, properties: Path, data_dir: Path, settings: EmbeddedSettings) -> str:
    """Format `data_dir` under the cluster's id or a new one, which is returned. Blocks.

    All that Kafka's own tool writes beside the ids is the same for every node of a version; it is kept from the
    first time on, which saves one start of Java.

    Raises:
        BrokerUnavailableError: Kafka's tool refused.
    """
    place = settings.place
    cluster_id = place.cluster_id or random_uuid()
    kept = java.cache_dir / f"{KAFKA_VERSION}-{_CHECKPOINT}"
    if kept.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, data_dir / _CHECKPOINT)
        meta = {"version": "1", "node.id": place.node_id, "cluster.id": cluster_id, "directory.id": random_uuid()}
        text = "".join(f"{key}={value}\n" for key, value in meta.items())
        (data_dir / _META).write_text(text, encoding="utf-8")
        return cluster_id
    arguments = ["format", "-t", cluster_id, "-c", str(properties)]
    _check(java.run_tool("kafka.tools.StorageTool", arguments))
    partial = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copyfile(data_dir / _CHECKPOINT, partial)
    partial.replace(kept)
    return cluster_id


def _check(result: subprocess.CompletedProcess[bytes]) -> None:
    if result.returncode != 0:
        last = (result.stderr or result.stdout).decode(errors="replace").strip().splitlines()[-3:]
        raise BrokerUnavailableError(f"Kafka's storage cannot be formatted: {' / '.join(last)}")


def random_uuid() -> str:
    """A Kafka id: 16 random bytes in URL-safe base 64, and like Kafka's own never with a dash first."""
    while True:
        text = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=").decode()
        if not text.startswith("-"):
            return text
