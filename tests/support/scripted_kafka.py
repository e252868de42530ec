"""A broker and its producers that do what a test says, call by call: for what no real broker does when asked."""

import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.strategies import record as record_at
from worker.clock import Clock, ManualClock
from worker.kafka.clients import ClientSettings
from worker.kafka.group_offsets import GroupOffsets
from worker.kafka.offsets import Assignment
from worker.kafka.publishing import PublisherParts
from worker.kafka.refusals import RefusedTopics
from worker.kafka.topics import TopicDirectory, TopicFacts
from worker.messages.dead_letter import dead_letter
from worker.types import Finished, OutboundRecord, Record, TopicPartition

MEMBERSHIP = b"CGMDv2:\x01\0\0\0group\0member\0\0"
SETTINGS: ClientSettings = {"transactional.id": "group.pod-0", "transaction.timeout.ms": 10_000}


def kafka_error(code: int, verdict: str = "") -> KafkaError:
    """An error with librdkafka's verdict: `fatal`, `retriable`, `abort`, or none."""
    make = cast("Any", KafkaError)  # the stubs know only its first two arguments
    return cast("KafkaError", make(code, "as scripted", verdict == "fatal", verdict == "retriable", verdict == "abort"))


FENCED = kafka_error(KafkaError._FENCED, "fatal")
TIMED_OUT = kafka_error(KafkaError._TIMED_OUT, "retriable")
STALE = kafka_error(KafkaError.ILLEGAL_GENERATION, "abort")
BROKEN = kafka_error(KafkaError._FATAL, "fatal")


@dataclass(frozen=True, slots=True)
class Step:
    """What one call does: something first, then it raises `error` unless there is none."""

    error: KafkaError | None = None
    is_done: bool = False
    """The broker did what was asked although the client hears an error."""
    before: Callable[[], None] = lambda: None


@dataclass(slots=True)
class ScriptedBroker:
    """What is committed, and what the next calls will do."""

    script: dict[str, deque[Step]] = field(default_factory=lambda: defaultdict(deque))
    calls: list[str] = field(default_factory=list)
    outputs: list[tuple[str, int, bytes | None]] = field(default_factory=list)
    """Committed records: topic, partition, value."""
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    producers: list["ScriptedProducer"] = field(default_factory=list)
    open_outputs: list[tuple[str, int, bytes | None]] = field(default_factory=list)
    open_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    refuses: Callable[[str, bytes | None], KafkaError | None] = lambda _topic, _value: None
    """Why an output is refused for good, if it is."""

    def plan(self, call: str, *steps: Step) -> None:
        """Have the next calls of `call` do `steps`; what is not planned succeeds."""
        self.script[call].extend(steps)

    def make_producer(self, settings: ClientSettings) -> Producer:
        """A producer of this broker."""
        self.producers.append(ScriptedProducer(self, settings))
        return cast("Producer", self.producers[-1])

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's offsets, as `GroupOffsets` gives them."""
        self.run("committed", lambda: None)
        return {partition: self.offsets[partition] for partition in partitions if partition in self.offsets}

    def run(self, call: str, effect: Callable[[], None]) -> None:
        """Do `effect` as the script says."""
        self.calls.append(call)
        step = self.script[call].popleft() if self.script[call] else Step()
        step.before()
        if step.error is None or step.is_done:
            effect()
        if step.error is not None:
            raise KafkaException(step.error)

    def drop_open(self) -> None:
        """Abort what is open."""
        self.open_outputs.clear()
        self.open_offsets.clear()

    def commit_open(self) -> None:
        """Commit what is open."""
        self.outputs += self.open_outputs
        self.offsets |= self.open_offsets
        self.drop_open()


class OneAtATime:
    """Makes producers of `broker`, and sees to it that each is gone before the next one is there."""

    def __init__(self, broker: "ScriptedBroker") -> None:
        self.broker = broker
        self.made: list[weakref.ref[Producer]] = []

    def __call__(self, settings: ClientSettings) -> Producer:
        assert not any(former() for former in self.made), "a replaced producer is still there"
        producer = self.broker.make_producer(settings)
        self.broker.producers.clear()
        self.made.append(weakref.ref(producer))
        return producer


