"""The delivery thread, steps 8 to 12: scores to predictions, predictions to the broker, in order."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import structlog

from worker.clock import Clock
from worker.errors import ErrorCode, MessageError, Stage
from worker.flow import (
    Admitted,
    BatchFailed,
    BatchScored,
    Event,
    Finish,
    Flush,
    Inbox,
    NotAdmitted,
    PairQueue,
    PartitionsGone,
    TakenIn,
)
from worker.in_flight import InFlight
from worker.kafka.publishing import Publisher, StoppedError
from worker.observability.metrics import Metrics
from worker.observability.tracing import UNTRACED, Tracing
from worker.pipeline.assembly import Assembly, Refused, Scored
from worker.pipeline.decision import audit
from worker.pipeline.decisions import decide_all
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.stages import FollowUp, NextStage
from worker.types import Finished, OutboundRecord, Prediction, Premise, Record, Refusal

IDLE_SECONDS = 0.5
"""How long the thread waits for an event before it shows that it is alive."""

log = structlog.get_logger(__name__)


class Encoder:
    """Step 10, for every binding: kept behind two functions so that delivery knows no wire format."""

    def __init__(
        self,
        prediction: Callable[[Prediction, Scored], tuple[OutboundRecord, ...]],
        dead_letter: Callable[[Record, Refusal], OutboundRecord],
    ) -> None:
        """`prediction` may raise MessageError; `dead_letter` never does."""
        self.prediction = prediction
        self.dead_letter = dead_letter


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a transaction is made: what came first."""

    interval_seconds: float
    """After the first finished record has waited this long."""
    records: int
    """When this many are finished."""


