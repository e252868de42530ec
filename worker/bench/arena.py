"""A broker, and loads that are sent through whoever stands between an input and an output topic."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import orjson

from worker.bench.figures import percentile
from worker.clock import Clock, SystemClock
from worker.errors import FatalError
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.plain import CommittedReader, EventProducer
from worker.types import Record

PARTITIONS: Final = 4
DEAD_LETTERS: Final = ".dlq"
PREDICTIONS: Final = ".predictions"
PATIENCE_SECONDS: Final = 180.0
"""How long nothing may come back before a run is given up."""
_POLL_SECONDS: Final = 0.005
"""What the subscriber may add to a latency."""

Check = Callable[[], None]
"""Raises where whoever is measured is not there any more."""


@dataclass(frozen=True, slots=True)
class Route:
    """Topics that belong together: events go into the inputs in turn, and come back from the outputs."""

    inputs: tuple[str, ...]
    partitions: int = PARTITIONS
    """Of each topic."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Where predictions come out."""
        return tuple(f"{topic}{PREDICTIONS}" for topic in self.inputs)

    @property
    def dead_letters(self) -> tuple[str, ...]:
        """Where nothing ought to come out."""
        return tuple(f"{topic}{DEAD_LETTERS}" for topic in self.inputs)

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.outputs, *self.dead_letters)


@dataclass(frozen=True, slots=True)
class Run:
    """What became of one load."""

    messages: int
    seconds: float
    """From the first event sent to the last one that a `read_committed` subscriber saw."""
    latencies_ms: tuple[float, ...]
    """From each event's timestamp to that moment, in the order of arrival."""
    labels: dict[int, str]
    """The label that each message was given, by its number."""
    label_versions: frozenset[int]
    """Under which versions of a label schema they were decided; a peer says none."""

    @property
    def messages_per_second(self) -> float:
        """Throughput."""
        return self.messages / self.seconds

    def latency_ms(self, share: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.latencies_ms, share)


class Arena:
    """A broker with topics, and the clock by which everything on it is measured."""

    def __init__(self, bootstrap_servers: str, create: Callable[[dict[str, int]], None], clock: Clock) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.clock = clock
        self._create = create
        self._producer = EventProducer(bootstrap_servers)
        self._readers: dict[Route, CommittedReader] = {}
        self._pause = threading.Event()

    def add(self, *routes: Route) -> None:
        """Create the topics of `routes`, and read their outputs from now on."""
        self._create({topic: route.partitions for route in routes for topic in route.topics})
        for route in routes:
            topics = (*route.outputs, *route.dead_letters)
            self._readers[route] = CommittedReader(self.bootstrap_servers, topics, self.clock)

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic that nobody reads here."""
        self._create({topic: partitions})

    def drop(self, route: Route) -> None:
        """Read the outputs of `route` no more."""
        self._readers.pop(route).close()

    def close(self) -> None:
        """Close what reads."""
        for reader in self._readers.values():
            reader.close()

    def saturate(self, route: Route, texts: Sequence[str], check: Check) -> Run:
        """Send everything at once, and wait until it is back. Blocks."""
        return self._drive(route, texts, lambda _seconds: len(texts), check)

    def pace(self, route: Route, texts: Sequence[str], rate: float, check: Check) -> Run:
        """Send `rate` messages a second, whatever comes back, and wait for the last one. Blocks."""
        return self._drive(route, texts, lambda seconds: 1 + int(seconds * rate), check)

    def wait(self, seconds: float) -> None:
        """Let others work."""
        self._pause.wait(seconds)

    def _drive(self, route: Route, texts: Sequence[str], due: Callable[[float], int], check: Check) -> Run:
        reader = self._readers[route]
        values = [orjson.dumps({"text": text}) for text in texts]
        back: list[tuple[float, Record]] = []
        sent = 0
        began = last_seen = self.clock.monotonic()
        while len(back) < len(values):
            wanted = min(len(values), due(self.clock.monotonic() - began))
            for number in range(sent, wanted):
                self._producer.send(route.inputs[number % len(route.inputs)], str(number).encode(), values[number])
            if sent < wanted == len(values):
                self._producer.flush()
            sent = wanted
            records = reader.poll(_POLL_SECONDS)
            if records:
                last_seen, seen_at = self.clock.monotonic(), self.clock.wall()
                back += [(1000 * seen_at, record) for record in records]
            elif self.clock.monotonic() - last_seen > PATIENCE_SECONDS:
                raise FatalError(f"only {len(back)} of {sent} messages came back")
            check()
        return run_of([record for _, record in back], [seen for seen, _ in back], last_seen - began)


def partitions_for(workers: Iterable[int]) -> int:
    """How many partitions each of these numbers of processes can share evenly; at least `PARTITIONS`."""
    step = math.lcm(*workers)
    return step * math.ceil(PARTITIONS / step)


def run_of(records: Sequence[Record], seen_ms: Sequence[float], seconds: float) -> Run:
    """What came back of a load, each record with the wall-clock time at which it was seen.

    Raises:
        FatalError: a message is there twice, or became a dead letter.
    """
    if any(record.topic.endswith(DEAD_LETTERS) for record in records):
        raise FatalError("messages of the bench became dead letters")
    latencies = [now - (record.timestamp_ms or 0) for now, record in zip(seen_ms, records, strict=True)]
    predictions = [orjson.loads(record.value or b"{}") for record in records]
    labels = {int(each.key or b"-1"): str(said.get("label")) for each, said in zip(records, predictions, strict=True)}
    if len(labels) != len(records):
        raise FatalError("a message of the bench came back twice")
    versions = frozenset(said["schema"]["version"] for said in predictions if "schema" in said)
    return Run(len(records), seconds, tuple(latencies), labels, versions)


@contextmanager
def open_arena(say: Callable[[str], None]) -> Iterator[Arena]:
    """An arena on an embedded Kafka of its own.

    Raises:
        BrokerUnavailableError: there is none to be had.
    """
    with EmbeddedKafka(progress=say) as kafka:
        arena = Arena(kafka.bootstrap_servers, kafka.create_topics, SystemClock())
        try:
            yield arena
        finally:
            arena.close()
