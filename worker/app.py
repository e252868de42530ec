"""The composition root: a configuration becomes a worker that runs."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType

import structlog

from worker.clock import Clock, SystemClock
from worker.config import Config
from worker.delivery import Cadence, Delivery, DeliveryParts, Encoder
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.errors import ConfigError
from worker.flow import Bounds, Inbox, InFlight, OfferedPositions, PairQueue
from worker.intake import Intake, IntakeParts
from worker.kafka.at_least_once import AtLeastOncePublisher
from worker.kafka.clients import connection, consumer_settings, instance_name, producer_settings
from worker.kafka.consumer import RecordConsumer
from worker.kafka.offsets import Assignment, GroupOffsets
from worker.kafka.producer import Publisher, PublisherParts, TransactionalPublisher
from worker.kafka.topics import TopicDirectory
from worker.labels.registry import LabelRegistry, RegistryChange
from worker.labels.schema import LabelSchema
from worker.labels.sources import DirectorySource
from worker.lifecycle import Lifecycle
from worker.messages.codec import decode, encode, utc_timestamp
from worker.messages.dead_letter import dead_letter
from worker.messages.outbound import Stamps
from worker.observability.health import Heartbeats, Probes, Readiness
from worker.observability.health_server import HealthServer
from worker.observability.metrics import Metrics
from worker.output_watch import OutputWatch, Wiring
from worker.pipeline.assembly import Scored
from worker.pipeline.batching import Batcher
from worker.pipeline.decision import ModelView
from worker.pipeline.tokenization import PairTokenizer
from worker.processor import ProcessorParts, StreamProcessor
from worker.types import JsonValue, OutboundRecord, Prediction, Record, Refusal, Request

QUEUED_BATCHES = 16
"""Batches that may wait for the engine: about a second's work, so that a rebalance or a stop throws little away."""
TOPICS_LIVENESS_SECONDS = 120.0
"""How long the thread that looks after topics may be silent: it waits for a broker several times per round."""
TRANSACTION_RECORDS = 2_000
"""Finished records that make a transaction at once: a transaction costs 5 to 15 ms on one broker, however large."""

BATCH_BYTES = 1_000_000
"""librdkafka's own default of `batch.size`."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that can be run once."""

    processor: StreamProcessor
    lifecycle: Lifecycle
    topics: tuple[str, ...]
    http: HealthServer
    labels: LabelRegistry

    def run(self, *, until_end: bool = False) -> None:
        """Work until stopped; with `until_end` up to the end offsets seen now. Blocks.

        Raises:
            WorkerError: the worker must not go on.
        """
        self.processor.run(list(self.topics), until_end=until_end)

    def stop(self) -> None:
        """Finish what is in flight and end. From any thread."""
        self.lifecycle.stop()


