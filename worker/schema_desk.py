"""What `worker schemas` does, before it is printed: label schemas of one configuration, looked at and changed."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker.clock import Clock, SystemClock
from worker.config import Config, load_config
from worker.documents import DocumentError, parse_json, read_document
from worker.engines.load import EngineChoice
from worker.errors import ConfigError, SchemaError
from worker.kafka.label_status import Answer
from worker.kafka.label_writer import ROLLBACK_HEADER, Change, LabelDesk, LabelTopicText
from worker.labels.changes import NewVersion, digest_at, document_at, is_there, proposed, rolled_back, verdict_of
from worker.labels.diff import Difference, differences
from worker.labels.published import Publication
from worker.labels.registry import LabelRegistry
from worker.labels.schema import parse_schema
from worker.labels.sources import DirectorySource
from worker.messages.reference import parse_reference
from worker.types import JsonValue

Document = Mapping[str, JsonValue]

_UNSEEN = "configurations of which no worker has answered are not seen, nor label schemas that messages name"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that was decided and not yet written."""

    change: Change
    before: int | None
    """The version that holds now."""
    differences: tuple[Difference, ...]
    is_needed: bool
    """False where the topic says so already."""
    notes: tuple[str, ...] = ()
    """What whoever decides should know besides."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version in the topic."""

    version: int
    digest: str | None
    written_ms: int
    is_in_force: bool
    is_pointed: bool
    reason: str | None
    """Why it is refused."""
    rollback_of: str | None


