"""The composition root: a configuration becomes a worker that runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import structlog

from worker.backlog import Backlog
from worker.clock import Clock, SystemClock
from worker.config import Config
from worker.delivery import Cadence, Delivery, DeliveryParts, Encoder
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.base import Engine
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.flow import Bounds, Inbox, InFlight, OfferedPositions, PairQueue
from worker.intake import Intake, IntakeParts
from worker.kafka.at_least_once import AtLeastOncePublisher
from worker.kafka.clients import connection, consumer_settings, instance_name, producer_settings
from worker.kafka.consumer import RecordConsumer
from worker.kafka.ends import StableEnds
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.label_topic import LabelTopicFollower
from worker.kafka.offsets import Assignment
from worker.kafka.producer import TransactionalPublisher
from worker.kafka.publishing import Publisher, PublisherParts
from worker.kafka.refusals import RefusedTopics
from worker.kafka.registry_parts import registry_parts
from worker.kafka.topics import TopicDirectory
from worker.label_sets import LabelSets, directory_source, pair_tokenizer, topic_follower
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema
from worker.lifecycle import Lifecycle
from worker.messages.codec import decode
from worker.observability.health import Heartbeats, Probes, Readiness
from worker.observability.health_server import HealthServer
from worker.observability.liveness import LivenessWatch
from worker.observability.metrics import Metrics
from worker.outgoing import Outgoing
from worker.output_watch import OutputWatch, Wiring
from worker.pipeline.batching import Batcher
from worker.pipeline.evidence import ModelView
from worker.pipeline.pacing import Pace
from worker.pipeline.score_cache import ScoreCache
from worker.pipeline.stages import follow_up
from worker.pipeline.tokenization import PairTokenizer
from worker.processor import ProcessorParts, StreamProcessor
from worker.types import JsonValue, Record, Request, TopicPartition

LEAVE_SECONDS = 5.0
"""How long to wait for a thread that says goodbye to the broker."""
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
    topics: Callable[[], tuple[str, ...]]
    """What is to be read now."""
    http: HealthServer
    labels: LabelRegistry
    metrics: Metrics
    follower: LabelTopicFollower | None = None
    """Who reads the label topic, where there is one."""

    def run(self, *, until_end: bool = False) -> None:
        """Work until stopped; with `until_end` up to the end offsets seen now. Blocks.

        Raises:
            WorkerError: the worker must not go on.
        """
        # Not before: the records of the first partition are resolved under what the topic says.
        if self.follower is None or self.follower.wait_until_read(lambda: self.lifecycle.is_stopping):
            self.processor.run(self.topics, until_end=until_end)
        elif self.lifecycle.failure is not None:
            raise self.lifecycle.failure

    def stop(self) -> None:
        """Finish what is in flight and end. From any thread."""
        self.lifecycle.stop()


class Assembler:
    """Puts the parts together; each method makes one room's."""

    def __init__(self, config: Config, clock: Clock, lifecycle: Lifecycle | None = None) -> None:
        self.config = config
        self.clock = clock
        self.lifecycle = lifecycle or Lifecycle()
        self.metrics = Metrics()
        self.heartbeats = Heartbeats(clock)
        self.readiness = Readiness()
        self.bindings = config.bindings()
        self._most_bytes = config.max_record_bytes
        self.instance = instance_name(config.kafka)
        self.client = connection(config.kafka, self.instance)
        self.directory = TopicDirectory(self.client)
        self.assignment = Assignment()
        self.ends = StableEnds(self.client, self.assignment)
        self.refused = RefusedTopics(clock, lambda topic, reason: self._note(f"refused:{topic}", reason))
        self.labels = LabelSets(config, self.metrics, self.readiness)
        self.registry = registry_parts(config.registry, self.bindings, self.readiness, clock)

    def probes(self) -> Probes:
        """What the HTTP port answers from."""
        beats = self.heartbeats
        return Probes(beats.ages, self.readiness.reasons, self.metrics.render, self._describe_labels, beats.stages)

    def engine_choice(self) -> EngineChoice:
        """What the configuration says of model and engine."""
        config = self.config
        return EngineChoice(
            config.model,
            config.engine,
            config.precision,
            strict=config.strict,
            cache_dir=config.cache_dir,
            threads=config.threads,
        )

    def use_model(self, model: LoadedModel) -> PairTokenizer:
        """Warm `model` up, and judge label schemas by it from now on; its tokenizer, which has their hypotheses."""
        model.engine.warm_up()
        stamp = model.engine.info.stamp
        tokenizer = pair_tokenizer(model, self.config.batching.shortlist_audit_every)
        self.labels.use_model(model, tokenizer)
        self.metrics.engine_in_use(stamp)
        self.readiness.clear("engine")
        log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, why=model.why)
        return tokenizer

    def follower(self) -> LabelTopicFollower | None:
        """Who reads the label topic, where there is one."""
        surroundings = (self.directory, self.readiness, self.heartbeats, self.clock)
        return topic_follower(self.config, self.instance, self.labels.registry, self.assignment, surroundings)

    def scorer(self, engine: Engine, inbox: Inbox, pairs: PairQueue) -> RetryingScorer:
        """Who has the engine score, and waits for it where it fails."""
        cache = ScoreCache(self.config.batching.cache_bytes)
        return RetryingScorer(
            ScorerParts(
                engine,
                inbox.put,
                self.lifecycle.wait_for_stop,
                self.metrics,
                self.heartbeats,
                self.readiness,
                self.clock,
                self.config.engine_retry_seconds,
                None if cache.is_off else cache,
                pairs.note_scored,
            )
        )

    def in_flight(self, token_budget: int) -> InFlight:
        """The bound on what is admitted."""
        limits = self.config.limits
        return InFlight(Bounds(limits.in_flight_records, limits.in_flight_bytes, QUEUED_BATCHES * token_budget))

    def decode(self, record: Record) -> Request:
        """Step 2 under the binding of the record's topic."""
        binding, now_seconds = self.bindings[record.topic], self.clock.wall()
        if binding.late_by(record.timestamp_ms, now_seconds) is not None:
            self.metrics.records_late.labels(topic=record.topic).inc()
        read = None if self.registry is None else self.registry.read
        return decode(record, binding.input_fields, self.config.limits, now_seconds, read)

    def resolve(self, request: Request, topic: str) -> LabelSchema:
        """Step 3 under the binding of the topic."""
        return self.labels.registry.resolve(request, self.bindings[topic].label_schema, self.config.limits)

    def encoder(self, model: LoadedModel) -> Encoder:
        """Step 10 for every binding."""
        outgoing = Outgoing(self.bindings, model.engine.info.stamp, self.clock, self._max_bytes)
        if self.registry is not None:
            outgoing = replace(outgoing, framed=self.registry.framed)
        return Encoder(outgoing.predictions, outgoing.dead_letter)

    def publisher(self, group: GroupOffsets, offered: OfferedPositions, encoder: Encoder) -> Publisher:
        """Exactly-once or at-least-once, as configured."""
        is_exactly_once = self.config.delivery == "exactly_once"
        settings = producer_settings(self.config.kafka, self.instance, transactional=is_exactly_once)
        # A topic's limit holds for a whole batch of records, and the client knows nothing of it.
        outputs = {t for topics in self.bindings.outputs(self.directory.names).values() for t in topics}
        limits = [self._max_bytes(topic) for topic in outputs]
        settings["batch.size"] = min([int(settings.get("batch.size", BATCH_BYTES)), *limits])
        parts = PublisherParts(
            settings,
            group,
            self.assignment,
            self.directory,
            self.clock,
            lambda outcome: self.metrics.transactions.labels(outcome=outcome).inc(),
            encoder.dead_letter,
            self.refused,
        )
        trouble = partial(self._note, "publish")
        if is_exactly_once:
            return TransactionalPublisher(parts, self._wait, trouble)
        return AtLeastOncePublisher(parts, self._wait, trouble, offered.offer)

    def watch(self) -> OutputWatch:
        """Who keeps inputs closed whose outputs are missing."""
        bindings = self.bindings
        wiring = Wiring(bindings.outputs, self.config.kafka.create_topics, bindings.patterns, bindings.rivals)
        if self.registry is not None:
            wiring = replace(wiring, obstacle=self.registry.obstacle)
        beat = partial(self.heartbeats.beat, "topics")
        return OutputWatch(self.directory, wiring, self.readiness, beat, self.refused.is_closed)

    def has_labels(self, topic: str) -> bool:
        """Whether the schema that the topic's binding names is there."""
        return self.labels.has_own(topic, self.bindings[topic].label_schema)

    def _describe_labels(self) -> JsonValue:
        return self.labels.describe()

    def _max_bytes(self, topic: str) -> int:
        return min(self._most_bytes, self.directory.max_message_bytes(topic))

    def _wait(self, seconds: float) -> bool:
        self.heartbeats.beat("delivery")
        return self.lifecycle.wait_for_abandon(seconds)

    def _note(self, name: str, reason: str | None) -> None:
        if reason is None:
            self.readiness.clear(name)
        else:
            self.readiness.block(name, reason)