class Assembler:
    """Puts the parts together; each method makes one room's."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.metrics = Metrics()
        self.heartbeats = Heartbeats(clock)
        self.readiness = Readiness()
        self.bindings = {binding.input: binding for binding in config.topics}
        self.instance = instance_name(config.kafka)
        self.client = connection(config.kafka, self.instance)
        self.directory = TopicDirectory(self.client)
        self.assignment = Assignment()
        self.lifecycle = Lifecycle()
        self.labels = LabelRegistry(config.limits)

    def probes(self) -> Probes:
        """What the HTTP port answers from."""
        return Probes(self.heartbeats.ages, self.readiness.reasons, self.metrics.render, self._describe_labels)

    def engine_choice(self) -> EngineChoice:
        """What the configuration says of model and engine."""
        config = self.config
        return EngineChoice(
            config.model, config.engine, config.precision, strict=config.strict, cache_dir=config.cache_dir
        )

    def use_model(self, model: LoadedModel) -> None:
        """Warm `model` up, and judge label schemas by it from now on."""
        model.engine.warm_up()
        stamp = model.engine.info.stamp
        self.labels = LabelRegistry(self.config.limits, stamp.digest)
        self.labels.subscribe(self._note_labels)
        self.metrics.engine_in_use(stamp)
        self.readiness.clear("engine")
        log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, why=model.why)

    def source(self) -> DirectorySource | None:
        """Where label schemas come from.

        Raises:
            ConfigError: a binding needs them and there is no source.
        """
        directory = self.config.schemas.directory
        if directory is not None:
            return DirectorySource(directory)
        for binding in self.config.topics:
            if binding.label_schema is not None:
                raise ConfigError(f"topics: {binding.input} has a label_schema; set schemas.directory")
        return None

    def in_flight(self, token_budget: int) -> InFlight:
        """The bound on what is admitted."""
        limits = self.config.limits
        return InFlight(Bounds(limits.in_flight_records, limits.in_flight_bytes, QUEUED_BATCHES * token_budget))

    def decode(self, record: Record) -> Request:
        """Step 2 under the binding of the record's topic."""
        return decode(record, self.bindings[record.topic].input_fields, self.config.limits)

    def resolve(self, request: Request, topic: str) -> LabelSchema:
        """Step 3 under the binding of the topic."""
        return self.labels.resolve(request, self.bindings[topic].label_schema, self.config.limits)

    def encoder(self, model: LoadedModel) -> Encoder:
        """Step 10 for every binding."""

        def of_prediction(prediction: Prediction, scored: Scored) -> OutboundRecord:
            schema, binding = scored.plan.schema, self.bindings[scored.record.topic]
            stamps = Stamps(
                schema.name,
                schema.version,
                schema.digest,
                model.engine.info.stamp,
                utc_timestamp(int(self.clock.wall() * 1000)) or "",
            )
            shape = binding.output_shape(self._max_bytes(binding.output_topic))
            return encode(prediction, scored.plan.request, scored.record, stamps, shape)

        def of_refusal(record: Record, refusal: Refusal) -> OutboundRecord:
            topic = self.bindings[record.topic].dead_letter_topic
            return dead_letter(record, refusal, topic, max_bytes=self._max_bytes(topic))

        return Encoder(of_prediction, of_refusal)

    def publisher(self, group: GroupOffsets, offered: OfferedPositions) -> Publisher:
        """Exactly-once or at-least-once, as configured."""
        is_exactly_once = self.config.delivery == "exactly_once"
        settings = producer_settings(self.config.kafka, self.instance, transactional=is_exactly_once)
        # A topic's limit holds for a whole batch of records, and the client knows nothing of it.
        outputs = {t for binding in self.config.topics for t in (binding.output_topic, binding.dead_letter_topic)}
        settings["batch.size"] = min(int(settings.get("batch.size", BATCH_BYTES)), *map(self._max_bytes, outputs))
        parts = PublisherParts(
            settings,
            group,
            self.assignment,
            self.directory,
            self.clock,
            lambda outcome: self.metrics.transactions.labels(outcome=outcome).inc(),
        )
        if is_exactly_once:
            return TransactionalPublisher(parts, self._wait, self._note_trouble)
        return AtLeastOncePublisher(parts, self._wait, self._note_trouble, offered.offer)

    def watch(self) -> OutputWatch:
        """Who keeps inputs closed whose outputs are missing."""
        outputs = {
            binding.input: frozenset({binding.output_topic, binding.dead_letter_topic})
            for binding in self.config.topics
        }
        wiring = Wiring(outputs, self.config.kafka.create_topics)
        return OutputWatch(self.directory, wiring, self.readiness, lambda: self.heartbeats.beat("topics"))

    def has_labels(self, topic: str) -> bool:
        """Whether the schema that the topic's binding names is there."""
        name = self.bindings[topic].label_schema
        if name is None or self.labels.find(name) is not None:
            self.readiness.clear(f"schema:{topic}")
            return True
        self.readiness.block(f"schema:{topic}", f"{topic}: its label schema {name} is not there")
        return False

    def _describe_labels(self) -> JsonValue:
        return self.labels.describe()

    def _note_labels(self, change: RegistryChange) -> None:
        for schema in change.now_in_force:
            self.metrics.label_schema_in_force(schema.name, schema.version)
            log.info("label_schema.loaded", name=schema.name, version=schema.version, digest=schema.digest)
        for refusal in change.refused:
            self.metrics.label_schema_refusals.labels(name=refusal.name or "unknown").inc()
            log.warning("label_schema.rejected", origin=refusal.origin, reason=refusal.reason)

    def _max_bytes(self, topic: str) -> int:
        return min(self.config.max_record_bytes, self.directory.max_message_bytes(topic))

    def _wait(self, seconds: float) -> bool:
        self.heartbeats.beat("delivery")
        return self.lifecycle.wait_for_abandon(seconds)

    def _note_trouble(self, reason: str | None) -> None:
        if reason is None:
            self.readiness.clear("publish")
        else:
            self.readiness.block("publish", reason)