class SchemaDesk:
    """The label schemas of one configuration. Belongs to one thread; methods that ask the broker block."""

    def __init__(self, config: Config, topic: LabelDesk | None) -> None:
        """`topic` is None where the configuration names none."""
        self.config = config
        self._topic = topic
        self._text: LabelTopicText | None = None
        self._answers: list[Answer] | None = None

    @property
    def topic(self) -> LabelDesk:
        """The label topic.

        Raises:
            ConfigError: the configuration names none.
        """
        if self._topic is None:
            raise ConfigError("schemas.topic: expected a topic; label schemas in a folder are changed by hand")
        return self._topic

    def text(self) -> LabelTopicText:
        """What the label topic holds, read once.

        Raises:
            RetryableError: it cannot be read.
        """
        if self._text is None:
            self._text = self.topic.read()
        return self._text

    def registry(self) -> LabelRegistry:
        """What would hold in a worker that has no model of its own to judge by.

        Raises:
            RetryableError: the label topic cannot be read.
            SchemaError: the folder cannot be read.
        """
        return self.fill(LabelRegistry(self.config.limits))

    def fill(self, labels: LabelRegistry) -> LabelRegistry:
        """`labels` with what the sources hold, judged as it judges.

        Raises:
            RetryableError: the label topic cannot be read.
            SchemaError: the folder cannot be read.
        """
        if self.config.schemas.directory is not None:
            reading = DirectorySource(self.config.schemas.directory).read()
            labels.load(reading.documents, reading.unreadable)
        if self._topic is not None:
            state = self.text().state
            labels.publish({name: state.of(name) for name in state.names()})
        return labels

    def held(self, name: str) -> int | None:
        """The version of `name` that all live workers hold, of those that the topic has; None where they do not say.

        Refusals that are a matter of the model only they can tell: a tool has none.

        Raises:
            RetryableError: the broker does not answer, or the label topic cannot be read.
        """
        publication = self.text().of(name)
        pointed = verdict_of(name, publication, self.config.limits).pointed
        said = {answer.in_force for answer in self.answers() if answer.name == name and answer.version == pointed}
        version = said.pop() if len(said) == 1 else None
        return version if version in publication.documents else None

    def answers(self) -> list[Answer]:
        """What the live workers of the group have answered, asked once; nothing where there is no label topic.

        Raises:
            RetryableError: the broker does not answer.
        """
        if self._topic is None:
            return []
        if self._answers is None:
            live = set(self._topic.live_workers())
            said = sorted(self._topic.answers().items())
            self._answers = [answer for _, answer in said if answer.worker in live]
        return self._answers

    def document(self, reference: str) -> Document:
        """The document that a file, `name` or `name@version` stands for.

        Raises:
            ConfigError: there is none.
            SchemaError: the file holds no label schema.
        """
        path = Path(reference)
        if path.suffix in {".yaml", ".yml", ".json"}:
            document = read_file(path)
            parse_schema(document, reference, self.config.limits)
            return document if isinstance(document, dict) else {}
        schema = self.registry().find(reference)
        if schema is not None:
            return schema.document()
        parsed = parse_reference(reference)
        if parsed is not None and parsed.version is not None and self._topic is not None:
            refused = document_at(self.text().of(parsed.name), parsed.version)
            if refused is not None:
                return refused
        raise ConfigError(f"{reference}: expected a label schema that is there; see `worker schemas list`")

    def proposal(self, document: JsonValue, origin: str) -> Proposal:
        """`document` as the next version of its name.

        Raises:
            SchemaError: it is refused, or its version does not rise.
            RetryableError: the label topic cannot be read.
        """
        name = parse_schema(document, origin, self.config.limits).name
        publication = self.text().of(name)
        return self._proposal(name, publication, proposed(document, origin, publication, self.config.limits))

    def rollback(self, name: str, to: int | None) -> Proposal:
        """The content of a former version as the next one.

        Raises:
            SchemaError: there is no such version.
            RetryableError: the label topic cannot be read.
        """
        publication = self.text().of(name)
        new = rolled_back(name, publication, to, self.config.limits, self.held(name))
        return self._proposal(name, publication, new)

    def deletion(self, name: str) -> Proposal:
        """Unbinding `name`.

        Raises:
            SchemaError: a binding uses it, here or in a live worker of the group, or the topic does not bind it.
            RetryableError: the label topic cannot be read, or the group not be asked.
        """
        for binding in self.config.topics:
            parsed = parse_reference(binding.label_schema or "")
            if parsed is not None and parsed.name == name:
                raise SchemaError(f"{name}: the binding of {binding.input} uses it; change its label_schema first")
        publication = self.text().of(name)
        if publication.pointer is None:
            raise SchemaError(f"{name}: expected a label schema that the topic binds")
        verdict = verdict_of(name, publication, self.config.limits)
        before = None if verdict.in_force is None else verdict.in_force.version
        gone = Difference("removed", f"label schema {name}")
        notes = (*self._elsewhere(name), _UNSEEN)
        return Proposal(Change(name, None, publication.pointer), before, (gone,), is_needed=True, notes=notes)

    def _elsewhere(self, name: str) -> list[str]:
        """Who else has said that it uses `name`.

        Raises:
            SchemaError: a live worker of this group.
        """
        live, found = set(self.topic.live_workers()), list[str]()
        for _, answer in sorted(self.topic.answers().items()):
            if answer.name == name and answer.used:
                if answer.worker in live:
                    fix = "change the label_schema of its binding first"
                    raise SchemaError(f"{name}: the running worker {answer.worker} uses it; {fix}")
                found.append(f"used by {answer.worker}, which is of another group or has not stopped in order")
        return found

    def history(self, name: str) -> list[HistoryEntry]:
        """Every version of `name` in the topic, rising.

        Raises:
            SchemaError: the topic has none.
            RetryableError: the label topic cannot be read.
        """
        text = self.text()
        publication = text.of(name)
        if not publication.documents:
            raise SchemaError(f"{name}: expected a label schema that the topic has")
        verdict, held = verdict_of(name, publication, self.config.limits), self.held(name)
        if held is None and verdict.in_force is not None:
            held = verdict.in_force.version
        last = {entry.key: entry for entry in text.entries}
        entries = []
        for version in sorted(publication.documents):
            record = last[f"{name}@{version}".encode()]
            rollback_of = dict(record.headers).get(ROLLBACK_HEADER)
            entries.append(
                HistoryEntry(
                    version=version,
                    digest=digest_at(publication, version),
                    written_ms=record.timestamp_ms,
                    is_in_force=version == held,
                    is_pointed=verdict.pointed == version,
                    reason=verdict.refused.get(version) or (verdict.reason if verdict.pointed == version else None),
                    rollback_of=None if rollback_of is None else rollback_of.decode("ascii", "replace"),
                )
            )
        return entries

    def engine_choice(self) -> EngineChoice:
        """What the configuration says of model and engine."""
        config = self.config
        return EngineChoice(
            config.model, config.engine, config.precision, strict=config.strict, cache_dir=config.cache_dir
        )

    def _proposal(self, name: str, publication: Publication, new: NewVersion) -> Proposal:
        held = self.held(name)
        before = None if held is None else document_at(publication, held)
        if before is None:
            current = self.registry().current(name)
            held = None if current is None else current.version
            before = {} if current is None else current.document()
        after = parse_json(new.canonical.decode())
        found = differences(before, after if isinstance(after, dict) else {})
        return Proposal(Change(name, new, publication.pointer), held, found, not is_there(new, publication))


@contextmanager
def open_desk(config_file: Path, topic: str | None = None, clock: Clock | None = None) -> Iterator[SchemaDesk]:
    """The label schemas of the configuration in `config_file`; `topic` names the command that cannot do without one.

    Raises:
        ConfigError: the configuration cannot be used, or has no `schemas.topic` and needs one.
        RetryableError: no broker answers.
    """
    config = load_config(config_file)
    if topic is not None and config.schemas.topic is None:
        message = f"{config_file}: schemas.topic: expected a topic; `worker schemas {topic}` works on one"
        raise ConfigError(message)
    with ExitStack() as stack:
        desk = None
        if config.schemas.topic is not None:
            desk = stack.enter_context(LabelDesk(config.kafka, config.schemas, clock or SystemClock()))
            desk.create_missing(threading.Event().wait)
        yield SchemaDesk(config, desk)


def read_file(path: Path) -> JsonValue:
    """The document in a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return read_document(path)
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from None