@contextmanager
def open_worker(config: Config, clock: Clock | None = None, lifecycle: Lifecycle | None = None) -> Iterator[Worker]:
    """A worker with everything loaded and checked, ready to run; closes what it opened.

    `lifecycle` is for who may want to stop it before it is there.
    The engine is loaded and warm before the group is joined, so that no partition waits for it.

    Raises:
        WorkerError: something it needs is wrong or missing; the message says what and how to mend it.
    """
    make = Assembler(config, clock or SystemClock(), lifecycle)
    make.readiness.block("engine", "the model is being loaded")
    make.readiness.block("assignment", "no partition has been assigned yet")
    with HealthServer(make.probes(), config.http.host, config.http.port, config.http.expected_token()) as http:
        source = directory_source(config)
        model = load_engine(make.engine_choice())
        threads: list[threading.Thread] = []
        try:
            tokenizer = make.use_model(model)
            labels = make.labels.registry
            if source is not None:
                source.load_or_raise(labels)
            watch = make.watch()
            watch.look()
            follower = make.follower()
            processor = _processor(make, model, tokenizer, _is_open(make, watch, follower))
            make.heartbeats.register("topics", TOPICS_LIVENESS_SECONDS)
            make.lifecycle.thread(lambda: watch.run(make.lifecycle.wait_for_stop), "topics").start()
            for name, work in (("liveness", LivenessWatch(make.heartbeats).run), ("ends", make.ends.run)):
                make.lifecycle.thread(partial(work, make.lifecycle.wait_for_stop), name).start()
            if source is not None:
                make.lifecycle.thread(partial(source.watch, labels, make.lifecycle.stop_event), "files").start()
            if follower is not None:
                threads.append(make.lifecycle.thread(partial(follower.run, make.lifecycle.stop_event), "labels"))
                threads[-1].start()
            yield Worker(processor, make.lifecycle, watch.inputs, http, labels, make.metrics, follower)
        finally:
            make.lifecycle.stop()
            for thread in threads:
                thread.join(LEAVE_SECONDS)
            model.engine.close()
            if make.registry is not None:
                make.registry.close()


