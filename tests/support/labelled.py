"""A worker whose labels stand in a topic: its configuration, changes to them, and numbered records under load."""

import itertools
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from typer.testing import CliRunner, Result

from tests.support.broker import BrokerUnderTest
from tests.support.worker import Setup
from worker.app import Worker
from worker.cli.main import build_app
from worker.labels.schema import canonical_json
from worker.types import JsonValue


@dataclass(frozen=True, slots=True)
class Seen:
    """What matters of a prediction."""

    number: int
    partition: int
    version: int
    labels: frozenset[str]


class Fleet:
    """One configuration with a label topic, and what is done with it."""

    def __init__(self, kafka: BrokerUnderTest, folder: Path, setup: Setup, label_topic: str) -> None:
        self.kafka, self.folder, self.setup, self.label_topic = kafka, folder, setup, label_topic
        self.topic = setup.inputs[0]
        self.group = f"group-{self.topic}"

    def file(self, version: int, **more: JsonValue) -> Path:
        path = self.folder / f"kinds-{version}.json"
        path.write_text(json.dumps(document(version, **more)))
        return path

    def schemas(self, *arguments: object, answer: str | None = None) -> Result:
        command = ["schemas", str(arguments[0]), "-c", str(self.setup.path), *map(str, arguments[1:])]
        before = structlog.get_config()
        try:
            return CliRunner().invoke(build_app(), command, input=answer)
        finally:
            structlog.configure(**before)  # the command's log goes to a stream that ends with it

    def apply(self, version: int, *arguments: str, **more: JsonValue) -> dict[str, Any]:
        result = self.schemas("apply", self.file(version, **more), "--yes", "--json", *arguments)
        assert 0 == result.exit_code, result.exception or result.output
        return json.loads(result.output)  # type: ignore[no-any-return]

    def write(self, version: int, **more: JsonValue) -> None:
        """Past every check of the tool."""
        self.write_bytes(version, canonical_json(document(version, **more)))

    def write_bytes(self, version: int, value: bytes) -> None:
        """Past every check of the tool, whatever `value` is."""
        self.kafka.produce(
            self.label_topic,
            [
                {"key": f"kinds@{version}", "value": value},
                {"key": "kinds", "value": json.dumps({"version": version})},
            ],
        )

    def predictions(self) -> list[Seen]:
        """What a subscriber sees, in order."""
        found = []
        for message in self.kafka.read_committed(f"{self.topic}.predictions"):
            value = json.loads(message.value() or b"")
            labels = frozenset(score["label"] for score in value["scores"])
            number = int(value["id"]) if value["id"].isdecimal() else -1  # an event of another test's making
            found.append(Seen(number, message.partition() or 0, value["schema"]["version"], labels))
        return found

    def in_force(self, worker: Worker) -> int | None:
        found = worker.labels.current("kinds")
        return None if found is None else found.version


def document(version: int, **more: JsonValue) -> dict[str, JsonValue]:
    return {"name": "kinds", "version": version, "labels": [{"name": "billing"}, {"name": f"v{version}"}], **more}


def event(number: int) -> dict[str, object]:
    """A record; one in 40 pins the first version."""
    pin = {"label_schema": "kinds@1"} if is_pinned(number) else {}
    return {"value": json.dumps({"id": str(number), "text": f"t {number}", **pin}), "partition": number % 4}


def is_pinned(number: int) -> bool:
    """Whether the record of this number names its version itself."""
    return number % 40 == 7


@contextmanager
def load(fleet: Fleet, pause_seconds: float = 0.02) -> Iterator[list[int]]:
    """Records written without end over 4 partitions, 40 after every pause, numbered by their `id`; how many so far."""
    stop, written = threading.Event(), [0]

    def produce() -> None:
        for start in itertools.count(0, 40):
            fleet.kafka.produce(fleet.topic, [event(number) for number in range(start, start + 40)])
            written[0] += 40
            if stop.wait(pause_seconds):
                return

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def assert_whole_and_never_back(predictions: list[Seen]) -> None:
    """Every prediction has exactly the labels of its version; versions rise within a partition, pinned ones aside."""
    lanes: defaultdict[int, list[int]] = defaultdict(list)
    for seen in predictions:
        assert frozenset({"billing", f"v{seen.version}"}) == seen.labels
        if is_pinned(seen.number):
            assert 1 == seen.version
        else:
            lanes[seen.partition].append(seen.version)
    for lane in lanes.values():
        assert sorted(lane) == lane