@contextmanager
def open_worker(config: Config, clock: Clock | None = None) -> Iterator[Worker]:
    """A worker with everything loaded and checked, ready to run; closes what it opened.

    The engine is loaded and warm before the group is joined, so that no partition waits for it.

    Raises:
        WorkerError: something it needs is wrong or missing; the message says what and how to mend it.
    """
    make = Assembler(config, clock or SystemClock())
    make.readiness.block("engine", "the model is being loaded")
    make.readiness.block("assignment", "no partition has been assigned yet")
    with HealthServer(make.probes(), config.http.host, config.http.port) as http:
        source = make.source()
        model = load_engine(make.engine_choice())
        try:
            make.use_model(model)
            if source is not None:
                source.load_or_raise(make.labels)
            watch = make.watch()
            watch.look()
            processor = _processor(make, model, watch)
            make.heartbeats.register("topics", TOPICS_LIVENESS_SECONDS)
            make.lifecycle.thread(lambda: watch.run(make.lifecycle.wait_for_stop), "topics").start()
            if source is not None:
                follow = partial(source.watch, make.labels, make.lifecycle.stop_event)
                make.lifecycle.thread(follow, "labels").start()
            yield Worker(processor, make.lifecycle, tuple(make.bindings), http, make.labels)
        finally:
            make.lifecycle.stop()
            model.engine.close()


def _processor(make: Assembler, model: LoadedModel, watch: OutputWatch) -> StreamProcessor:
    config, info = make.config, model.engine.info
    token_budget = config.batching.max_tokens or info.token_budget
    in_flight, inbox, offered = make.in_flight(token_budget), Inbox(), OfferedPositions()
    pairs = PairQueue(Batcher(token_budget), in_flight.note_queued_tokens)
    group = GroupOffsets(make.client, config.kafka.group_id)
    tokenizer = PairTokenizer(model.tokenizer_file, info.max_pair_tokens)
    intake = Intake(
        IntakeParts(make.decode, make.resolve, tokenizer, config.limits.pairs, in_flight, inbox, pairs, make.metrics)
    )
    delivery = Delivery(
        DeliveryParts(
            inbox=inbox,
            pairs=pairs,
            in_flight=in_flight,
            publisher=make.publisher(group, offered),
            encoder=make.encoder(model),
            model=ModelView(info.head, info.stamp.digest),
            metrics=make.metrics,
            clock=make.clock,
            beat=lambda: make.heartbeats.beat("delivery"),
        ),
        Cadence(config.batching.latency_target_ms / 2000, TRANSACTION_RECORDS),
    )
    settings = consumer_settings(config.kafka, make.instance)
    parts = ProcessorParts(
        consumer=RecordConsumer(settings, group, config.kafka.start, make.assignment),
        intake=intake,
        engine=model.engine,
        delivery=delivery,
        inbox=inbox,
        pairs=pairs,
        in_flight=in_flight,
        offered=offered,
        is_ours=lambda record: make.assignment.epoch(record.source) == record.epoch,
        is_open=lambda topic: make.has_labels(topic) and watch.is_open(topic),
        metrics=make.metrics,
        heartbeats=make.heartbeats,
        readiness=make.readiness,
        clock=make.clock,
    )
    return StreamProcessor(parts, make.lifecycle, drain_seconds=config.drain_seconds)


def stop_on_signals(stop: Callable[[], None], leave: Callable[[], None]) -> None:
    """The first SIGTERM or SIGINT drains, the second leaves at once. Handlers only set flags."""
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        seen.append(number)
        if len(seen) == 1:
            stop()
        else:
            leave()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
