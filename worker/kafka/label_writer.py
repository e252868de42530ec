"""Changing what the label topic says: one change at a time, never half of it, and what the fleet makes of it."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from worker.clock import Clock
from worker.errors import ConfigError, RetryableError
from worker.kafka.clients import (
    ClientSettings,
    apply_settings,
    checked_settings,
    connection,
    reader_settings,
    right_for,
)
from worker.kafka.compacted import CompactedReader, Entry
from worker.kafka.label_status import Answer, read_answers
from worker.kafka.topics import TopicDirectory
from worker.labels.changes import NewVersion, sealed
from worker.labels.published import Pointer, Publication, PublishedSchemas, pointer_bytes
from worker.labels.schema import digest_of
from worker.labels.seal import SEAL, seal_bytes
from worker.settings import Kafka, Schemas
from worker.types import Headers

ROLLBACK_HEADER = "nli-rollback-of"
"""Stands on a document that a rollback wrote: the version whose content it has."""
CALL_SECONDS = 15.0
READ_SECONDS = 30.0
LOOK_SECONDS = 0.2
_COORDINATOR_COMES = frozenset({"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"})
"""What a cluster says on which no group has been yet, for a moment, and one whose coordinator moves."""
_FENCED = frozenset({"_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"})


class MovedError(RetryableError):
    """Somebody else changed the label schema in the meantime; nothing was written."""


@dataclass(frozen=True, slots=True)
class LabelTopicText:
    """What the topic holds at one moment."""

    state: PublishedSchemas
    entries: tuple[Entry, ...]
    """Every record that compaction has left, in order."""

    def of(self, name: str) -> Publication:
        """What it holds of `name`."""
        return self.state.of(name)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written for one name."""

    name: str
    new: NewVersion | None
    """None unbinds the name."""
    seen: bytes | None
    """The pointer that the change was decided by."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the live workers of the group have said of one change."""

    accepted: tuple[str, ...]
    refused: Mapping[str, str]
    """By worker, why."""
    silent: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every live worker has answered."""
        return not self.silent

    @property
    def is_good(self) -> bool:
        """Whether every live worker has accepted."""
        return not self.silent and not self.refused


class LabelDesk:
    """The label topic as the commands see it. A context manager; belongs to one thread; every method blocks."""

    def __init__(self, kafka: Kafka, schemas: Schemas, clock: Clock) -> None:
        """Reach the topics that `schemas` names.

        Raises:
            ConfigError: there is no `schemas.topic`, or a secret cannot be read.
        """
        if schemas.topic is None or schemas.answers_topic is None:
            raise ConfigError("schemas.topic: expected a topic; label schemas in a folder are changed by hand")
        self.topic = schemas.topic
        self._status_topic = schemas.answers_topic
        self._group_id = kafka.group_id
        self._create = schemas.create
        self._clock = clock
        instance = "schemas"
        self._reader: ClientSettings = reader_settings(kafka, instance)
        self._apply: ClientSettings = apply_settings(kafka, instance, schemas.topic)
        self._connection: ClientSettings = connection(kafka, instance)
        with checked_settings():
            self._admin = AdminClient(dict(self._connection))
        self._status: CompactedReader | None = None
        self._said: list[tuple[bytes | None, bytes | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.close()

    def create_missing(self, wait: Callable[[float], object]) -> None:
        """Create the topics where the configuration asks for it, and block until they are known.

        `wait(seconds)` blocks between two looks.

        Raises:
            RetryableError: no broker answers, or it will not.
        """
        if not self._create:
            return
        directory, wanted = TopicDirectory(self._connection), (self.topic, self._status_topic)
        directory.refresh(wanted)
        missing = {name: 1 for name in wanted if directory.facts(name) is None}
        directory.create(missing, {"cleanup.policy": "compact"})
        is_over = self._over_in(CALL_SECONDS)
        # A broker that has not heard of it yet says that there is no such topic.
        while any(directory.facts(name) is None for name in wanted) and not is_over():
            directory.refresh(wanted)
            wait(LOOK_SECONDS)

    def read(self) -> LabelTopicText:
        """Everything in the topic.

        Raises:
            RetryableError: it cannot be read.
        """
        state = PublishedSchemas()
        with CompactedReader(self._reader, self.topic) as reader:
            entries = reader.read_to_end(self._over_in(READ_SECONDS))
        for entry in entries:
            state.note(entry.key, entry.value)
        return LabelTopicText(state, tuple(entries))

    def write(self, change: Change) -> None:
        """Write document, seal and pointer together, if the pointer is still the one that was seen.

        Raises:
            MovedError: it is not, or somebody else began to write; nothing was written.
            RetryableError: the broker does not answer; whether it was written says `worker schemas list`.
        """
        with checked_settings():
            producer = Producer(dict(self._apply))
        try:
            # From here on whoever began before cannot commit: the pointer that is read next is the last word.
            producer.init_transactions(CALL_SECONDS)
            self._transact(producer, change)
        except KafkaException as error:
            reason = error.args[0].name()
            if reason in _FENCED:
                raise MovedError(f"{change.name}: somebody else is changing label schemas; try again") from None
            raise RetryableError(f"{self.topic} could not be written ({reason}){right_for(reason)}") from None

    def _transact(self, producer: Producer, change: Change) -> None:
        producer.begin_transaction()
        try:
            for key, value, headers in _records(change, self._unmoved(change)):
                producer.produce(self.topic, value, key, headers=list(headers), partition=0)
            producer.commit_transaction(CALL_SECONDS)
        except BaseException:
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(CALL_SECONDS)
            raise

    def _unmoved(self, change: Change) -> Publication:
        found = self.read().of(change.name)
        if found.pointer != change.seen:
            raise MovedError(f"{change.name}: somebody else has changed it since; look at it again")
        return found

    def live_workers(self) -> tuple[str, ...]:
        """The members of the consumer group, by client.id.

        Raises:
            RetryableError: the group's coordinator does not answer.
        """
        is_over, pause = self._over_in(CALL_SECONDS), threading.Event()
        while True:
            try:
                described = self._admin.describe_consumer_groups([self._group_id], request_timeout=CALL_SECONDS)
                members = described[self._group_id].result().members
            except KafkaException as error:
                name = error.args[0].name()
                if name == "GROUP_ID_NOT_FOUND":
                    return ()
                if name not in _COORDINATOR_COMES or is_over():
                    raise RetryableError(
                        f"group {self._group_id} cannot be described ({name}){right_for(name)}"
                    ) from None
                pause.wait(LOOK_SECONDS)
            else:
                return tuple(sorted({member.client_id for member in members}))

    def answers(self) -> dict[str, Answer]:
        """The last answers of all workers, by `worker/name`.

        Raises:
            RetryableError: the status topic cannot be read.
        """
        if self._status is None:
            self._status = CompactedReader(self._reader, self._status_topic)
        self._said += [(e.key, e.value) for e in self._status.read_to_end(self._over_in(READ_SECONDS))]
        return read_answers(self._said)

    def response(self, name: str, version: int) -> Response:
        """What the live workers have said of `version` of `name` so far.

        Raises:
            RetryableError: it cannot be found out.
        """
        workers, answers = self.live_workers(), self.answers()
        accepted, refused, silent = list[str](), dict[str, str](), list[str]()
        for worker in workers:
            answer = answers.get(f"{worker}/{name}")
            if answer is None or answer.version is None or answer.version < version:
                silent.append(worker)
            elif answer.state == "refused" and answer.version == version:
                refused[worker] = answer.reason or "no reason given"
            else:  # also where somebody has changed it once more: this one was passed on the way
                accepted.append(worker)
        return Response(tuple(accepted), refused, tuple(silent))

    def wait_for(self, name: str, version: int, timeout_seconds: float, *, wait: Callable[[float], object]) -> Response:
        """What the live workers say of `version` of `name`, once all have answered or the time is over.

        `wait(seconds)` blocks between two looks.

        Raises:
            RetryableError: it cannot be found out.
        """
        is_over = self._over_in(timeout_seconds)
        while True:
            response = self.response(name, version)
            if response.is_complete or is_over():
                return response
            wait(LOOK_SECONDS)

    def _over_in(self, seconds: float) -> Callable[[], bool]:
        deadline = self._clock.monotonic() + seconds
        return lambda: self._clock.monotonic() > deadline


def _records(change: Change, found: Publication) -> Iterable[tuple[bytes, bytes | None, Headers]]:
    """The seal last: whoever reads only the first of them sees no pointer that stands below its seal."""
    name, new = change.name, change.new
    if new is None:
        yield name.encode(), None, ()
    else:
        note = () if new.rollback_of is None else ((ROLLBACK_HEADER, str(new.rollback_of).encode()),)
        yield f"{name}@{new.version}".encode(), new.canonical, note
        yield name.encode(), pointer_bytes(Pointer(new.version, digest_of(new.canonical))), ()
    yield f"{name}@{SEAL}".encode(), seal_bytes(sealed(found, new)), ()
