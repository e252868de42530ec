"""The demo: a broker, a producer, the worker, a subscriber, and a label set that changes while they run."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import islice
from typing import Protocol

from worker.app import Worker, open_worker
from worker.bundled.demo import DemoEvent, demo_events
from worker.clock import Clock, SystemClock
from worker.demo.stage import (
    CHANGED_FILE,
    CHANGED_SCHEMA,
    OUTPUTS,
    BrokerName,
    LabelFolder,
    demo_config,
    label_folder,
    open_broker,
)
from worker.demo.tally import Outcome, Scene, Summary, Tally, read_outcome
from worker.errors import FatalError
from worker.kafka.plain import CommittedReader, EventProducer
from worker.types import Record

SENT_BEFORE_CHANGE = 0.6
"""More than what is to be back before the label set changes: the worker is busy when it does."""
BACK_BEFORE_CHANGE = 0.5
PATIENCE_SECONDS = 60.0
"""How long nothing may come back before the demo gives up."""
_SENT_AT_ONCE = 200
_HTTP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What can be chosen."""

    messages: int = 300
    broker: BrokerName = "kafka"
    engine: str = "auto"


class Audience(Protocol):
    """Who watches; told everything on the thread that runs the demo."""

    def say(self, step: str) -> None:
        """What happens now."""
        ...

    def warn(self, line: str) -> None:
        """What is other than was asked for."""
        ...

    def show(self, scene: Scene) -> None:
        """How things stand; called several times a second."""
        ...

    def note(self, record: Record, outcome: Outcome) -> None:
        """One more came back."""
        ...


def run_demo(settings: DemoSettings, audience: Audience, clock: Clock | None = None) -> Summary:
    """The whole job once, from an empty broker to a summary. Blocks; an interrupt closes everything.

    Raises:
        WorkerError: it could not be run to its end.
    """
    clock = clock or SystemClock()
    marks = [clock.monotonic()]
    with open_broker(settings.broker, audience.say, audience.warn) as broker, label_folder() as folder:
        marks.append(clock.monotonic())
        audience.say(f"{broker.title} is ready; loading the model")
        config = demo_config(broker, folder.path, settings.engine)
        with open_worker(config) as worker, CommittedReader(broker.bootstrap_servers, OUTPUTS) as reader:
            marks.append(clock.monotonic())
            play = Play(worker, folder, EventProducer(broker.bootstrap_servers), reader, clock)
            with working(worker) as check:
                play.perform(settings.messages, audience, check)
                audience.say("stopping")
            play.read_rest(audience)
    tally = play.tally
    return Summary(
        input=play.sent,
        predictions=tally.predictions,
        dead_letters=tally.dead_letters,
        distinct=len(tally.sources),
        codes=dict(tally.codes.most_common()),
        versions={name: tuple(versions) for name, versions in tally.versions.items()},
        broker=broker.name,
        delivery=broker.delivery,
        engine=tally.engine,
        precision=tally.precision,
        seconds=play.seconds,
        start_seconds={"broker": marks[1] - marks[0], "model": marks[2] - marks[1], "group": play.started - marks[2]},
    )


@contextmanager
def working(worker: Worker) -> Iterator[Callable[[], None]]:
    """Have `worker` run on a thread of its own, and stop it on leaving; gives a check that it still runs.

    Raises:
        WorkerError: on leaving, or at the check: what ended the worker.
    """
    failures: list[BaseException] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            worker.run()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is raised where the demo waits
            failures.append(error)
        finally:
            is_over.set()

    def check() -> None:
        if is_over.is_set():
            raise failures[0] if failures else FatalError("the worker ended by itself")

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    try:
        yield check
        worker.stop()
    except BaseException:
        worker.lifecycle.abandon()  # nobody waits for what is in flight any more
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]


