"""The composition root: a configuration becomes a worker that runs."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from worker import __version__
from worker.assembler import Assembler
from worker.backlog import Backlog
from worker.clock import Clock, SystemClock
from worker.config import Config
from worker.delivery import Cadence, Delivery, DeliveryParts
from worker.engines.load import LoadedModel, load_engine
from worker.flow import Inbox, PairQueue
from worker.intake import Intake, IntakeParts
from worker.kafka.clients import consumer_settings
from worker.kafka.consumer import RecordConsumer
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.label_topic import LabelTopicFollower
from worker.kafka.offsets import OfferedPositions
from worker.label_sets import directory_source
from worker.labels.registry import LabelRegistry
from worker.lifecycle import Lifecycle
from worker.observability.health_server import HealthServer
from worker.observability.liveness import LivenessWatch
from worker.observability.metrics import Metrics
from worker.observability.tracing import Tracing
from worker.output_watch import OutputWatch
from worker.pipeline.batching import Batcher
from worker.pipeline.evidence import ModelView
from worker.pipeline.pacing import Pace
from worker.pipeline.stages import follow_up
from worker.pipeline.tokenization import PairTokenizer
from worker.processor import ProcessorParts, StreamProcessor
from worker.types import TopicPartition

LEAVE_SECONDS = 5.0
"""How long to wait for a thread that says goodbye to the broker."""
TOPICS_LIVENESS_SECONDS = 120.0
"""How long the thread that looks after topics may be silent: it waits for a broker several times per round."""
TRANSACTION_RECORDS = 2_000
"""Finished records that make a transaction at once: a transaction costs 5 to 15 ms on one broker, however large."""


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
        if self.follower is not None:
            self.follower.wait_until_read(lambda: self.lifecycle.is_stopping)
        if not self.lifecycle.is_stopping:
            self.processor.run(self.topics, until_end=until_end)
        elif self.lifecycle.failure is not None:
            raise self.lifecycle.failure

    def stop(self) -> None:
        """Finish what is in flight and end. From any thread."""
        self.lifecycle.stop()


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
    make.readiness.block("assignment", "the group has not taken this worker in yet")
    probes, token = make.probes(), config.http.expected_token()
    with (
        _announced(make),
        HealthServer(probes, config.http.host, config.http.port, token) as http,
        closing(make.tracing()) as tracing,
    ):
        source = directory_source(config)
        model = load_engine(make.engine_choice())
        threads: list[threading.Thread] = []
        try:
            tokenizer = make.use_model(model)
            labels = make.labels.registry
            if source is not None:
                make.labels.load_files(source)
            watch = make.watch()
            make.heartbeats.register("topics", TOPICS_LIVENESS_SECONDS)
            make.lifecycle.thread(lambda: watch.run(make.lifecycle.wait_for_stop), "topics").start()
            watch.wait_until_looked(lambda: make.lifecycle.is_stopping)
            follower = make.follower()
            processor = _processor(make, model, tokenizer, _is_open(make, watch, follower), tracing)
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


@contextmanager
def _announced(make: Assembler) -> Iterator[None]:
    """The first and the last line of a worker's log; what it failed of is told by whoever catches it."""
    kafka = make.config.kafka
    log.info("worker.started", version=__version__, group=kafka.group_id, instance=make.instance, pid=os.getpid())
    outcome = "done"
    try:
        yield
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        log.info("worker.stopped", outcome=outcome)


def _is_open(
    make: Assembler, watch: OutputWatch, follower: LabelTopicFollower | None
) -> Callable[[TopicPartition], bool]:
    def is_open(partition: TopicPartition) -> bool:
        is_current = follower is None or not follower.is_behind(partition)
        return is_current and make.has_labels(partition.topic) and watch.is_open(partition.topic)

    return is_open


def _processor(
    make: Assembler,
    model: LoadedModel,
    tokenizer: PairTokenizer,
    is_open: Callable[[TopicPartition], bool],
    tracing: Tracing,
) -> StreamProcessor:
    config, info = make.config, model.engine.info
    token_budget = config.batching.max_tokens or info.token_budget
    in_flight, inbox, backlog = make.in_flight(token_budget), Inbox(), Backlog(make.clock)
    offered = OfferedPositions(make.assignment)
    target_seconds = config.batching.latency_target_ms / 1000
    pace, hasher = Pace(token_budget, target_seconds), None if make.cache.is_off else make.cache.hasher
    pairs = PairQueue(Batcher(token_budget), in_flight.note_queued_tokens, pace, hasher)
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
            tracing,
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
            tracing=tracing,
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
        tracing=tracing,
    )
    return StreamProcessor(parts, make.lifecycle, drain_seconds=config.drain_seconds)
