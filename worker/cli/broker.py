"""`worker broker`: the embedded Kafka alone, to try the worker and other clients against."""

import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from worker.errors import FatalError

if TYPE_CHECKING:
    from worker.kafka.embedded_guard import Guard

_LOOK_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("broker")(broker)


def broker(
    port: int = typer.Option(9092, min=0, max=65535, help="Port for clients; 0 takes a free one."),
    data: Path | None = typer.Option(
        None, file_okay=False, help="Folder that keeps the records; without it they go when the broker stops."
    ),
    nodes: int = typer.Option(1, min=1, max=5, help="Nodes; the first has the port, the others the next ones."),
    secure: bool = typer.Option(
        False, "--secure", help="Let in only who has a password, over TLS, and each with the least rights."
    ),
    credentials: Path = typer.Option(
        Path("kafka-credentials"), file_okay=False, help="With --secure: folder of what each client needs."
    ),
    topic: str = typer.Option("tickets", help="With --secure: topic that is written to and read by the worker."),
    group: str | None = typer.Option(
        None, help="With --secure: the worker's group; by default the one that `worker init` names after the topic."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object once it is ready."),
) -> None:
    """Run a real Apache Kafka on this machine until Ctrl-C: nothing to install."""
    from worker.kafka.embedded_cluster import EmbeddedCluster
    from worker.kafka.embedded_storage import EmbeddedSettings

    stop = _stop_on_signals()
    guard = _guard(credentials, topic, group) if secure else None
    # Topics come to be when they are first written to, which is how other clients expect a broker to be tried; where
    # each has its rights, that would be one right too many.
    properties = {} if guard else {"auto.create.topics.enable": "true"}
    settings = EmbeddedSettings(port=port or None, data_dir=data, properties=properties)
    with EmbeddedCluster(guard.settings(settings) if guard else settings, nodes=nodes, progress=_say) as kafka:
        servers = kafka.bootstrap_servers
        ready = {"bootstrap_servers": servers, "cluster_id": kafka.cluster_id}
        if guard:
            guard.let_in(kafka.nodes[1], servers)
            ready["credentials"] = str(guard.folder)
        told = _how_to_come_in(credentials, topic, servers) if guard else _how_to_use(servers)
        print(json.dumps(ready) if as_json else told, flush=True)
        while not stop.wait(_LOOK_SECONDS):
            # One of several may go: that is what the others are for.
            if not any(node.is_running for node in kafka.nodes.values()):
                raise FatalError(f"the broker ended by itself: {' / '.join(kafka.nodes[1].log_tail())}")
    _say("stopped")


def _guard(folder: Path, topic: str, group: str | None) -> "Guard":
    from worker.kafka.embedded_guard import guard
    from worker.kafka.embedded_java import kafka_java
    from worker.starter import group_of

    return guard(folder, kafka_java(_say), topic, group or group_of(topic))


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM sets, and Ctrl-C too; a second Ctrl-C interrupts."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop


def _say(message: str) -> None:
    """Progress is for people: quiet in a pipe."""
    if sys.stderr.isatty():
        print(f"broker: {message}", file=sys.stderr, flush=True)


def _how_to_use(bootstrap_servers: str) -> str:
    return f"""Apache Kafka is ready on {bootstrap_servers}

  produce         echo '{{"text": "the app crashes on start"}}' | kcat -b {bootstrap_servers} -P -t tickets
  classify        WORKER_KAFKA__BOOTSTRAP_SERVERS={bootstrap_servers} worker run -c worker.yaml
  subscribe       kcat -b {bootstrap_servers} -C -t tickets.predictions -X isolation.level=read_committed

Ctrl-C stops it."""


def _how_to_come_in(folder: Path, topic: str, bootstrap_servers: str) -> str:
    return f"""Apache Kafka is ready on {bootstrap_servers}: SASL_SSL, SCRAM-SHA-512, and nobody without a right

  admin      {folder}/admin.conf, admin.properties         everything
  worker     {folder}/worker.yaml                          the `kafka` section of its configuration
  producer   {folder}/producer.conf, producer.properties   writes {topic}
  reader     {folder}/reader.conf, reader.properties       reads {topic}.predictions and {topic}.dlq

  .conf is for librdkafka's clients (kcat -F), .properties for Java's (--command-config), .password is the password.
  Kafka 4 refuses the SCRAM of librdkafka before 2.6.1: kcat -V tells which one it has.

  configure       worker init --kafka {folder}/worker.yaml --topic {topic}
  make topics     WORKER_KAFKA__SASL_USERNAME=admin WORKER_KAFKA__SASL_PASSWORD_FILE={folder}/admin.password \\
                    worker check --create-topics
  classify        worker run
  produce         echo '{{"text": "the app crashes on start"}}' | kcat -F {folder}/producer.conf -P -t {topic}
  subscribe       kcat -F {folder}/reader.conf -C -t {topic}.predictions

Ctrl-C stops it."""
