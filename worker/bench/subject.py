"""The worker that is measured: `worker run` in a process of its own, as a user would start it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.error import URLError

from prometheus_client.parser import text_string_to_metric_families

from worker.bench.arena import PARTITIONS, Arena, Route
from worker.bench.tokenised import schema_document
from worker.engines.load import EngineChoice
from worker.errors import FatalError
from worker.kafka.embedded_storage import free_port
from worker.types import JsonValue

START_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.1
_HTTP_SECONDS: Final = 10.0
_SETTLED_SECONDS: Final = 15.0
"""How long the metrics may stay behind what was read: a fleet asks its processes each second."""
_DELIVERED: Final = "worker_predictions_delivered_total"


@dataclass(frozen=True, slots=True)
class Binding:
    """One input topic, and the labels of its schema."""

    topic: str
    labels: tuple[str, ...]
    schema: Mapping[str, JsonValue] | None = None
    """The schema itself, where it says more than its labels."""

    @property
    def document(self) -> Mapping[str, JsonValue]:
        """The schema, by the name of its topic."""
        return schema_document(self.topic, self.labels) if self.schema is None else {**self.schema, "name": self.topic}


class Subject:
    """A running `worker run`."""

    def __init__(self, process: "subprocess.Popen[bytes]", http_port: int, log: Path) -> None:
        self._process = process
        self._http_port = http_port
        self._log = log

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

    def metrics_after(self, delivered: int, arena: Arena) -> dict[str, float]:
        """`metrics`, once they count this many predictions: they may lag behind what a subscriber has.

        Raises:
            FatalError: they never do.
        """
        deadline = arena.clock.monotonic() + _SETTLED_SECONDS
        while (found := self.metrics()).get(_DELIVERED, 0.0) < delivered:
            self.check()
            if arena.clock.monotonic() > deadline:
                raise FatalError(f"the metrics count {found.get(_DELIVERED, 0.0):.0f} of {delivered} predictions")
            arena.wait(_LOOK_SECONDS)
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self._http_port}{path}"
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as response:
            return int(response.status), bytes(response.read())


@contextmanager
def running_worker(
    arena: Arena,
    bindings: Sequence[Binding],
    choice: EngineChoice,
    workers: int = 1,
    batching: Mapping[str, JsonValue] | None = None,
) -> Iterator[Subject]:
    """A worker on the arena's broker that follows a folder of label schemas, ready; stopped at the end.

    It is as many processes under one parent; `batching` is that section of its configuration.

    Raises:
        FatalError: it does not get ready.
    """
    with _home() as home:
        folder = home / "label-schemas"
        folder.mkdir()
        for each in bindings:
            (folder / f"{each.topic}.yaml").write_text(json.dumps(each.document))
        document = _document(arena, bindings, choice, f"bench-{home.name}", {"directory": str(folder)})
        with _started(arena, home, {**document, "batching": dict(batching or {})}, workers) as subject:
            yield subject


@contextmanager
def running_fleet(
    arena: Arena, bindings: Sequence[Binding], choice: EngineChoice, label_topic: str, workers: int
) -> Iterator[list[Subject]]:
    """As many workers of one group, which follow `label_topic`; ready, and stopped at the end.

    Raises:
        FatalError: one of them does not get ready.
    """
    with _home() as home, ExitStack() as stack:
        document = _document(arena, bindings, choice, f"bench-{home.name}", {"topic": label_topic, "create": True})
        folders = [home / str(number) for number in range(workers)]
        for folder in folders:
            folder.mkdir()
        yield [stack.enter_context(_started(arena, folder, document)) for folder in folders]


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="worker-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _document(
    arena: Arena, bindings: Sequence[Binding], choice: EngineChoice, group_id: str, schemas: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    return {
        "kafka": {"bootstrap_servers": arena.bootstrap_servers, "group_id": group_id},
        "model": choice.model,
        "engine": choice.engine,
        "precision": choice.precision,
        "schemas": dict(schemas),
        "log_level": "warning",
        "topics": [{"input": each.topic, "label_schema": each.topic} for each in bindings],
    }


@contextmanager
def _started(arena: Arena, home: Path, document: Mapping[str, JsonValue], workers: int = 1) -> Iterator[Subject]:
    port = free_port()
    config, log = home / "worker.yaml", home / "worker.log"
    config.write_text(json.dumps({**document, "http": {"port": port}}), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, "-m", "worker", "run", "-c", str(config), "--log-format", "json"]
    command += ["--workers", str(workers)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(os.environ))
    subject = Subject(process, port, log)
    try:
        _await_ready(arena, subject)
        yield subject
    finally:
        _stop(process)


def routed(
    name: str, labels: Sequence[str], topics: int = 1, partitions: int = PARTITIONS
) -> tuple[Route, list[Binding]]:
    """A route over `topics` inputs, each with a schema of its own: the same labels in another order."""
    inputs = tuple(f"{name}-{number + 1}" for number in range(topics))
    turned = [(*labels[n % len(labels) :], *labels[: n % len(labels)]) for n in range(topics)]
    return Route(inputs, partitions), [Binding(topic, names) for topic, names in zip(inputs, turned, strict=True)]


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
