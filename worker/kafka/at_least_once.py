"""Step 11 without transactions: lower latency, and a crash may publish twice."""

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException

from worker.kafka.clients import checked_settings
from worker.kafka.publishing import CALL_SECONDS, Published, PublisherParts, Waiter
from worker.kafka.triage import RefusedError, Reports
from worker.types import Finished


class AtLeastOncePublisher:
    """At least once: positions are offered for commit after every output was acknowledged. A crash between doubles."""

    def __init__(
        self,
        parts: PublisherParts,
        wait: Callable[[float], bool],
        trouble: Callable[[str | None], None],
        offer: Callable[[Sequence[Finished]], None],
    ) -> None:
        """`offer(finished)` has the poll thread commit them if they are ours still. Else `TransactionalPublisher`."""
        self._parts = parts
        self._waiter = Waiter(wait, trouble)
        self._offer = offer
        self._triage = parts.triage()
        with checked_settings():
            self._producer = parts.make_producer({**parts.settings, "enable.idempotence": True})

    def start(self) -> None:
        """Nothing to wait for."""

    def publish(self, finished: Sequence[Finished]) -> Published:
        """Send, wait for the acknowledgements, offer the positions. See `Publisher`."""
        pending, settled = list(finished), list[Finished]()
        while True:
            pending, left = self._parts.split(self._parts.assignment.snapshot().owned(pending))
            if not pending:
                self._waiter.succeeded()
                return Published(settled, left)
            chunk = self._triage.chunk(pending)
            rest = [*pending[len(chunk) :], *left]
            try:
                self._send(chunk)
            except RefusedError as refused:
                self._replace()
                pending = self._triage.judge(chunk, refused.reports) + rest
            except KafkaException as error:
                self._replace()
                self._waiter.failed(f"publishing failed ({error.args[0].name()})")
                pending += left
            else:
                self._waiter.succeeded()
                self._triage.passed(chunk)
                self._offer(chunk)
                settled, pending = settled + chunk, rest

    def close(self) -> None:
        """Forget what was not acknowledged."""
        self._producer.purge()

    def _replace(self) -> None:
        # A record that failed has broken the order of what follows it: only a fresh producer keeps it.
        self._producer.purge()
        self._producer = self._parts.make_producer({**self._parts.settings, "enable.idempotence": True})

    def _send(self, pending: Sequence[Finished]) -> None:
        reports = Reports()
        self._parts.send(self._producer, pending, reports)
        while self._producer.flush(CALL_SECONDS) > 0:
            self._waiter.failed("the broker does not acknowledge")
        if reports.blamed:
            raise RefusedError(reports)
        if reports.failure is not None:
            raise KafkaException(reports.failure)
