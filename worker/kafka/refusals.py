"""What a broker refuses for good: a record, which then becomes a dead letter, or a whole topic, which then waits."""

import threading
from collections.abc import Callable, Iterable, Mapping

import structlog
from confluent_kafka import KafkaError

from worker.clock import Clock
from worker.errors import ErrorCode

RETRY_SECONDS = 5.0
"""How soon a topic that was refused is tried again with what waits for it."""
LAPSE_SECONDS = 20.0
"""How long a topic counts as refused when nobody tries it again: what waited for it may have gone to another worker."""

log = structlog.get_logger(__name__)

RECORD_CODES: Mapping[int, ErrorCode] = {
    KafkaError.MSG_SIZE_TOO_LARGE: ErrorCode.OUTPUT_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE: ErrorCode.OUTPUT_TOO_LARGE,
    KafkaError.INVALID_MSG_SIZE: ErrorCode.OUTPUT_TOO_LARGE,
    KafkaError.INVALID_RECORD: ErrorCode.ENCODE_FAILED,
    KafkaError.INVALID_TIMESTAMP: ErrorCode.ENCODE_FAILED,
    KafkaError.POLICY_VIOLATION: ErrorCode.ENCODE_FAILED,
}
"""Refusals that sending again does not mend, and what the record becomes."""

TOPIC_CODES: Mapping[int, str] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Write and Describe on it",
}
"""Refusals of whatever goes to a topic, and what mends them."""


class RefusedTopics:
    """The topics that take nothing for now. Thread-safe: delivery refuses and tries again, the poll thread asks."""

    def __init__(self, clock: Clock, tell: Callable[[str, str | None], None]) -> None:
        """`tell(topic, reason)` is told of every refusal, and with None of its end."""
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}

    def refuse(self, topic: str, reason: str) -> None:
        """`topic` takes nothing; what goes there waits for `RETRY_SECONDS`."""
        with self._lock:
            if topic not in self._since:
                log.warning("topic.refused", topic=topic, reason=reason)
            self._since[topic] = self._clock.monotonic()
            self._tell(topic, reason)

    def accept(self, topics: Iterable[str]) -> None:
        """`topics` have just taken something."""
        if self._since:  # seldom: the topics of every record are only looked at then
            with self._lock:
                for topic in self._since.keys() & set(topics):
                    self._end(topic)

    def may_try(self, topic: str) -> bool:
        """Whether something may be sent to `topic` now."""
        since = self._since.get(topic)
        return since is None or self._clock.monotonic() - since >= RETRY_SECONDS

    def is_closed(self, topic: str) -> bool:
        """Whether nothing more is to be taken in that would go to `topic`."""
        if topic not in self._since:
            return False
        # One decision: a refusal that comes while another one lapses is not ended with it.
        with self._lock:
            since = self._since.get(topic)
            if since is not None and self._clock.monotonic() - since >= LAPSE_SECONDS:
                self._end(topic)
            return topic in self._since

    def _end(self, topic: str) -> None:
        """To be called with the lock: who listens hears of refusals and their ends in the order they came."""
        del self._since[topic]
        log.info("topic.accepted", topic=topic)
        self._tell(topic, None)
