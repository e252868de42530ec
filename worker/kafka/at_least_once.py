"""Step 11 without transactions: lower latency, and a crash may publish twice."""

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException, Producer

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
        self._producer: Producer | None = self._made()

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
            trouble = self._attempt(chunk)
            if isinstance(trouble, Reports):
                self._let_go()
                pending = self._triage.judge(chunk, trouble) + rest
            elif trouble is not None:
                self._let_go()
                self._waiter.failed(f"publishing failed ({trouble})")
                pending += left
            else:
                self._waiter.succeeded()
                self._triage.passed(chunk)
                self._offer(chunk)
                settled, pending = settled + chunk, rest

    def close(self) -> None:
        """Forget what was not acknowledged."""
        self._let_go()

    def _made(self) -> Producer:
        with checked_settings():
            return self._parts.make_producer({**self._parts.settings, "enable.idempotence": True})

    def _let_go(self) -> None:
        """A record that failed has broken the order of what follows it: only a fresh producer keeps it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _attempt(self, pending: Sequence[Finished]) -> Reports | str | None:
        """What was refused, or went wrong; no frame outlives it that knows the producer."""
        try:
            self._send(pending)
        except RefusedError as refused:
            return refused.reports
        except KafkaException as error:
            return str(error.args[0].name())
        return None

    def _send(self, pending: Sequence[Finished]) -> None:
        reports = Reports()
        producer = self._producer = self._producer or self._made()
        self._parts.send(producer, pending, reports)
        while producer.flush(CALL_SECONDS) > 0:
            self._waiter.failed("the broker does not acknowledge")
        if reports.blamed:
            raise RefusedError(reports)
        if reports.failure is not None:
            raise KafkaException(reports.failure)
