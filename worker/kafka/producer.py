"""Step 11: outputs, dead letters and offsets leave together.

`publish` is the whole of it: it returns when what it was given is committed, or is no longer ours to commit. The
finished records are kept by the caller's call frame, so an aborted transaction is simply sent again.

What a KafkaException of a transactional call asks for (librdkafka's own rules, checked against a real broker):
fatal -> replace the producer; requires abort -> abort and send again; retriable -> the same call again, and past a
deadline replace the producer, never abort (a commit that timed out may have held).
"""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import FatalError
from worker.kafka.bounded_calls import BoundedCalls, CallOverdueError
from worker.kafka.clients import checked_settings
from worker.kafka.offsets import Ownership, commit_positions
from worker.kafka.publishing import CALL_SECONDS, Published, PublisherParts, Waiter
from worker.kafka.triage import RefusedError, Reports, is_refusal
from worker.kafka.verdicts import HOPELESS, AbortAndRedo, Lost, Replace, fix_of, outcome_of
from worker.types import Finished

FENCE_WINDOW_SECONDS = 60.0
"""Fenced twice within this: somebody else uses the same transactional id."""
INIT_SECONDS = 1.0
"""How long to wait for the transaction coordinator at once: a stop is noticed in between."""
MOST_RECORDS = 1_000_000
"""No bound: as many as were given."""
WATCH_SECONDS = 0.05
"""How often to look whether a record was refused, while the others are acknowledged."""

log = structlog.get_logger(__name__)


