"""What the consumer's client reports: what it gets over by itself, what to wait for, and what ends the worker."""

from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import KafkaError

from worker.clock import Clock
from worker.errors import FatalError

LAPSE_SECONDS = 15.0
"""A complaint that was not repeated for this long is over: the client repeats them with every attempt."""

log = structlog.get_logger(__name__)

# librdkafka's words for UNRELEASED_INSTANCE_ID, FENCED_INSTANCE_ID and GROUP_AUTHORIZATION_FAILED (which is fatal under
# KIP-848 only): the code of a fatal error does not come along.
_UNRELEASED = "instance ID is still used"
_FENCED = "Static consumer fenced"
_FORBIDDEN = "Group authorization failed"
_NAMED_TWICE = "give every worker its own"
_FIXES: Mapping[int, str] = {
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant Read on the consumer group",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Read and Describe on it",
}


class StartOverError(Exception):
    """The client has given up for good, and a new one need not: the message says what to mend meanwhile."""


class Complaints:
    """Tells each complaint once, and takes it back when it is over. Belongs to the poll thread."""

    def __init__(self, instance: str, clock: Clock, tell: Callable[[str, str | None], None]) -> None:
        """`tell(subject, reason)` is told what keeps records from coming, and None when it no longer does."""
        self._instance = instance
        self._clock = clock
        self._tell = tell
        self._since: dict[str, float] = {}

    def note(self, error: KafkaError, topic: str | None) -> None:
        """`error` was reported.

        Raises:
            StartOverError: only another client can go on.
            FatalError: none can.
        """
        # A fatal error comes as a message whose own error is not marked as fatal.
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001  librdkafka's own codes are named so
            self._end(error.str())
        subject = topic if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and topic else "group"
        fix = _FIXES.get(error.code())
        is_news = subject not in self._since
        if fix is None or is_news:
            log.warning("consumer.error_reported", reason=error.name(), topic=topic)
        if fix is not None:
            self._since[subject] = self._clock.monotonic()
            about = f"{topic} may not be read" if subject == topic else "the group may not be used"
            self._tell(subject, f"{about} ({error.name()}): {fix}")

    def review(self) -> None:
        """Take back what has not been repeated for a while."""
        now = self._clock.monotonic()
        for subject in [subject for subject, since in self._since.items() if now - since >= LAPSE_SECONDS]:
            self.over(subject)

    def over(self, subject: str) -> None:
        """`subject` is no longer complained about."""
        if self._since.pop(subject, None) is not None:
            self._tell(subject, None)

    def _end(self, said: str) -> None:
        if _UNRELEASED in said:
            raise StartOverError(
                f"the group still has a member called kafka.instance_id {self._instance}: if it was this worker, its "
                f"session has yet to end; if it is another worker, {_NAMED_TWICE}"
            )
        if _FORBIDDEN in said:
            raise StartOverError(f"the group may not be used: {_FIXES[KafkaError.GROUP_AUTHORIZATION_FAILED]}")
        if _FENCED in said:
            raise FatalError(f"another worker has joined as kafka.instance_id {self._instance}: {_NAMED_TWICE}")
        raise FatalError(f"the Kafka consumer cannot go on ({said})")
