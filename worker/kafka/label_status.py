"""What each worker answers to a change of its label schemas, on a compacted topic of its own."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from worker.clock import Clock
from worker.documents import mapping_in
from worker.kafka.clients import ClientSettings, checked_settings
from worker.labels.schema import canonical_json
from worker.types import JsonValue

RETRY_SECONDS = 2.0
CLOSE_SECONDS = 3.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one worker made of one pointer."""

    worker: str
    """Its client.id, as the group knows it."""
    name: str
    state: Literal["accepted", "refused"]
    version: int | None
    """The version pointed to; None where the pointer cannot be read."""
    in_force: int | None
    """The version that holds there now."""
    digest: str | None
    """Of the version in force."""
    reason: str | None
    """Why the version pointed to is refused."""
    used: bool = False
    """Whether a binding of the worker uses it."""

    @property
    def key(self) -> str:
        """What it stands under."""
        return f"{self.worker}/{self.name}"


def read_answers(values: Iterable[tuple[bytes | None, bytes | None]]) -> dict[str, Answer]:
    """The last answer under each key; what is none is passed over."""
    answers: dict[str, Answer] = {}
    for key, value in values:
        text = (key or b"").decode("utf-8", "replace")
        answer = None if value is None else _answer(value)
        if answer is None or answer.key != text:
            answers.pop(text, None)
        else:
            answers[text] = answer
    return answers


class StatusWriter:
    """Writes a worker's answers. Belongs to one thread."""

    def __init__(self, settings: ClientSettings, topic: str, worker: str, clock: Clock) -> None:
        """`settings` are those of `clients.answer_settings`; `worker` is the client.id."""
        with checked_settings():
            self._producer = Producer(dict(settings))
        self._topic = topic
        self._worker = worker
        self._clock = clock
        self._wanted: dict[str, bytes | None] = {}
        self._failed: set[str] = set()
        self._retry_at = 0.0

    @property
    def worker(self) -> str:
        """Who answers."""
        return self._worker

    def answer(self, name: str, answer: Answer | None) -> None:
        """Say `answer` for the label schema `name`; None takes the last one back."""
        key = f"{self._worker}/{name}"
        if answer is None and key not in self._wanted:
            return
        value = None if answer is None else canonical_json(asdict(answer))
        if key in self._wanted and self._wanted[key] == value and key not in self._failed:
            return
        self._wanted[key] = value
        self._send(key)

    def tend(self) -> None:
        """Say again, now and then, what could not be said. Never blocks."""
        self._producer.poll(0)
        if self._failed and self._clock.monotonic() >= self._retry_at:
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS
            for key in sorted(self._failed):
                self._send(key)

    def close(self) -> None:
        """Take every answer back: a worker that has gone answers nothing. Blocks for a moment."""
        for key, value in self._wanted.items():
            if value is not None:
                self._wanted[key] = None
                self._send(key)
        self._producer.flush(CLOSE_SECONDS)

    def _send(self, key: str) -> None:
        self._failed.discard(key)

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._note_failure(key, error)

        try:
            self._producer.produce(self._topic, self._wanted[key], key.encode(), on_delivery=note)
        except (BufferError, KafkaException) as error:
            self._note_failure(key, error.args[0] if isinstance(error, KafkaException) else None)

    def _note_failure(self, key: str, error: KafkaError | None) -> None:
        if not self._failed:
            reason = "queue full" if error is None else error.name()
            log.warning("label_status.not_written", topic=self._topic, reason=reason)
        self._failed.add(key)


def _answer(value: bytes) -> Answer | None:
    document = mapping_in(value)
    if document is None or not _is_answer(document):
        return None
    state: Literal["accepted", "refused"] = "accepted" if document["state"] == "accepted" else "refused"
    return Answer(
        worker=str(document["worker"]),
        name=str(document["name"]),
        state=state,
        version=_number(document.get("version")),
        in_force=_number(document.get("in_force")),
        digest=_text(document.get("digest")),
        reason=_text(document.get("reason")),
        used=document.get("used") is True,
    )


def _is_answer(document: Mapping[str, JsonValue]) -> bool:
    return (
        isinstance(document.get("worker"), str)
        and isinstance(document.get("name"), str)
        and document.get("state") in {"accepted", "refused"}
    )


def _number(value: JsonValue) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: JsonValue) -> str | None:
    return value if isinstance(value, str) else None
