"""Each room's part of a worker, made from the configuration; `app` puts them together."""

from dataclasses import replace
from functools import partial

from worker import __version__
from worker.clock import Clock
from worker.config import Config
from worker.delivery import Encoder
from worker.engine_retry import RetryingScorer, ScorerParts
from worker.engines.base import Engine
from worker.engines.load import EngineChoice, LoadedModel
from worker.engines.trt_order import PlanForm
from worker.flow import Inbox, PairQueue
from worker.in_flight import Bounds, InFlight
from worker.kafka.at_least_once import AtLeastOncePublisher
from worker.kafka.clients import connection, instance_name, producer_settings
from worker.kafka.ends import StableEnds
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.label_topic import LabelTopicFollower
from worker.kafka.offsets import Assignment, OfferedPositions
from worker.kafka.producer import TransactionalPublisher
from worker.kafka.publishing import Publisher, PublisherParts
from worker.kafka.refusals import RefusedTopics
from worker.kafka.registry_parts import registry_parts
from worker.kafka.topics import TopicDirectory
from worker.label_sets import LabelSets, pair_tokenizer, topic_follower
from worker.labels.schema import LabelSchema
from worker.lifecycle import Lifecycle
from worker.messages.codec import decode
from worker.observability.health import Heartbeats, Probes, Readiness, unready
from worker.observability.metrics import Metrics
from worker.observability.tracing import Reader, Tracing, open_tracing
from worker.outgoing import Outgoing
from worker.output_watch import OutputWatch, Wiring
from worker.pipeline.score_cache import ScoreCache
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, Record, Request

QUEUED_BATCHES = 16
"""Batches that may wait for the engine: about a second's work, so that a rebalance or a stop throws little away."""

BATCH_BYTES = 1_000_000
"""librdkafka's own default of `batch.size`."""


def engine_choice(config: Config) -> EngineChoice:
    """What the configuration says of model and engine."""
    plan = config.tensorrt
    return EngineChoice(
        config.model,
        config.engine,
        config.precision,
        strict=config.strict,
        cache_dir=config.cache_dir,
        threads=config.threads,
        plan=PlanForm(plan.layout, plan.max_tokens, plan.buckets, plan.level),
        torch_layout=config.pytorch.layout,
        torch_compiled=config.pytorch.compiled,
    )


class Assembler:
    """Puts the parts together; each method makes one room's."""

    def __init__(self, config: Config, clock: Clock, lifecycle: Lifecycle | None = None) -> None:
        self.config = config
        self.clock = clock
        self.lifecycle = lifecycle or Lifecycle()
        self.metrics = Metrics()
        self.metrics.identify(__version__, config.kafka.group_id)
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
        self.cache = ScoreCache(config.batching.cache_bytes)
        self.labels = LabelSets(config, self.metrics, self.readiness)
        self.registry = registry_parts(config.registry, self.bindings, self.readiness, clock)

    def probes(self) -> Probes:
        """What the HTTP port answers from."""
        beats, told, render = self.heartbeats, self.readiness, self.metrics.render
        probes = Probes(beats.ages, told.reasons, render, self._describe_labels, beats.stages, told.remarks)
        self.metrics.ask_readiness(lambda: not unready(probes))
        return probes

    def tracing(self) -> Tracing:
        """Who hears of records and batches, to be closed. Raises ConfigError where its extra is missing."""
        return open_tracing(self.config.tracing, Reader(self.config.kafka.group_id, self.instance))

    def engine_choice(self) -> EngineChoice:
        """What the configuration says of model and engine."""
        return engine_choice(self.config)

    def use_model(self, model: LoadedModel) -> PairTokenizer:
        """Warm `model` up, and judge label schemas by it from now on; its tokenizer, which has their hypotheses."""
        model.engine.warm_up()
        stamp = model.engine.info.stamp
        tokenizer = pair_tokenizer(model, self.config.batching.shortlist_audit_every)
        self.labels.use_model(model, tokenizer)
        self.metrics.engine_in_use(stamp)
        self.readiness.clear("engine")
        return tokenizer

    def follower(self) -> LabelTopicFollower | None:
        """Who reads the label topic, where there is one."""
        surroundings = (self.directory, self.readiness, self.heartbeats, self.clock)
        return topic_follower(self.config, self.instance, self.labels.registry, self.assignment, surroundings)

    def scorer(self, engine: Engine, inbox: Inbox, pairs: PairQueue) -> RetryingScorer:
        """Who has the engine score, and waits for it where it fails."""
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
                None if self.cache.is_off else self.cache,
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
            beat=partial(self.heartbeats.beat, "delivery"),
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