@dataclass(frozen=True, slots=True)
class DeliveryParts:
    """What the delivery thread works with."""

    inbox: Inbox
    pairs: PairQueue
    in_flight: InFlight
    publisher: Publisher
    encoder: Encoder
    model: ModelView
    follow_up: FollowUp
    metrics: Metrics
    clock: Clock
    beat: Callable[[], None]
    busy: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered around every publication."""
    tracing: Tracing = UNTRACED


class Delivery:
    """Turns what comes into its inbox into committed transactions. `run` is the thread."""

    def __init__(self, parts: DeliveryParts, cadence: Cadence) -> None:
        """Nothing starts before `run`."""
        self._parts = parts
        self._cadence = cadence
        self._assembly = Assembly(parts.model.head.classes, self._follow_up)
        self._finished: list[Finished] = []
        self._parked: list[Finished] = []
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._abstained: Counter[str] = Counter()
        self._delivered = 0
        self._oldest_seconds = 0.0
        self._handlers: Mapping[type, Callable[[Event], None]] = {
            Admitted: self._admit,
            NotAdmitted: self._refuse,
            TakenIn: self._take_in,
            BatchScored: self._gather,
            BatchFailed: self._fail,
            PartitionsGone: self._drop,
        }

    @property
    def delivered(self) -> int:
        """Records of which the outputs are committed."""
        return self._delivered

    def run(self) -> None:
        """Work until `Finish` has been taken from the inbox.

        Raises:
            FatalError: going on would lose or double records.
        """
        parts = self._parts
        try:
            parts.publisher.start()
            while True:
                parts.beat()
                event = parts.inbox.take(self._patience_seconds())
                while event is not None:
                    if isinstance(event, Finish | Flush):
                        break
                    self._handlers[type(event)](event)
                    event = parts.inbox.take(0) if self._waiting() < self._cadence.records else None
                self._release()
                if isinstance(event, Flush):
                    self._publish()
                    event.done.set()
                elif isinstance(event, Finish):
                    self._publish()
                    return
                elif self._is_due():
                    self._publish()
        except StoppedError:
            if records := len(self._finished) + len(self._assembly):
                log.warning("delivery.abandoned", records=records)
        finally:
            parts.publisher.close()

    def _patience_seconds(self) -> float:
        if not self._finished:
            return IDLE_SECONDS
        return max(0.0, self._oldest_seconds + self._cadence.interval_seconds - self._parts.clock.monotonic())

    def _is_due(self) -> bool:
        return bool(self._finished) and (self._waiting() >= self._cadence.records or self._patience_seconds() <= 0)

    def _waiting(self) -> int:
        """Finished records that were not yet given to the publisher."""
        return len(self._finished) - len(self._parked)

    def _admit(self, event: Event) -> None:
        assert isinstance(event, Admitted)  # noqa: S101  the handler table says so
        self._assembly.admit(event.number, event.record, event.plan, event.pairs)

    def _refuse(self, event: Event) -> None:
        assert isinstance(event, NotAdmitted)  # noqa: S101
        self._assembly.refuse(event.number, event.record, event.refusal)
        self._release()

    def _take_in(self, event: Event) -> None:
        assert isinstance(event, TakenIn)  # noqa: S101
        for place in event.places:
            if isinstance(place, Admitted):
                self._assembly.admit(place.number, place.record, place.plan, place.pairs)
            else:
                self._assembly.refuse(place.number, place.record, place.refusal)
        self._release()

    def _gather(self, event: Event) -> None:
        assert isinstance(event, BatchScored)  # noqa: S101
        if following := self._assembly.gather(event.batch, event.scores, is_cached=event.is_cached):
            self._parts.pairs.add_all(following)
        self._release()

    def _fail(self, event: Event) -> None:
        assert isinstance(event, BatchFailed)  # noqa: S101
        self._assembly.fail(event.batch, event.refusal)

    def _drop(self, event: Event) -> None:
        assert isinstance(event, PartitionsGone)  # noqa: S101
        dropped = self._assembly.drop(set(event.partitions))
        self._parts.pairs.drop(set(dropped))
        gone = [f for f in self._finished if f.record.source in event.partitions]
        self._finished = [f for f in self._finished if f.record.source not in event.partitions]
        self._park([f for f in self._parked if f.record.source not in event.partitions])
        settled = [*dropped.values(), *(f.record for f in gone)]
        self._parts.in_flight.settle(settled)
        self._parts.tracing.settled(settled)

    def _release(self) -> None:
        outcomes = self._assembly.release()
        if not outcomes:
            return
        if not self._finished:
            self._oldest_seconds = self._parts.clock.monotonic()
        predictions = iter(decide_all([each for each in outcomes if isinstance(each, Scored)], self._parts.model))
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                self._finished.append(self._dead_letter(outcome.record, outcome.refusal))
            else:
                self._finished.append(self._finish(outcome, next(predictions)))
        self._tell_refused()
        for topic, abstentions in self._abstained.items():  # none counts, too: a series that just came has no rate
            self._parts.metrics.abstentions.labels(topic=topic).inc(abstentions)
        self._abstained.clear()

    def _follow_up(self, stages: Sequence[ScoredStage], premise: Premise) -> NextStage | None:
        try:
            return self._parts.follow_up(stages, premise)
        except MessageError:
            raise
        except Exception as error:
            log.exception("message.staging_failed", error=type(error).__name__)
            reason = "what to score next could not be decided"
            raise MessageError(ErrorCode.ENCODE_FAILED, Stage.DECIDE, reason) from None

    def _finish(self, outcome: Scored, prediction: Prediction | Exception) -> Finished:
        try:
            if isinstance(prediction, Exception):
                raise prediction  # noqa: TRY301  told and refused below, as what encoding raises
            for is_found in audit(outcome.stages, self._parts.model):
                self._parts.metrics.shortlist_audits.labels(outcome="found" if is_found else "missed").inc()
            finished = Finished(outcome.record, self._parts.encoder.prediction(prediction, outcome))
        except MessageError as error:
            return self._dead_letter(outcome.record, Refusal.of(error))
        except Exception as error:
            # One record must not take its neighbours along; the type says where to look, the text stays out.
            log.exception("message.encoding_failed", error=type(error).__name__)
            return self._dead_letter(
                outcome.record, Refusal(ErrorCode.ENCODE_FAILED, Stage.ENCODE, "the prediction could not be encoded")
            )
        schema = outcome.plan.schema
        self._parts.metrics.label_drift.note(schema.name, schema.version, prediction.selected)
        self._abstained[outcome.record.topic] += not prediction.selected
        return finished

    def _dead_letter(self, record: Record, refusal: Refusal) -> Finished:
        self._refused[record.topic, refusal.code.value, refusal.stage.value] += 1
        return Finished(record, (self._parts.encoder.dead_letter(record, refusal),), refusal.code)

    def _tell_refused(self) -> None:
        """One line for each kind of refusal: a topic full of broken records fills no disk with the news of it."""
        for (topic, reason, stage), records in self._refused.items():
            log.warning("message.dead_lettered", topic=topic, reason=reason, stage=stage, records=records)
        self._refused.clear()

    def _publish(self) -> None:
        if not self._finished:
            return
        batch, self._finished = self._finished, []
        started = self._parts.clock.monotonic()
        with self._parts.busy():
            published = self._parts.publisher.publish(batch)
        self._oldest_seconds = self._parts.clock.monotonic()
        self._finished = list(published.left)
        self._park(published.left)
        self._delivered += len(published.committed)
        kept = {id(each.record) for each in published.left}
        settled = [each.record for each in batch if id(each.record) not in kept]
        self._parts.in_flight.settle(settled)
        self._parts.tracing.settled(settled, published.committed)
        if published.committed:
            self._note(published.committed, self._oldest_seconds - started)

    def _park(self, left: Sequence[Finished]) -> None:
        if left or self._parked:
            self._parked = list(left)
            self._parts.in_flight.note_parked([each.record for each in left])

    def _note(self, published: Sequence[Finished], seconds: float) -> None:
        metrics, now_seconds = self._parts.metrics, self._parts.clock.wall()
        metrics.transaction_duration_seconds.observe(seconds)
        metrics.transaction_records.observe(len(published))
        for topic, count in Counter([each.record.topic for each in published if each.code is None]).items():
            metrics.predictions_delivered.labels(topic=topic).inc(count)
        refused = Counter([(each.record.topic, each.code.value) for each in published if each.code is not None])
        for (topic, reason), count in refused.items():
            metrics.dead_letters.labels(topic=topic, reason=reason).inc(count)
        stamps = [each.record.timestamp_ms for each in published if each.record.timestamp_ms is not None]
        metrics.end_to_end_latency_seconds.observe_all([max(0.0, now_seconds - stamp / 1000) for stamp in stamps])