def _is_open(
    make: Assembler, watch: OutputWatch, follower: LabelTopicFollower | None
) -> Callable[[TopicPartition], bool]:
    def is_open(partition: TopicPartition) -> bool:
        is_current = follower is None or not follower.is_behind(partition)
        return is_current and make.has_labels(partition.topic) and watch.is_open(partition.topic)

    return is_open


def _processor(
    make: Assembler, model: LoadedModel, tokenizer: PairTokenizer, is_open: Callable[[TopicPartition], bool]
) -> StreamProcessor:
    config, info = make.config, model.engine.info
    token_budget = config.batching.max_tokens or info.token_budget
    in_flight, inbox, offered, backlog = make.in_flight(token_budget), Inbox(), OfferedPositions(), Backlog(make.clock)
    target_seconds = config.batching.latency_target_ms / 1000
    pairs = PairQueue(Batcher(token_budget), in_flight.note_queued_tokens, Pace(token_budget, target_seconds))
    group = GroupOffsets(make.client, config.kafka.group_id)
    intake = Intake(
        IntakeParts(
            make.decode,
            make.resolve,
            tokenizer,
            config.limits.pairs,
            in_flight,
            inbox,
            pairs,
            make.metrics,
            backlog.note_cost,
        )
    )
    view, encoder = ModelView(info.head, info.stamp.digest), make.encoder(model)
    delivery = Delivery(
        DeliveryParts(
            inbox=inbox,
            pairs=pairs,
            in_flight=in_flight,
            publisher=make.publisher(group, offered, encoder),
            encoder=encoder,
            model=view,
            follow_up=follow_up(tokenizer, view),
            metrics=make.metrics,
            clock=make.clock,
            beat=lambda: make.heartbeats.beat("delivery"),
            busy=lambda: make.heartbeats.busy("publish"),
        ),
        Cadence(target_seconds / 2, TRANSACTION_RECORDS),
    )
    settings = consumer_settings(config.kafka, make.instance)
    consumer = RecordConsumer(settings, group, config.kafka.start, make.assignment)
    if make.registry is not None:
        consumer.sieve = make.registry.sieve
    parts = ProcessorParts(
        consumer=consumer,
        intake=intake,
        backlog=backlog,
        ends=make.ends.ends,
        scorer=make.scorer(model.engine, inbox, pairs),
        delivery=delivery,
        inbox=inbox,
        pairs=pairs,
        in_flight=in_flight,
        offered=offered,
        is_ours=lambda record: make.assignment.epoch(record.source) == record.epoch,
        is_open=is_open,
        metrics=make.metrics,
        heartbeats=make.heartbeats,
        readiness=make.readiness,
        clock=make.clock,
    )
    return StreamProcessor(parts, make.lifecycle, drain_seconds=config.drain_seconds)
