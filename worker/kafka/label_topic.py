"""The label topic, followed by a running worker on a thread of its own.

Two promises rest on it. A worker joins its group only after it has read the topic to its end, and the records of a
partition that it is given wait until it has read to the end seen after that assignment: whatever version the former
owner used, this one knows.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.clock import Clock
from worker.errors import RetryableError
from worker.kafka.clients import ClientSettings
from worker.kafka.compacted import CompactedReader
from worker.kafka.label_status import Answer, StatusWriter
from worker.kafka.offsets import Assignment
from worker.kafka.topics import TopicDirectory
from worker.labels.published import Publication, PublishedSchemas
from worker.labels.registry import LabelRegistry
from worker.observability.health import Readiness
from worker.types import TopicPartition

LOOK_SECONDS = 0.1
"""How long one look waits for records: also how late a new assignment may be noticed."""
RETRY_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LabelTopics:
    """Where schemas and answers are, and how to reach them."""

    reader: ClientSettings
    answers: ClientSettings
    topic: str
    status_topic: str
    worker: str
    """The client.id, under which this worker answers."""
    create: bool
    """Whether missing topics are created."""
    used: frozenset[str] = frozenset()
    """The label schemas that bindings of this worker use, by name."""


@dataclass(frozen=True, slots=True)
class LabelTopicParts:
    """What the follower works with."""

    topics: LabelTopics
    registry: LabelRegistry
    assignment: Assignment
    directory: TopicDirectory
    readiness: Readiness
    clock: Clock
    beat: Callable[[], None]


class LabelTopicFollower:
    """Hands the topic's word to the registry and answers each change. `run` is a thread; all else is for others."""

    def __init__(self, parts: LabelTopicParts) -> None:
        self._parts = parts
        self._read_epoch = -1
        self._is_read = threading.Event()
        self._known: set[str] = set()
        self._trouble: str | None = None
        parts.readiness.block("labels", f"{parts.topics.topic} has not been read to its end yet")

    def is_behind(self, partition: TopicPartition) -> bool:
        """Whether the topic has not been read to the end seen after `partition` was assigned."""
        epoch = self._parts.assignment.epoch(partition)
        return epoch is not None and epoch > self._read_epoch

    def wait_until_read(self, is_over: Callable[[], bool]) -> bool:
        """Block until the topic was read to its end, or `is_over`; whether it was read."""
        while not self._is_read.wait(LOOK_SECONDS):
            if is_over():
                return False
        return True

    def run(self, stop: threading.Event) -> None:
        """Follow the topic until `stop` is set; what is out of reach is tried again, what was read goes on to hold."""
        parts = self._parts
        status = StatusWriter(parts.topics.answers, parts.topics.status_topic, parts.topics.worker, parts.clock)
        try:
            while not stop.is_set():
                try:
                    self._create_missing()
                    with CompactedReader(parts.topics.reader, parts.topics.topic) as reader:
                        self._follow(reader, status, stop)
                except RetryableError as error:
                    self._note_trouble(str(error))
                    parts.beat()
                    stop.wait(RETRY_SECONDS)
        finally:
            status.close()

    def _follow(self, reader: CompactedReader, status: StatusWriter, stop: threading.Event) -> None:
        state, touched, is_whole = PublishedSchemas(), set(self._known), False
        target: tuple[int, int] | None = None
        while not stop.is_set():
            self._parts.beat()
            status.tend()
            epoch = self._parts.assignment.latest_epoch()
            if target is None and (not is_whole or epoch > self._read_epoch):
                target = (epoch, reader.end())  # in this order: the end is seen after the assignment
            touched.update(self._take(state, reader))
            is_there = target is not None and reader.position >= target[1]
            if touched and (is_whole or is_there):
                self._tell(state, touched, status)
                touched = set()
            if target is not None and is_there:
                self._read_epoch, target, is_whole = target[0], None, True
                self._note_trouble(None)
                self._is_read.set()

    def _take(self, state: PublishedSchemas, reader: CompactedReader) -> set[str]:
        touched = set()
        for entry in reader.read(LOOK_SECONDS):
            name = state.note(entry.key, entry.value)
            if name is None:
                log.warning("label_topic.record_ignored", topic=self._parts.topics.topic, offset=entry.offset)
            else:
                touched.add(name)
        return touched

    def _tell(self, state: PublishedSchemas, names: set[str], status: StatusWriter) -> None:
        publications: dict[str, Publication] = {name: state.of(name) for name in sorted(names)}
        self._parts.registry.publish(publications)
        self._known |= names
        for name in publications:
            status.answer(name, self._answer(name, status.worker))

    def _answer(self, name: str, worker: str) -> Answer | None:
        verdict, schema = self._parts.registry.verdict(name), self._parts.registry.current(name)
        if not verdict.is_bound:
            return None
        return Answer(
            worker=worker,
            name=name,
            state="accepted" if verdict.reason is None else "refused",
            version=verdict.pointed,
            in_force=None if schema is None else schema.version,
            digest=None if schema is None else schema.digest,
            reason=verdict.reason,
            used=name in self._parts.topics.used,
        )

    def _create_missing(self) -> None:
        topics = self._parts.topics
        if topics.create:
            wanted = (topics.topic, topics.status_topic)
            self._parts.directory.refresh(wanted)
            missing = {name: 1 for name in wanted if self._parts.directory.facts(name) is None}
            self._parts.directory.create(missing, {"cleanup.policy": "compact"})

    def _note_trouble(self, reason: str | None) -> None:
        if reason is None:
            self._parts.readiness.clear("labels")
        else:
            self._parts.readiness.block("labels", reason)
            if reason != self._trouble:
                log.warning("label_topic.unreachable", reason=reason)
        self._trouble = reason
