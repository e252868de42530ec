"""A worker for tests: its configuration, the worker in this process, and the command `worker run` in one of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from worker.app import Worker, open_worker
from worker.config import load_config
from worker.kafka.embedded_storage import free_port

LABELS = "name: kinds\nversion: 1\nlabels:\n  - name: billing\n  - name: bug\n"
END_SECONDS = 120.0

Changes = Mapping[str, Any]
"""Configuration as it would stand in YAML."""
NOTHING: Changes = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Setup:
    """A configuration on disk, and the topics that it reads."""

    path: Path
    inputs: tuple[str, ...]
    http_port: int

    @property
    def outputs(self) -> tuple[str, ...]:
        """All topics that are written."""
        return tuple(f"{topic}{suffix}" for topic in self.inputs for suffix in (".predictions", ".dlq"))


def set_up(folder: Path, kafka: BrokerUnderTest, inputs: Sequence[str], changes: Changes = NOTHING) -> Setup:
    """Write a configuration for `inputs` under one label schema, and create what it writes to.

    `changes` replace top-level keys; its `kafka` and `binding` are merged into the cluster and every binding.
    """
    more = {key: value for key, value in changes.items() if key not in {"kafka", "binding"}}
    binding = {"label_schema": "kinds", **changes.get("binding", {})}
    cluster = {"bootstrap_servers": kafka.bootstrap_servers, "group_id": f"group-{inputs[0]}"}
    port = free_port()
    document = {
        "kafka": {**cluster, **changes.get("kafka", {})},
        "engine": "fake",
        "http": {"port": port},
        "schemas": {"directory": "schemas"},
        "topics": [{"input": topic, **binding} for topic in inputs],
        **more,
    }
    (folder / "schemas").mkdir(exist_ok=True)
    (folder / "schemas" / "kinds.yaml").write_text(LABELS)
    path = folder / "worker.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    return Setup(path, tuple(inputs), port)


def run_to_end(setup: Setup) -> None:
    """Run the worker in this process up to the present end of its topics."""
    with open_worker(load_config(setup.path)) as worker:
        worker.run(until_end=True)


@contextmanager
def running(setup: Setup) -> Iterator[Worker]:
    """The worker at work on a thread of this process; stopped and joined at the end, its failure raised."""
    failures: list[BaseException] = []

    def work(worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  raised below, on the test's thread
            failures.append(error)

    with open_worker(load_config(setup.path)) as worker:
        thread = threading.Thread(target=work, args=(worker,))
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join(END_SECONDS)
    assert [] == failures


@contextmanager
def worker_process(
    setup: Setup, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`worker run` in a process of its own; killed at the end if it still runs."""
    command = [sys.executable, "-m", "worker", "run", "-c", str(setup.path), *arguments]
    log = setup.path.with_suffix(".log").open("ab")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()


def get(setup: Setup, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body of the worker's HTTP port, where `token` is shown; 0 while nobody listens."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{setup.http_port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=40) as response:  # noqa: S310  our own port
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def wait_ready(setup: Setup) -> None:
    """Until `/readyz` says yes."""
    wait_until(lambda: get(setup, "/readyz")[0] == 200, END_SECONDS)
