"""Step 11, what every way of publishing has in common: the seam, the sending, the waiting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer

from worker.clock import Clock
from worker.kafka.clients import ClientSettings
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import Assignment
from worker.kafka.refusals import RefusedTopics
from worker.kafka.topics import ORIGINAL_TIMESTAMP_HEADER, TopicDirectory, target_partition
from worker.kafka.triage import Blame, RefusedError, Reports, Triage, is_refusal
from worker.types import Finished, OutboundRecord, Record, Refusal

FULL_QUEUE_SECONDS = 20.0
"""How long the client's queue may be full: then the broker is away, and the thread has to show that it is alive."""
CALL_SECONDS = 2.0
"""How long one transactional call may block before it is repeated."""
BACK_OFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True)
class Published:
    """What became of finished records."""

    committed: Sequence[Finished]
    left: Sequence[Finished] = ()
    """Still ours and not committed, because a topic they go to is missing or refuses them: to be given again."""


class Publisher(Protocol):
    """Publishes finished records and commits their offsets. Used by one thread at a time."""

    def start(self) -> None:
        """Be ready to publish. Blocks until the broker knows this producer."""
        ...

    def publish(self, finished: Sequence[Finished]) -> Published:
        """Publish `finished` in order, with the offsets they stand for. Blocks.

        Raises:
            FatalError: going on would lose or double records.
            StoppedError: the worker is to stop while the broker does not answer; nothing more was committed.
        """
        ...

    def close(self) -> None:
        """Let go of the broker."""
        ...


class StoppedError(Exception):
    """The worker is to stop while the broker does not answer."""


class Waiter:
    """Back-off between attempts, ended early by `stop`; tells who listens what is being waited for."""

    def __init__(self, wait: Callable[[float], bool], trouble: Callable[[str | None], None]) -> None:
        self._wait = wait
        self._trouble = trouble
        self._attempts = 0

    def failed(self, reason: str) -> None:
        """Tell `reason`, then wait a little longer than last time.

        Raises:
            StoppedError: the wait was ended because the worker is to stop.
        """
        self._trouble(reason)
        seconds = BACK_OFF_SECONDS[min(self._attempts, len(BACK_OFF_SECONDS) - 1)]
        self._attempts += 1
        if self._wait(seconds):
            raise StoppedError

    def succeeded(self) -> None:
        """All is well again."""
        if self._attempts:
            self._trouble(None)
        self._attempts = 0


@dataclass(frozen=True, slots=True)
class PublisherParts:
    """What both publishers are made of."""

    settings: ClientSettings
    """librdkafka's producer settings, `transactional.id` among them where there is one."""
    group: GroupOffsets
    assignment: Assignment
    topics: TopicDirectory
    clock: Clock
    note_outcome: Callable[[str], None]
    """Told how each transaction ended: `committed`, `aborted` or `in_doubt`."""
    dead_letter: Callable[[Record, Refusal], OutboundRecord]
    refused: RefusedTopics
    make_producer: Callable[[ClientSettings], Producer] = Producer
    beat: Callable[[], None] = lambda: None
    """Called while there is no room in the client's queue: each wait for it is short, all of them may be long."""

    def triage(self) -> Triage:
        """Who finds out what is refused."""
        return Triage(self.dead_letter, self.refused, self.topics.unwritable)

    def split(self, finished: Sequence[Finished]) -> tuple[list[Finished], list[Finished]]:
        """Those that can be sent, and those of inputs of which an output topic takes nothing: one holds all up."""
        shut = {t for t in {o.topic for f in finished for o in f.outputs} if not self._may_send(t)}
        closed = {f.record.topic for f in finished for o in f.outputs if o.topic in shut} if shut else ()
        return [f for f in finished if f.record.topic not in closed], [f for f in finished if f.record.topic in closed]

    def send(self, producer: Producer, finished: Sequence[Finished], reports: Reports | None) -> None:
        """Hand all outputs to librdkafka, waiting where its queue is full; `reports` hear what is not delivered.

        Raises:
            RefusedError: the client itself refuses a record.
            KafkaException: it takes nothing.
        """
        for place, each in enumerate(finished):
            watcher = None if reports is None else reports.watcher(place)
            for output in each.outputs:
                try:
                    self._send(producer, output, watcher)
                except KafkaException as exception:
                    if not is_refusal(exception.args[0]):
                        raise
                    local = Reports()
                    local.note(place, Blame(output.topic, None, exception.args[0]))
                    local.exact.add((output.topic, None))
                    raise RefusedError(local) from exception

    def _may_send(self, topic: str) -> bool:
        return self.topics.facts(topic) is not None and self.refused.may_try(topic)

    def _send(self, producer: Producer, output: OutboundRecord, on_delivery: Any) -> None:  # noqa: ANN401
        arguments = self._arguments(output)
        if on_delivery is not None:
            arguments["on_delivery"] = on_delivery
        deadline = self.clock.monotonic() + FULL_QUEUE_SECONDS
        while True:
            try:
                producer.produce(output.topic, output.value, output.key, **arguments)
                break
            except BufferError as error:
                if self.clock.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from error  # noqa: SLF001  its own code
                self.beat()
                producer.poll(0.01)

    def _arguments(self, output: OutboundRecord) -> dict[str, Any]:
        facts = self.topics.facts(output.topic)
        if facts is None:  # it went between `split` and here
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        arguments: dict[str, Any] = {
            "partition": target_partition(output.source.partition, output.key, facts.partitions),
            "headers": list(output.headers),
        }
        timestamp_ms = output.timestamp_ms
        if timestamp_ms is None:
            return arguments
        if facts.takes_timestamp(timestamp_ms, int(self.clock.wall() * 1000)):
            arguments["timestamp"] = timestamp_ms
        else:  # the broker would refuse the whole transaction, again and again
            arguments["headers"].append((ORIGINAL_TIMESTAMP_HEADER, str(timestamp_ms).encode()))
        return arguments
