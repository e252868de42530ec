"""`worker broker`: the embedded Kafka alone, to try the worker and other clients against."""

import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import typer

from worker.errors import FatalError

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
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object once it is ready."),
) -> None:
    """Run a real Apache Kafka on this machine until Ctrl-C: nothing to install."""
    from worker.kafka.embedded_cluster import EmbeddedCluster
    from worker.kafka.embedded_storage import EmbeddedSettings

    stop = _stop_on_signals()
    # Topics come to be when they are first written to, which is how other clients expect a broker to be tried.
    settings = EmbeddedSettings(port=port or None, data_dir=data, properties={"auto.create.topics.enable": "true"})
    with EmbeddedCluster(settings, nodes=nodes, progress=_say) as kafka:
        ready = {"bootstrap_servers": kafka.bootstrap_servers, "cluster_id": kafka.cluster_id}
        print(json.dumps(ready) if as_json else _how_to_use(kafka.bootstrap_servers), flush=True)
        while not stop.wait(_LOOK_SECONDS):
            # One of several may go: that is what the others are for.
            if not any(node.is_running for node in kafka.nodes.values()):
                raise FatalError(f"the broker ended by itself: {' / '.join(kafka.nodes[1].log_tail())}")
    _say("stopped")


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
