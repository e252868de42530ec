"""The worker that is measured: `worker run` in a process of its own, as a user would start it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from worker.bench.arena import Arena, Route
from worker.bench.tokenised import schema_document
from worker.engines.load import EngineChoice
from worker.errors import FatalError
from worker.kafka.embedded_storage import free_port

START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_HTTP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Binding:
    """One input topic, and the labels of its schema."""

    topic: str
    labels: tuple[str, ...]


class SchemaFolder:
    """The label schemas that the worker follows, one per input topic."""

    def __init__(self, path: Path, bindings: Sequence[Binding], *, fixed_labels: bool) -> None:
        """Write the first versions; with `fixed_labels` a new version changes nothing but its number."""
        self.path = path
        self._is_fixed = fixed_labels
        self._bindings = bindings
        self._version = 0
        path.mkdir()
        self.change()

    def change(self) -> int:
        """Put a new version of every schema in place: as many labels, the first of them renamed."""
        self._version += 1
        for binding in self._bindings:
            first = binding.labels[0] if self._is_fixed else f"{binding.labels[0]} {self._version}"
            labels = (first, *binding.labels[1:])
            document = schema_document(binding.topic, labels, self._version)
            incoming = self.path.with_name(f"incoming-{binding.topic}")
            incoming.write_text(json.dumps(document), encoding="utf-8")
            incoming.rename(self.path / f"{binding.topic}.yaml")  # whoever looks sees the whole file or none
        return self._version


class Subject:
    """A running `worker run`."""

    def __init__(self, process: "subprocess.Popen[bytes]", http_port: int, log: Path, schemas: SchemaFolder) -> None:
        self._process = process
        self._http_port = http_port
        self._log = log
        self.schemas = schemas

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def check(self) -> None:
        """Nothing while it runs.

        Raises:
            FatalError: it ended.
        """
        code = self._process.poll()
        if code is not None:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            raise FatalError(f"the worker ended with code {code}: {lines[-1] if lines else 'it said nothing'}")

    def is_ready(self) -> bool:
        """What `/readyz` says."""
        try:
            return self._get("/readyz")[0] == HTTPStatus.OK
        except (URLError, OSError):
            return False

    def metrics(self) -> dict[str, float]:
        """The sum of every metric's samples over its labels, by name."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self._get("/metrics")[1].decode()):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self._http_port}{path}"
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as response:
            return int(response.status), bytes(response.read())


@contextmanager
def running_worker(
    arena: Arena, bindings: Sequence[Binding], choice: EngineChoice, *, fixed_labels: bool = False
) -> Iterator[Subject]:
    """A worker on the arena's broker, ready; stopped at the end.

    With `fixed_labels` the first label is named as it is given, so that answers can be compared.

    Raises:
        FatalError: it does not get ready.
    """
    with tempfile.TemporaryDirectory(prefix="worker-bench-", ignore_cleanup_errors=True) as folder:
        home, port = Path(folder), free_port()
        schemas = SchemaFolder(home / "label-schemas", bindings, fixed_labels=fixed_labels)
        document = {
            "kafka": {"bootstrap_servers": arena.bootstrap_servers, "group_id": f"bench-{port}"},
            "model": choice.model,
            "engine": choice.engine,
            "precision": choice.precision,
            "schemas": {"directory": str(schemas.path)},
            "http": {"port": port},
            "log_level": "warning",
            "topics": [{"input": each.topic, "label_schema": each.topic} for each in bindings],
        }
        config, log = home / "worker.yaml", home / "worker.log"
        config.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        command = [sys.executable, "-m", "worker", "run", "-c", str(config), "--log-format", "json"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
        subject = Subject(process, port, log, schemas)
        try:
            _await_ready(arena, subject)
            yield subject
        finally:
            _stop(process)


def routed(name: str, labels: Sequence[str], topics: int = 1) -> tuple[Route, list[Binding]]:
    """A route over `topics` inputs, each with a schema of its own: the same labels in another order."""
    inputs = tuple(f"{name}-{number + 1}" for number in range(topics))
    turned = [(*labels[n % len(labels) :], *labels[: n % len(labels)]) for n in range(topics)]
    return Route(inputs), [Binding(topic, names) for topic, names in zip(inputs, turned, strict=True)]


def _await_ready(arena: Arena, subject: Subject) -> None:
    deadline = arena.clock.monotonic() + START_SECONDS
    while not subject.is_ready():
        subject.check()
        if arena.clock.monotonic() > deadline:
            raise FatalError(f"the worker did not get ready within {START_SECONDS:.0f} s")
        arena.wait(_LOOK_SECONDS)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
