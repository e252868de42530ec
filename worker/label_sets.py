"""The label schemas of a running worker: where they come from, which hold, and what is said of them."""

from collections.abc import Callable, Iterator

import structlog

from worker.clock import Clock
from worker.config import Config
from worker.engines.load import LoadedModel
from worker.engines.token_vectors import load_token_vectors
from worker.errors import ConfigError, MessageError, SchemaError
from worker.kafka.clients import answer_settings, reader_settings
from worker.kafka.label_topic import LabelTopicFollower, LabelTopicParts, LabelTopics
from worker.kafka.offsets import Assignment
from worker.kafka.topics import TopicDirectory
from worker.labels.notices import Notice, route_notices, schema_notices
from worker.labels.registry import LabelRegistry, RegistryChange, SchemaRefusal
from worker.labels.schema import LabelSchema
from worker.labels.sources import DirectorySource
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import UNKNOWN, Metrics
from worker.pipeline.planning import check_cost
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue

HEARTBEAT = "labels"
SILENCE_SECONDS = 60.0
"""How long the follower of the label topic may be silent: above every request that it waits for."""

log = structlog.get_logger(__name__)


def directory_source(config: Config) -> DirectorySource | None:
    """The folder of label schemas, where there is one.

    Raises:
        ConfigError: a binding needs label schemas and they can come from nowhere.
    """
    if config.schemas.directory is not None:
        return DirectorySource(config.schemas.directory)
    for binding in config.topics:
        if binding.label_schema is not None and config.schemas.topic is None:
            message = f"topics: {binding.input} has a label_schema; set schemas.directory or schemas.topic"
            raise ConfigError(message)
    return None


def pair_tokenizer(model: LoadedModel, audit_every: int = 0) -> PairTokenizer:
    """The tokenizer of `model`; one text in `audit_every` is scored beside its shortlist (0: none).

    Raises:
        EngineError: a file of the model cannot be used.
    """
    vectors = load_token_vectors(model.tokenizer_file)
    info = model.engine.info
    most, reading = info.max_pair_tokens, info.reading
    return PairTokenizer(model.tokenizer_file, most, vectors, audit_every=audit_every, reading=reading)


def affordable(max_pairs: int) -> Callable[[LabelSchema], None]:
    """A check that a label schema costs no message more pairs than it may have."""

    def check(schema: LabelSchema) -> None:
        try:
            check_cost(schema, 1, max_pairs)
        except MessageError as error:
            raise SchemaError(error.reason) from None

    return check


def fitting(tokenizer: PairTokenizer, max_pairs: int) -> Callable[[LabelSchema], None]:
    """A check that a label schema can be scored at all; it tokenises the hypotheses before the schema holds."""
    check_cost_of = affordable(max_pairs)

    def check(schema: LabelSchema) -> None:
        check_cost_of(schema)
        try:
            tokenizer.prepare(schema)
        except MessageError as error:
            raise SchemaError(error.reason) from None

    return check


class LabelSets:
    """The registry of one worker, and what of it metrics, log and readiness are told."""

    def __init__(self, config: Config, metrics: Metrics, readiness: Readiness) -> None:
        """Empty, until `use_model`."""
        self._config = config
        self._metrics = metrics
        for name in {binding.label_schema for binding in config.topics} - {None}:
            metrics.label_schema_refusals.labels(name=name)
        self._readiness = readiness
        self._model_digest: str | None = None
        self.registry = LabelRegistry(config.limits)

    def use_model(self, model: LoadedModel, tokenizer: PairTokenizer) -> None:
        """Judge label schemas by `model` from now on."""
        limits = self._config.limits
        self._model_digest = digest = model.engine.info.stamp.digest
        self.registry = LabelRegistry(limits, digest, fitting(tokenizer, limits.pairs))
        self.registry.subscribe(self._note)

    def load_files(self, source: DirectorySource) -> None:
        """Load the folder, once, at start; what it refuses is told as it is later, and ends nothing. Blocks.

        Raises:
            SchemaError: the folder cannot be read, or the refusal leaves a binding without its label schema
                and no label topic could bring it.
        """
        source.load(self.registry)
        if self._config.schemas.topic is not None:
            return
        for binding in self._config.topics:
            if binding.label_schema is not None and self.registry.find(binding.label_schema) is None:
                for refusal in behind(binding.label_schema, self.registry):
                    raise SchemaError(str(refusal))

    def has_own(self, topic: str, name: str | None) -> bool:
        """Whether the label schema that the binding of `topic` names is there; readiness says where it is not."""
        if name is None or self.registry.find(name) is not None:
            self._readiness.clear(f"schema:{topic}")
            return True
        self._readiness.block(f"schema:{topic}", f"{topic}: its label schema {name} is not there")
        return False

    def describe(self) -> JsonValue:
        """What holds, what is refused, and what is odd about it, for `/schemas`."""
        notices = [f"{notice.subject}: {notice.message}" for notice in self._notices()]
        return {**self.registry.describe(), "notices": [*notices]}

    def _notices(self) -> Iterator[Notice]:
        for name in self.registry.names():
            schema = self.registry.current(name)
            if schema is not None:
                yield from schema_notices(schema, self._model_digest)
        yield from route_notices(self._config.topics, self.registry)

    def _note(self, change: RegistryChange) -> None:
        for schema in change.now_in_force:
            self._metrics.label_schema_in_force(schema.name, schema.version)
            log.info("label_schema.loaded", name=schema.name, version=schema.version, digest=schema.digest)
        for refusal in change.refused:
            self._metrics.label_schema_refusals.labels(name=refusal.name or UNKNOWN).inc()
            log.warning("label_schema.rejected", origin=refusal.origin, reason=refusal.reason)
        for name in change.gone:
            self._metrics.label_schema_in_force(name, None)
            log.warning("label_schema.unbound", name=name)


def behind(reference: str, labels: LabelRegistry) -> list[SchemaRefusal]:
    """The refusals that may be why there is no such label schema: of its name, then of files that say no name."""
    name = reference.partition("@")[0]
    found = [refusal for refusal in labels.refusals() if refusal.name in {None, name}]
    return sorted(found, key=lambda refusal: refusal.name is None)


def topic_follower(
    config: Config,
    instance: str,
    labels: LabelRegistry,
    assignment: Assignment,
    surroundings: tuple[TopicDirectory, Readiness, Heartbeats, Clock],
) -> LabelTopicFollower | None:
    """Who reads the label topic, where one is configured.

    Raises:
        ConfigError: a file that holds a secret cannot be read.
    """
    topic, status_topic = config.schemas.topic, config.schemas.answers_topic
    if topic is None or status_topic is None:
        return None
    directory, readiness, heartbeats, clock = surroundings
    answers = answer_settings(config.kafka, instance)
    topics = LabelTopics(
        reader=reader_settings(config.kafka, instance),
        answers=answers,
        topic=topic,
        status_topic=status_topic,
        worker=str(answers["client.id"]),
        create=config.schemas.create,
        used=frozenset(binding.label_schema.partition("@")[0] for binding in config.topics if binding.label_schema),
    )
    heartbeats.register(HEARTBEAT, SILENCE_SECONDS)
    return LabelTopicFollower(
        LabelTopicParts(
            topics=topics,
            registry=labels,
            assignment=assignment,
            directory=directory,
            readiness=readiness,
            clock=clock,
            beat=lambda: heartbeats.beat(HEARTBEAT),
        )
    )