class Play:
    """What is done with everything that `run_demo` has opened."""

    def __init__(
        self, worker: Worker, folder: LabelFolder, producer: EventProducer, reader: CommittedReader, clock: Clock
    ) -> None:
        self.tally = Tally()
        self.sent = 0
        self._worker = worker
        self._folder = folder
        self._producer = producer
        self._reader = reader
        self._clock = clock
        self.started = clock.monotonic()
        """When the first event was sent."""
        self._ended = self.started

    @property
    def seconds(self) -> float:
        """From the first event sent to the last one back."""
        return self._ended - self.started

    def perform(self, messages: int, audience: Audience, check: Callable[[], None]) -> None:
        """Send `messages` events, change a label set when half of them are back, wait for the rest.

        Raises:
            WorkerError: the worker ended, does not get ready, or does not take the change up.
        """
        events = demo_events(messages)

        def until(done: Callable[[], bool]) -> bool:
            return self._follow(messages, audience, check, done)

        audience.say("the worker joins its consumer group")
        if not until(self._is_ready):
            raise FatalError(f"the worker did not get ready within {PATIENCE_SECONDS:.0f} s")
        self.started = self._ended = self._clock.monotonic()
        audience.say("events in, predictions out")
        self._send(islice(events, math.ceil(messages * SENT_BEFORE_CHANGE)), until)
        until(lambda: self.tally.results >= messages * BACK_BEFORE_CHANGE)
        self._change_labels(audience, until)
        self._send(events, until)
        until(lambda: self.tally.results >= messages)

    def read_rest(self, audience: Audience) -> None:
        """Read what else there may be, now that the worker has ended: nothing, if all is well."""
        self._count(self._reader.read_to_end(), audience)

    def _send(self, events: Iterator[DemoEvent], until: Callable[[Callable[[], bool]], bool]) -> None:
        while some := list(islice(events, _SENT_AT_ONCE)):
            for event in some:
                self._producer.send(event.topic, event.key, event.value)
            self._producer.flush()
            self.sent += len(some)
            until(lambda: True)

    def _change_labels(self, audience: Audience, until: Callable[[Callable[[], bool]], bool]) -> None:
        before = self._worker.labels.current(CHANGED_SCHEMA)
        version = 0 if before is None else before.version
        audience.say(f"putting {CHANGED_FILE} into the folder that the worker follows")
        self._folder.put(CHANGED_FILE)
        if not until(lambda: self._in_force()[CHANGED_SCHEMA] > version):
            raise FatalError(f"{CHANGED_FILE} was not taken up within {PATIENCE_SECONDS:.0f} s")
        audience.say(
            f"{CHANGED_SCHEMA} changed from version {version} to {self._in_force()[CHANGED_SCHEMA]} on the run"
        )

    def _follow(self, messages: int, audience: Audience, check: Callable[[], None], done: Callable[[], bool]) -> bool:
        """Count what comes back until `done`; false when nothing has come back for too long."""
        deadline = self._clock.monotonic() + PATIENCE_SECONDS
        while True:
            check()
            if self._count(self._reader.poll(), audience):
                self._ended = self._clock.monotonic()
                deadline = self._ended + PATIENCE_SECONDS
            audience.show(self._scene(messages))
            if done():
                return True
            if self._clock.monotonic() > deadline:
                return False

    def _count(self, records: Iterable[Record], audience: Audience) -> int:
        before = self.tally.results
        # By the events' own time: partitions come one after the other, people expect what happened last to come last.
        for record in sorted(records, key=lambda record: record.timestamp_ms or 0):
            outcome = read_outcome(record)
            self.tally.add(outcome)
            audience.note(record, outcome)
        return self.tally.results - before

    def _is_ready(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self._worker.http.port, timeout=_HTTP_SECONDS)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _in_force(self) -> dict[str, int]:
        labels = self._worker.labels
        found = ((name, labels.current(name)) for name in labels.names())
        return {name: schema.version for name, schema in found if schema is not None}

    def _scene(self, messages: int) -> Scene:
        tally = self.tally
        return Scene(
            expected=messages,
            sent=self.sent,
            predictions=tally.predictions,
            dead_letters=tally.dead_letters,
            per_second=tally.results / self.seconds if self.seconds else 0.0,
            recent=tuple(tally.recent),
            in_force=self._in_force(),
        )
