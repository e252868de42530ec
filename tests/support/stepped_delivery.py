"""The delivery thread's own loop, made to go step by step on the thread of a test."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast

from tests.support.scripted_kafka import ScriptedBroker
from worker.clock import Clock
from worker.delivery import Cadence, Delivery, DeliveryParts, Encoder
from worker.engines.fake import TWO_CLASS_HEAD
from worker.flow import Event, Inbox, PairQueue
from worker.in_flight import Bounds, InFlight
from worker.kafka.offsets import Assignment
from worker.kafka.publishing import Published, Publisher
from worker.observability.metrics import Metrics
from worker.pipeline.batching import Batcher
from worker.pipeline.evidence import ModelView
from worker.types import Finished, OutboundRecord, Record

PLENTY = 10**9
WHEN_TOLD = Cadence(interval_seconds=PLENTY, records=PLENTY)
"""Nothing is published but by `Flush`."""


class IdleError(Exception):
    """The loop has done what it was allowed, and would wait now."""


class SteppedInbox:
    """Gives out as many events as it is allowed to."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._allowed = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        self._events.append(event)

    def put_first(self, event: Event) -> None:
        """Have `event` heard before what waits: as if the rest had come after it."""
        self._events.appendleft(event)

    def allow(self, count: int) -> None:
        self._allowed = min(count, len(self._events))

    def take(self, timeout_seconds: float) -> Event | None:
        if self._allowed:
            self._allowed -= 1
            return self._events.popleft()
        if timeout_seconds > 0:
            raise IdleError
        return None


class Watched:
    """A publisher whose every answer is held against the broker; it outlives the steps of the loop."""

    def __init__(self, publisher: Publisher, broker: ScriptedBroker, assignment: Assignment) -> None:
        self._publisher = publisher
        self._broker = broker
        self._assignment = assignment

    def start(self) -> None: ...

    def close(self) -> None: ...

    def publish(self, finished: Sequence[Finished]) -> Published:
        published = self._publisher.publish(finished)
        kept = {id(each.record) for each in (*published.committed, *published.left)}
        assert all(id(each.record) in kept for each in self._assignment.snapshot().owned(finished))
        assert {each.record.value for each in published.committed} <= {value for _, _, value in self._broker.outputs}
        return published


class MakeOutput(Protocol):
    """What is published for a record: its prediction, or its dead letter."""

    def __call__(self, record: Record, *, is_refused: bool) -> OutboundRecord: ...


@dataclass(frozen=True, slots=True)
class SteppedDelivery:
    """A delivery whose loop runs until it would wait."""

    delivery: Delivery
    in_flight: InFlight

    def step(self) -> None:
        """Hear what the inbox is allowed to give out."""
        with suppress(IdleError):
            self.delivery.run()


def stepped_delivery(inbox: SteppedInbox, publisher: Publisher, clock: Clock, output: MakeOutput) -> SteppedDelivery:
    """The real delivery between `inbox` and `publisher`."""
    in_flight = InFlight(Bounds(PLENTY, PLENTY, PLENTY))
    parts = DeliveryParts(
        inbox=cast("Inbox", inbox),
        pairs=PairQueue(Batcher(PLENTY), in_flight.note_queued_tokens),
        in_flight=in_flight,
        publisher=publisher,
        encoder=Encoder(
            lambda _prediction, scored: (output(scored.record, is_refused=False),),
            lambda record, _refusal: output(record, is_refused=True),
        ),
        model=ModelView(TWO_CLASS_HEAD, "sha256:0"),
        follow_up=lambda _stages, _premise: None,
        metrics=Metrics(),
        clock=clock,
        beat=lambda: None,
    )
    return SteppedDelivery(Delivery(parts, WHEN_TOLD), in_flight)