class TransactionalPublisher:
    """Exactly once: one transaction per `publish`, from begin to commit."""

    def __init__(
        self,
        parts: PublisherParts,
        wait: Callable[[float], bool],
        trouble: Callable[[str | None], None],
        calls: BoundedCalls | None = None,
    ) -> None:
        """`wait(seconds)` blocks and says whether to stop; `trouble(reason)` is told what holds publishing up."""
        self._parts = parts
        self._calls = calls or BoundedCalls()
        self._clock = parts.clock
        self._waiter = Waiter(wait, trouble)
        self._triage = parts.triage()
        self._deadline_seconds = int(str(parts.settings["transaction.timeout.ms"])) / 1000
        self._fenced_at: deque[float] = deque(maxlen=2)
        self._producer: Producer | None = None
        self._was_started = False
        self._began_at: float | None = None
        self._is_deciding = False
        self._most_records = MOST_RECORDS

    def start(self) -> None:
        """Register the transactional id; ends or aborts what a former process left open."""
        producer: Producer | None = None
        while self._producer is None:
            if producer is None:
                with checked_settings():
                    producer = self._parts.make_producer(self._parts.settings)
            try:
                producer.init_transactions(INIT_SECONDS)  # the next call waits on for the same answer
            except KafkaException as exception:
                error = exception.args[0]
                if not self._was_started:
                    self._refuse_hopeless(error)
                if not error.retriable():
                    producer = None  # this one has given up for good
                name = error.name()
                self._waiter.failed(f"the transaction coordinator does not answer ({name}){fix_of(name)}")
            else:
                self._producer = producer
        self._was_started = True
        self._waiter.succeeded()

    def publish(self, finished: Sequence[Finished]) -> Published:
        """Publish in one transaction, again and again until it is committed. See `Publisher`."""
        pending = list(finished)
        settled: list[Finished] = []
        while True:
            # Epochs and membership of one moment: whoever loses a partition after it has a stale generation.
            ownership = self._parts.assignment.snapshot()
            pending, left = self._parts.split(ownership.owned(pending))
            if not pending:
                self._waiter.succeeded()
                return Published(settled, left)
            if ownership.membership is None:
                self._waiter.failed("this worker is no member of its group at the moment")
                pending += left
                continue
            chunk = self._triage.chunk(pending)[: self._most_records]
            trouble = self._attempt(chunk, ownership)
            self._parts.note_outcome(outcome_of(trouble))
            if trouble is None:
                self._waiter.succeeded()
                self._triage.passed(chunk)
                settled, pending = settled + chunk, [*pending[len(chunk) :], *left]
                continue
            if not self._undo(trouble):
                committed, pending = self._settle(pending)
                settled += committed
            elif isinstance(trouble, Lost):
                self._waiter.failed(f"the transaction was aborted ({trouble.reason}){fix_of(trouble.reason)}")
            if isinstance(trouble, Reports) and pending[: len(chunk)] == chunk:  # its blames are places in the chunk
                pending = self._triage.judge(chunk, trouble) + pending[len(chunk) :]
            pending += left

    def close(self) -> None:
        """Drop the producer. A transaction that is surely not committed is aborted; one in doubt is left alone."""
        producer, self._producer = self._producer, None
        self._calls.close()
        if producer is None:
            return
        if self._began_at is not None and not self._is_deciding:
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(CALL_SECONDS)
        producer.purge()

    def _attempt(self, finished: Sequence[Finished], ownership: Ownership) -> Reports | Lost | None:
        """One transaction: what was refused of it, or why it is lost; None when it was committed.

        No frame outlives it that knows the producer: one that is replaced has to be gone before the next is made, but
        for one with a call that does not come back.
        """
        started = self._clock.monotonic()
        try:
            self._transact(finished, ownership)
        except RefusedError as refused:
            return refused.reports
        except (AbortAndRedo, Replace) as verdict:
            if self._clock.monotonic() - started > self._deadline_seconds / 2:
                # What did not get through in the time that the broker grants would not next time: less at once.
                self._most_records = max(1, len(finished) // 2)
            return Lost(str(verdict), is_in_doubt=isinstance(verdict, Replace))
        self._most_records = min(MOST_RECORDS, self._most_records + self._most_records // 8 + 1)
        return None

    def _transact(self, finished: Sequence[Finished], ownership: Ownership) -> None:
        producer = self._require_producer()
        offsets = [KafkaPartition(*p, offset) for p, offset in commit_positions(finished).items()]
        self._is_deciding = False
        self._call(producer.begin_transaction)
        self._began_at = self._clock.monotonic()
        reports = Reports() if self._triage.is_watching else None
        try:
            self._parts.send(producer, finished, reports)
        except KafkaException as exception:  # never repeated in place: part of it is already sent
            raise AbortAndRedo(exception.args[0].name()) from exception
        if reports is not None:
            self._await(producer, reports)
        # Not worth the offsets, where it is known already.
        self._require_owned(finished)
        self._call(partial(self._send_offsets, producer, offsets, ownership.membership))
        # Until the broker has the offsets, nothing keeps the next owner from reading the same records; from then on
        # it waits for the end of this transaction. The next owner may be this member again: one that was lost and
        # comes back can be in the same generation, and the broker takes offsets that were under way all the while.
        self._require_owned(finished)
        self._is_deciding = True
        self._call(lambda: producer.commit_transaction(CALL_SECONDS))
        self._began_at = None

    def _require_owned(self, finished: Sequence[Finished]) -> None:
        if len(self._parts.assignment.snapshot().owned(finished)) < len(finished):
            raise AbortAndRedo("a partition was revoked meanwhile")

    def _send_offsets(self, producer: Producer, offsets: list[KafkaPartition], membership: object) -> None:
        try:
            self._calls.run(lambda: producer.send_offsets_to_transaction(offsets, membership, CALL_SECONDS))
        except CallOverdueError as overdue:  # nothing was committed: only this thread ever asks for that
            reason = "sending the offsets did not come back"
            raise Replace(reason) from overdue

    def _await(self, producer: Producer, reports: Reports) -> None:
        """Until each record was acknowledged or one refused; for no longer than a call may take.

        Raises:
            RefusedError: one was.
        """
        deadline = self._clock.monotonic() + CALL_SECONDS
        try:
            while producer.flush(WATCH_SECONDS) > 0 and not reports.blamed and self._clock.monotonic() < deadline:
                pass
        except KafkaException as exception:
            raise AbortAndRedo(exception.args[0].name()) from exception  # if it cannot even abort, it is replaced
        if reports.blamed:
            raise RefusedError(reports)

    def _call(self, step: Callable[[], object]) -> None:
        deadline, is_repeated = self._clock.monotonic() + self._deadline_seconds, False
        while True:
            try:
                step()
            except KafkaException as exception:
                error = exception.args[0]
                # A commit that went unanswered may have held, whatever its repetition says.
                is_doubtful = self._is_deciding and is_repeated
                if error.fatal() or (is_doubtful and not error.retriable()):
                    raise Replace(error.name()) from exception
                if is_refusal(error):
                    raise RefusedError(Reports(error)) from exception
                if error.txn_requires_abort() or not error.retriable():
                    raise AbortAndRedo(error.name()) from exception
                if self._clock.monotonic() > deadline:
                    raise Replace(error.name()) from exception
                is_repeated = True
                self._waiter.failed(f"the broker does not answer ({error.name()})")
            else:
                return

    def _undo(self, trouble: Reports | Lost) -> bool:
        """Abort; False where the transaction may hold even so: a new producer is there, and only the group knows."""
        if isinstance(trouble, Lost) and trouble.is_in_doubt:
            obstacle: str | None = trouble.reason
        else:
            obstacle = self._obstacle_to_abort()
        if obstacle is not None:
            self._replace(obstacle)
            return False
        self._began_at = None
        return True

    def _obstacle_to_abort(self) -> str | None:
        producer, self._is_deciding = self._require_producer(), False
        try:
            self._call(lambda: producer.abort_transaction(CALL_SECONDS))
        except (AbortAndRedo, Replace, RefusedError) as verdict:
            return str(verdict)
        return None

    def _replace(self, reason: str) -> None:
        log.warning("producer.replaced", reason=reason)
        if reason == "_FENCED":
            self._note_fence()
        # `init_transactions` under the same id settles the old transaction: a new id would leave it in doubt.
        self._is_deciding = True
        self.close()
        self._began_at = None
        self._waiter.failed(f"the producer was replaced ({reason})")
        self.start()

    def _note_fence(self) -> None:
        now = self._clock.monotonic()
        if self._began_at is not None and now - self._began_at > self._deadline_seconds / 2:
            return  # the broker ends transactions that take too long: that looks the same and is nobody's fault
        self._fenced_at.append(now)
        if len(self._fenced_at) == 2 and self._fenced_at[1] - self._fenced_at[0] < FENCE_WINDOW_SECONDS:  # noqa: PLR2004
            raise FatalError(
                f"another process uses the transactional id {self._parts.settings['transactional.id']}: "
                "give every worker its own kafka.instance_id"
            )

    def _settle(self, pending: Sequence[Finished]) -> tuple[list[Finished], list[Finished]]:
        """What of `pending` was committed, and what was not: the group knows. Asked of what was ours throughout."""
        while True:
            owned = self._parts.assignment.snapshot().owned(pending)
            try:
                committed = self._parts.group.committed({each.record.source for each in owned})
                break
            except KafkaException as error:
                self._waiter.failed(f"the group coordinator does not answer ({error.args[0].name()})")
        held = [f for f in owned if f.record.offset < committed.get(f.record.source, 0)]
        return held, [f for f in owned if f.record.offset >= committed.get(f.record.source, 0)]

    def _require_producer(self) -> Producer:
        if self._producer is None:
            self.start()
        if self._producer is None:
            message = "This is a bug. `start` returned without a producer."
            raise RuntimeError(message)
        return self._producer

    def _refuse_hopeless(self, error: KafkaError) -> None:
        if error.code() in HOPELESS:
            raise FatalError(f"transactions are refused by the broker ({error.name()}){fix_of(error.name())}")
