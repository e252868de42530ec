"""Keeps inputs closed while a topic they write to is missing, and says so."""

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from worker.errors import RetryableError
from worker.kafka.topics import TopicDirectory
from worker.observability.health import Readiness

CLOSED_SECONDS = 2.0
"""How soon to look again while something is missing."""
OPEN_SECONDS = 10.0
"""How soon to look again while all is well: partitions may be added, a topic may be deleted."""
STOP_SECONDS = 0.1
"""How soon a stop is noticed during the first look: it may come before the worker can be told in another way."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wiring:
    """Which topics are written for which input."""

    outputs: Callable[[Collection[str]], Mapping[str, frozenset[str]]]
    """Input topic -> the topics its records may go to; of the topics that are there, where inputs are patterns."""
    create: bool
    """Whether missing ones are created with the input's partition count."""
    patterns: tuple[str, ...] = ()
    """Inputs that are patterns: what they match is looked up each time."""
    rivals: Callable[[str], tuple[str, ...]] = lambda _topic: ()
    """All patterns that match a topic, where several do."""
    obstacle: Callable[[str], str | None] = lambda _topic: None
    """What else keeps the outputs of an input from being written; may block."""


class OutputWatch:
    """Asks the broker now and then; `is_open` answers at once. `run` is a thread."""

    def __init__(
        self,
        directory: TopicDirectory,
        wiring: Wiring,
        readiness: Readiness,
        beat: Callable[[], None],
        is_closed: Callable[[str], bool] = lambda _topic: False,
    ) -> None:
        """All inputs are closed until the first answer; `is_closed(topic)` says whether an output takes nothing."""
        self._directory = directory
        self._wiring = wiring
        self._readiness = readiness
        self._beat = beat
        self._is_closed = is_closed
        self._open: frozenset[str] = frozenset()
        self._missing: dict[str, list[str]] = {}
        self._outputs = dict(wiring.outputs(()))
        self._gone: frozenset[str] = frozenset()
        self._has_looked = threading.Event()
        for topic in (*self._outputs, *wiring.patterns):
            readiness.block(f"topic:{topic}", f"{topic}: its topics have not been looked up yet")

    def inputs(self) -> tuple[str, ...]:
        """The topics to read, as of the last look: all that are configured by name, and what the patterns match."""
        return tuple(self._outputs)

    def is_open(self, topic: str) -> bool:
        """Whether every topic that records of `topic` may go to exists and takes them."""
        return topic in self._open and not any(self._is_closed(output) for output in self._outputs.get(topic, ()))

    def run(self, wait_for_stop: Callable[[float], bool]) -> None:
        """Look until `wait_for_stop(seconds)` says so."""
        while True:
            self._beat()
            complete = self.look()
            self._has_looked.set()
            if wait_for_stop(OPEN_SECONDS if complete else CLOSED_SECONDS):
                return

    def wait_until_looked(self, is_over: Callable[[], bool]) -> None:
        """Block until the first look is done, whatever came of it, or `is_over`."""
        while not self._has_looked.wait(STOP_SECONDS) and not is_over():
            pass

    def look(self) -> bool:
        """Ask the broker once; true when every input is open. Blocks."""
        try:
            if self._wiring.patterns:
                self._directory.refresh(())
                self._match(self._directory.names)
            wanted = {topic for outputs in self._outputs.values() for topic in outputs} | set(self._outputs)
            self._directory.refresh(wanted)
        except RetryableError as error:
            self._readiness.block("broker", str(error))
            log.warning("broker.unreachable", reason=str(error))
            return False
        if self._wiring.create:
            self._create_missing(wanted)
        self._readiness.clear("broker")
        self._open = frozenset(topic for topic in self._outputs if self._judge(topic))
        return len(self._open) == len(self._outputs)

    def _match(self, existing: frozenset[str]) -> None:
        """Renew the inputs. One that is gone stays for one more look: a broker that just started knows few topics."""
        found = dict(self._wiring.outputs(existing))
        going = self._outputs.keys() - found.keys()
        found |= {topic: self._outputs[topic] for topic in going - self._gone}
        for topic in sorted(found.keys() - self._outputs.keys()):
            log.info("topic.matched", topic=topic)
            if rivals := self._wiring.rivals(topic):
                log.warning("topic.matched_twice", topic=topic, patterns=rivals)
        for topic in sorted(going & self._gone):
            log.info("topic.unmatched", topic=topic)
            self._missing.pop(topic, None)
            self._readiness.clear(f"topic:{topic}")
            self._readiness.clear(f"schema:{topic}")
        self._gone = frozenset(going - self._gone)
        self._outputs = found
        for pattern in self._wiring.patterns:
            if found:
                self._readiness.clear(f"topic:{pattern}")
            else:
                self._readiness.block(f"topic:{pattern}", f"{pattern}: no topic matches yet")

    def _create_missing(self, wanted: set[str]) -> None:
        missing: dict[str, int] = {}
        for topic, outputs in self._outputs.items():
            facts = self._directory.facts(topic)
            for output in outputs:
                if facts is not None and self._directory.facts(output) is None:
                    missing[output] = max(facts.partitions, missing.get(output, 0))
        for name, partitions in missing.items():
            self._beat()  # each may wait for the broker as long as a whole round
            try:
                self._directory.create({name: partitions})
            except RetryableError as error:  # one that cannot be made holds up its own inputs only
                log.warning("topic.not_created", topic=name, reason=str(error))
        if missing:
            with contextlib.suppress(RetryableError):
                self._directory.refresh(wanted)

    def _judge(self, topic: str) -> bool:
        needed = sorted({topic, *self._outputs[topic]})
        missing = [name for name in needed if self._directory.facts(name) is None]
        if missing:
            fix = "create it or grant Describe on it, or set kafka.create_topics"
            reason = f"{topic}: waiting for {', '.join(missing)}: {fix}"
            self._readiness.block(f"topic:{topic}", reason)
            if self._missing.get(topic) != missing:
                log.warning("topic.missing", topic=topic, missing=missing)
            self._missing[topic] = missing
            return False
        self._missing.pop(topic, None)
        self._beat()  # a registry may be silent for some seconds, for each of many topics
        obstacle = self._wiring.obstacle(topic)
        if obstacle is not None:
            self._readiness.block(f"topic:{topic}", f"{topic}: {obstacle}")
            return False
        self._readiness.clear(f"topic:{topic}")
        return True
