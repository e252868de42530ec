"""The loop: poll, admit, score, deliver. Only this module knows the order of the steps.

Three threads. The poll thread (the caller of `run`) takes records in; the engine thread scores batches; the delivery
thread publishes. What stands between them is in `flow`; when it is full the poll thread pauses its partitions and keeps
polling, so the group never loses a member to a slow engine. A thread that dies ends the process.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from worker.backlog import Backlog
from worker.clock import Clock
from worker.delivery import Delivery
from worker.engine_loop import EngineLoop
from worker.engine_retry import RetryingScorer
from worker.errors import FatalError, WorkerError
from worker.flow import Finish, Flush, Inbox, PairQueue, PartitionsGone
from worker.in_flight import InFlight
from worker.intake import Intake
from worker.kafka.consumer import RecordConsumer
from worker.kafka.offsets import OfferedPositions
from worker.lifecycle import Lifecycle
from worker.observability.drain import DrainEstimate
from worker.observability.health import Heartbeats, Readiness
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED, Tracing
from worker.types import Record, TopicPartition
from worker.watchdog import ProgressWatch

POLL_SECONDS = 0.05
"""How long one poll waits for records: also how late a rebalance or a signal may be noticed."""
POLL_RECORDS = 512
"""Records per poll: enough to pay for its price, few enough to be admitted in a fraction of a second."""
ADMIT_RECORDS = 256
"""Records taken in together, at most."""
ADMIT_BYTES = 262_144
"""Their bytes, about: a rebalance waits until they are tokenised, a tenth of a second or so."""
FIRST_ADMIT_RECORDS = 16  # before it is known how large they are
FEWEST_MORE_RECORDS = 64  # right after others, where as many wait: for fewer, more room is waited for
JOIN_SECONDS = 15.0
"""How long a thread may take to end once it was told: longer than every single wait of its own."""
FULL_SECONDS = 0.5
"""How long a full worker waits for room before it pauses its partitions: pausing throws away what was prefetched."""
POLL_EVERY_SECONDS = 2.0
"""However slowly the backlog goes down: the group takes who does not poll for dead, and a rebalance waits for it."""
FULL = "paused until half of what is in flight is done: records come faster than they are scored"
REVOKE_SECONDS = 10.0
"""The budget of a rebalance for committing what is finished; the rest is dropped and read again by the next owner."""
OBSERVE_SECONDS = 2.0
LOOK_SECONDS = 0.2
"""How often it is asked whether a topic starves: one call of the client per partition, without the broker."""
LIVENESS_SECONDS = {"poll": 60.0, "delivery": 60.0, "engine": 120.0}
"""How long each thread may go without a sign of life: well above every wait of its own, a broker's silence included."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessorParts:
    """What the loop is made of; `app` puts it together."""

    consumer: RecordConsumer
    intake: Intake
    backlog: Backlog
    ends: Callable[[], Mapping[TopicPartition, int]]
    """The last stable offsets, as the broker said of late."""
    scorer: RetryingScorer
    delivery: Delivery
    inbox: Inbox
    pairs: PairQueue
    in_flight: InFlight
    offered: OfferedPositions
    is_open: Callable[[TopicPartition], bool]
    """Whether records of a partition may be taken in: outputs and label schema are there, and known as they are now."""
    is_ours: Callable[[Record], bool]
    """Whether a record came under the assignment of its partition that holds now."""
    metrics: Metrics
    heartbeats: Heartbeats
    readiness: Readiness
    clock: Clock
    tracing: Tracing = UNTRACED