class ScriptedProducer:
    """The calls of confluent-kafka's Producer that publishers make."""

    def __init__(self, broker: ScriptedBroker, settings: ClientSettings) -> None:
        self.settings = settings
        self.arguments: list[Mapping[str, object]] = []
        self._broker = broker
        self._is_transactional = False
        self._deliveries: list[Callable[[KafkaError | None], None]] = []
        self._failed: KafkaError | None = None
        self._refused: list[KafkaError] = []

    def init_transactions(self, _timeout: float) -> None:
        self._broker.run("init", self._broker.drop_open)

    def begin_transaction(self) -> None:
        self._is_transactional = True
        self._broker.run("begin", lambda: None)

    def produce(self, topic: str, value: bytes | None, key: bytes | None, **arguments: Any) -> None:  # noqa: ANN401
        self.arguments.append({"topic": topic, "key": key, **arguments})
        entry = (topic, int(arguments["partition"]), value)
        self._broker.run("produce", lambda: self._broker.open_outputs.append(entry))
        error = self._broker.refuses(topic, value)
        if error is not None:
            self._refused.append(error)
        if (on_delivery := arguments.get("on_delivery")) is not None:
            message = cast("Message", Delivered(topic, int(arguments["partition"])))
            self._deliveries.append(lambda failure: on_delivery(failure or error, message))

    def send_offsets_to_transaction(self, offsets: Sequence[KafkaPartition], _member: bytes, _timeout: float) -> None:
        positions = {TopicPartition(o.topic, o.partition): o.offset for o in offsets}
        self._broker.run("send_offsets", lambda: self._broker.open_offsets.update(positions))

    def commit_transaction(self, _timeout: float) -> None:
        if self._refused:
            self._broker.calls.append("commit")
            raise KafkaException(kafka_error(self._refused[0].code(), "abort"))
        self._broker.run("commit", self._broker.commit_open)

    def abort_transaction(self, _timeout: float) -> None:
        self._refused.clear()
        self._deliveries.clear()
        self._broker.run("abort", self._broker.drop_open)

    def flush(self, _timeout: float) -> int:
        if self._is_transactional:
            self._broker.calls.append("flush")
            self._tell(None)
            return 0
        try:
            self._broker.run("flush", self._drop_or_commit)
        except KafkaException as exception:
            error = exception.args[0]
            if error.retriable():
                return len(self._deliveries)
            self._broker.drop_open()
            self._tell(error)
            return 0
        self._tell(None)
        return 0

    def _drop_or_commit(self) -> None:
        kept = [each for each in self._broker.open_outputs if self._broker.refuses(each[0], each[2]) is None]
        self._broker.open_outputs[:] = kept
        self._broker.commit_open()

    def poll(self, _timeout: float) -> int:
        self._broker.calls.append("poll")
        return 0

    def purge(self) -> None:
        self._broker.calls.append("purge")

    def _tell(self, error: KafkaError | None) -> None:
        for on_delivery in self._deliveries:
            on_delivery(error)
        self._deliveries.clear()


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a delivery report says of where a record went."""

    to_topic: str
    to_partition: int

    def topic(self) -> str:
        return self.to_topic

    def partition(self) -> int:
        return self.to_partition


class KnownTopics:
    """A directory of topics that exist, each with `partitions`."""

    def __init__(self, names: Iterable[str], partitions: int = 4) -> None:
        self.names = set(names)
        self.partitions = partitions
        self.unwritables: set[str] = set()

    def facts(self, topic: str) -> TopicFacts | None:
        """As `TopicDirectory` answers."""
        return TopicFacts(self.partitions, 1_000_000) if topic in self.names else None

    def unwritable(self, topics: Iterable[str]) -> set[str]:
        """As `TopicDirectory` answers: those that `unwritables` has."""
        return set(topics) & self.unwritables


class Waits:
    """A `wait(seconds)` that moves a manual clock, and does what it is told at its n-th call."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.count = 0
        self.at: dict[int, Callable[[], None]] = {}
        self.is_stopping = False

    def __call__(self, seconds: float) -> bool:
        self.count += 1
        assert self.count < 1000, "waits for ever"
        self.clock.advance(seconds)
        self.at.get(self.count, lambda: None)()
        return self.is_stopping


def publisher_parts(
    broker: ScriptedBroker, assignment: Assignment, topics: KnownTopics, clock: Clock
) -> PublisherParts:
    """Parts whose producers and group offsets are those of `broker`."""
    group, directory = cast("GroupOffsets", broker), cast("TopicDirectory", topics)
    refused = RefusedTopics(clock, lambda _topic, _reason: None)
    return PublisherParts(
        SETTINGS,
        group,
        assignment,
        directory,
        clock,
        lambda _outcome: None,
        lambda record, refusal: dead_letter(record, refusal, "dlq"),
        refused,
        broker.make_producer,
    )


def finished(source: Record, topic: str = "out") -> Finished:
    """One output for `source`, which says where it came from."""
    value = f"{source.topic}/{source.partition}/{source.offset}".encode()
    return Finished(source, (OutboundRecord(topic, None, value, (), None, source.source),))


def finished_lane(partition: int, offsets: Iterable[int], epoch: int = 1) -> list[Finished]:
    """One finished record for each offset of one partition."""
    return [finished(record_at(partition=partition, offset=offset, epoch=epoch)) for offset in offsets]