class StreamProcessor:
    """Runs until it is stopped, has reached the given end, or must not go on."""

    def __init__(self, parts: ProcessorParts, lifecycle: Lifecycle, *, drain_seconds: float) -> None:
        self._parts = parts
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._is_full = False
        self._admit_records = FIRST_ADMIT_RECORDS
        self._observed_at = self._looked_at = self._polled_at = 0.0
        self._progress, self._drain_estimate = ProgressWatch(), DrainEstimate()
        self._backlog = parts.backlog
        self._drain_until: float | None = None
        self._delivery_thread = lifecycle.thread(parts.delivery.run, "delivery")
        self._engine = EngineLoop(parts.pairs, parts.scorer, parts.heartbeats, parts.tracing, lifecycle)
        self._engine_thread = lifecycle.thread(self._engine.run, "engine")

    def run(self, topics: Callable[[], Sequence[str]], *, until_end: bool = False) -> None:
        """Consume what `topics` says, asked now and then; with `until_end` asked once, up to the end offsets seen now.

        Blocks until stopped, or until the end.

        Raises:
            WorkerError: the worker must not go on; nothing unfinished was committed.
        """
        parts = self._parts
        for name, limit_seconds in LIVENESS_SECONDS.items():
            parts.heartbeats.register(name, limit_seconds)
        for thread in (self._delivery_thread, self._engine_thread):
            thread.start()
        try:
            first = topics()
            ends = parts.consumer.end_offsets(first, self._lifecycle.wait_for_stop) if until_end else None
            parts.consumer.subscribe(first, self)
            while not self._lifecycle.is_stopping:
                self._step()
                if ends is None:
                    parts.consumer.follow(topics())
                if ends is not None and self._is_done(ends):
                    break
            self._drain()
        finally:
            self._shut_down()
        failure = self._lifecycle.failure
        if isinstance(failure, WorkerError):
            raise failure
        if failure is not None:
            raise FatalError(f"a thread ended with {type(failure).__name__}; nothing unfinished was committed")

    # The poll thread.

    def _is_done(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether all before `ends` was read and what came of it is published: the time to drain is for signals."""
        return not self._backlog and not self._parts.in_flight.records and self._parts.consumer.is_at(ends)

    def _step(self) -> None:
        parts, backlog = self._parts, self._backlog
        parts.heartbeats.beat("poll")
        self._look()
        was_full = self._is_full
        if self._is_full:
            self._is_full = not parts.in_flight.is_low()
        elif (backlog or parts.in_flight.room() == 0) and not backlog.favoured:
            is_overdue = parts.clock.monotonic() - self._polled_at >= POLL_EVERY_SECONDS
            self._is_full = is_overdue or not parts.in_flight.wait_for_room(FULL_SECONDS)
        if self._is_full != was_full:
            parts.readiness.remark("backpressure", FULL if self._is_full else None)
        parts.metrics.partitions_paused.set(parts.consumer.apply_holds())
        if self._is_full or not backlog or backlog.favoured:
            self._polled_at = parts.clock.monotonic()
            with parts.heartbeats.busy("poll"):
                backlog.add(parts.consumer.poll(POLL_RECORDS, POLL_SECONDS))
            parts.consumer.commit(parts.offered.take(), wait=False)
        self._admit_backlog()
        if parts.clock.monotonic() - self._observed_at >= OBSERVE_SECONDS:
            self._observe()

    def _look(self) -> None:
        """Have the backlog judge, now and then, whether a topic starves."""
        parts, now = self._parts, self._parts.clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            unread = parts.consumer.unread(parts.ends())
            is_held = parts.consumer.awaits_schema
            self._backlog.look({p: count for p, count in unread.items() if parts.is_open(p) and not is_held(p)})

    def _admit_backlog(self) -> None:
        """Take in what was polled, a little at a time: how much a record asks for is known only once it is in."""
        parts, fewest = self._parts, 1
        while self._backlog and (room := parts.in_flight.room()) >= fewest:
            taken = self._backlog.take(min(self._admit_records, room))
            taken_bytes = sum([len(record.value or b"") for record in taken])
            self._admit_records = min(ADMIT_RECORDS, 1 + ADMIT_BYTES * len(taken) // max(1, taken_bytes))
            with parts.metrics.stage_duration_seconds.labels(stage="intake").time(), parts.heartbeats.busy("intake"):
                self._backlog.put_back(parts.intake.admit([record for record in taken if parts.is_ours(record)]))
            fewest = min(FEWEST_MORE_RECORDS, len(self._backlog))

    def _observe(self) -> None:
        """Lag, fill and progress, now and then."""
        parts = self._parts
        self._observed_at = parts.clock.monotonic()
        parts.metrics.records_in_flight.set(parts.in_flight.records)
        parts.metrics.queue_pairs.set(parts.pairs.pairs)
        parts.metrics.queue_tokens.set(parts.pairs.tokens)
        unread = parts.consumer.lag(parts.ends())
        lags = {p: records + self._backlog.of(p) + parts.in_flight.of(p) for p, records in unread.items()}
        parts.metrics.partitions_assigned.set(len(lags))
        for partition, lag in lags.items():
            parts.metrics.lag_seen(*partition, lag)
        drain = self._drain_estimate.note(self._observed_at, parts.delivery.delivered, sum(lags.values()))
        parts.metrics.drain_seconds.set(drain)
        progress = parts.in_flight.settled + self._engine.batches
        # What waits for the schema registry has that as its reason: it neither starves nor stalls.
        has_work = any(lag > (unread[p] if parts.consumer.awaits_schema(p) else 0) for p, lag in lags.items())
        stalled = self._progress.stalled_seconds(progress, self._observed_at, has_work=has_work)
        if stalled is None:
            parts.readiness.clear("progress")
        else:
            parts.readiness.block("progress", f"nothing has moved for {stalled:.0f} s although there is lag")

    def _drain(self) -> None:
        self._lifecycle.stop()
        self._backlog.clear()  # not admitted, so not committed: the next owner reads it
        parts = self._parts
        log.info("worker.draining", records=parts.in_flight.records)
        while not parts.in_flight.is_idle and not self._lifecycle.is_abandoned and self._may_drain():
            # Rebalances are still served: a member that is going must not hold up the others.
            parts.heartbeats.beat("poll")
            parts.consumer.apply_holds()
            parts.consumer.poll(1, POLL_SECONDS)

    def _may_drain(self) -> bool:
        now = self._parts.clock.monotonic()
        if self._drain_until is None:
            self._drain_until = now + self._drain_seconds
        return now < self._drain_until

    def _shut_down(self) -> None:
        parts = self._parts
        if parts.in_flight.records:
            log.warning("worker.drain_unfinished", records=parts.in_flight.records)
        # What is in flight is given up, and where nothing is, delivery has nothing to wait for the broker for.
        self._lifecycle.abandon()
        parts.pairs.close()
        parts.inbox.put(Finish())
        for thread in (self._engine_thread, self._delivery_thread):
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                self._lifecycle.abandon(FatalError(f"the {thread.name} thread does not end; it is left behind"))
        parts.consumer.commit(parts.offered.all(), wait=True)
        parts.consumer.close()
        for name in LIVENESS_SECONDS:
            parts.heartbeats.release(name)

    # What the consumer asks and tells, on the poll thread.

    def is_held(self, partition: TopicPartition) -> bool:
        """Whether `partition` is to stay paused for now."""
        is_turned_away = self._backlog.is_held(partition.topic, is_full=self._is_full)
        return is_turned_away or self._lifecycle.is_stopping or not self._parts.is_open(partition)

    def waiting(self, attempt: int) -> None:
        """A rebalance waits for the broker."""
        self._parts.heartbeats.beat("poll")
        self._parts.readiness.block("assignment", "the group's committed offsets cannot be read yet")
        if self._lifecycle.wait_for_abandon(min(1.0, 0.1 * attempt)) or (
            self._lifecycle.is_stopping and not self._may_drain()
        ):
            raise FatalError("stopped while waiting for the broker's committed offsets")

    def complained(self, subject: str, reason: str | None) -> None:
        """What keeps records from coming, or no longer does."""
        if reason is None:
            self._parts.readiness.clear(f"consumer:{subject}")
        else:
            self._parts.readiness.block(f"consumer:{subject}", reason)

    def assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions came."""
        log.info("partition.assigned", partitions=_by_topic(partitions))

    def joined(self) -> None:
        """The group has taken us in; where it has no partition for us, there is nothing to wait for."""
        self._parts.readiness.clear("assignment")

    def revoking(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions are about to go: commit what is finished, within the budget."""
        log.info("partition.revoked", partitions=_by_topic(partitions))
        if not self._delivery_thread.is_alive():
            return
        done = threading.Event()
        self._parts.inbox.put(Flush(done))
        if not done.wait(REVOKE_SECONDS):
            log.warning("partition.revoked_uncommitted", budget_seconds=REVOKE_SECONDS)
        self._parts.consumer.commit(self._parts.offered.all(), wait=True)

    def gone(self, partitions: frozenset[TopicPartition]) -> None:
        """Partitions are no longer ours: drop what is in flight."""
        self._backlog.drop(partitions)
        for partition in partitions:
            self._parts.metrics.partition_released(*partition)
        self._parts.inbox.put(PartitionsGone(partitions))


def _by_topic(partitions: frozenset[TopicPartition]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for partition in sorted(partitions):
        topics.setdefault(partition.topic, []).append(partition.partition)
    return topics
