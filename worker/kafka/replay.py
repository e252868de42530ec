"""Sending records again, with a note of how far that went, in one transaction."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from worker.clock import Clock
from worker.errors import ConfigError, FatalError, RetryableError
from worker.kafka.bounded_calls import BoundedCalls, CallOverdueError
from worker.kafka.clients import ClientSettings, checked_settings
from worker.kafka.group_offsets import ask_committed
from worker.types import OutboundRecord, TopicPartition

CALL_SECONDS = 5.0
"""How long one transactional call may block before it is repeated."""
NOTES_SECONDS = 10.0


class Note(NamedTuple):
    """A committed offset and what is kept beside it."""

    offset: int
    metadata: str


class ReplayNotes:
    """How far former replays went: what a group that has no members has committed."""

    def __init__(self, client: ClientSettings, group_id: str) -> None:
        """`client` holds librdkafka's connection settings."""
        self._client = dict(client)
        self._group_id = group_id

    def read(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Note]:
        """The notes on `partitions`, no entry where there is none. Blocks.

        Raises:
            ConfigError: the group may not be looked at.
            RetryableError: the coordinator does not answer, or a replay is under way.
        """
        wanted = [KafkaPartition(*partition) for partition in partitions]
        if not wanted:
            return {}
        try:
            answer = ask_committed(self._client, self._group_id, wanted, NOTES_SECONDS)
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise ConfigError(f"grant Describe and Read on the group {self._group_id}") from exception
            if error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
                raise RetryableError("another replay is under way: try again when it has ended") from exception
            fix = "see that Read is granted on this group and that its coordinator answers, and try again"
            raise RetryableError(
                f"the offsets of {self._group_id} cannot be read ({error.name()}): {fix}"
            ) from exception
        return {
            TopicPartition(each.topic, each.partition): Note(each.offset, each.metadata or "")
            for each in answer
            if each.offset >= 0
        }


class Replayer:
    """Sends records and commits notes together. A context manager; only one at a time can be at work per group."""

    def __init__(self, settings: ClientSettings, client: ClientSettings, group_id: str, clock: Clock) -> None:
        """`settings` are those of a transactional producer. Nothing is connected yet."""
        with checked_settings():
            self._producer = Producer(settings)
            # Never subscribed: it is asked for the name of its group only, as a transaction wants to have it.
            nobody = Consumer({**client, "group.id": group_id, "enable.auto.commit": False})
        self._membership = nobody.consumer_group_metadata()
        nobody.close()
        self._group_id = group_id
        self._clock = clock
        self._patience_seconds = int(str(settings["transaction.timeout.ms"])) / 1000
        self._calls = BoundedCalls(self._patience_seconds)
        self._may_abort = False
        self._refusal: KafkaError | None = None

    def __enter__(self) -> Self:
        """End what a former replay left open, and shut out one that still runs. Blocks.

        Raises:
            WorkerError: the broker does not answer or does not let us; the message says which right is missing.
        """
        self._call(lambda: self._producer.init_transactions(CALL_SECONDS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.close()
        if self._may_abort:
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(CALL_SECONDS)
        self._producer.purge()

    def send(self, outputs: Sequence[OutboundRecord], notes: Mapping[TopicPartition, Note]) -> None:
        """Commit `outputs`, each to its very partition, and `notes` in one transaction. Blocks.

        Raises:
            ConfigError: a right is missing; nothing of it was sent.
            FatalError: another replay has taken over; nothing of it was sent.
            RetryableError: the broker refuses or does not answer; a later replay finds out what was sent.
        """
        offsets = [KafkaPartition(*p, note.offset, metadata=note.metadata) for p, note in sorted(notes.items())]
        self._call(self._producer.begin_transaction)
        self._may_abort = True
        for output in outputs:
            self._produce(output)
        self._call(lambda: self._send_offsets(offsets))
        self._may_abort = False
        self._call(self._commit())

    def _send_offsets(self, offsets: list[KafkaPartition]) -> None:
        producer, membership = self._producer, self._membership
        try:
            self._calls.run(lambda: producer.send_offsets_to_transaction(offsets, membership, CALL_SECONDS))
        except CallOverdueError as overdue:
            self._may_abort = False  # the producer is that call's now
            reason = "the broker does not take how far it came: run it again, it goes on where this one ended"
            raise RetryableError(f"the replay stopped, {reason}") from overdue

    def _commit(self) -> Callable[[], None]:
        """A call that may be repeated. One that went unanswered may have held: then nobody aborts any more.

        What is left open so is ended by the next replay, and by the broker in time.
        """
        tries = itertools.count(1)

        def commit() -> None:
            attempt = next(tries)
            try:
                self._producer.commit_transaction(CALL_SECONDS)
            except KafkaException as exception:
                self._may_abort = attempt == 1 and exception.args[0].txn_requires_abort()
                raise

        return commit

    def _produce(self, output: OutboundRecord) -> None:
        more: dict[str, Any] = {} if output.timestamp_ms is None else {"timestamp": output.timestamp_ms}
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    output.value,
                    output.key,
                    partition=output.source.partition,
                    headers=list(output.headers),
                    on_delivery=self._on_delivery,
                    **more,
                )
            except BufferError:
                self._producer.poll(0.05)
            except KafkaException as exception:
                raise self._explained(exception.args[0]) from exception
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and self._refusal is None:
            self._refusal = error

    def _call(self, step: Callable[[], object]) -> None:
        deadline = self._clock.monotonic() + self._patience_seconds
        while True:
            try:
                step()
            except KafkaException as exception:
                error = exception.args[0]
                if not error.retriable() or error.txn_requires_abort() or self._clock.monotonic() > deadline:
                    raise self._explained(error) from exception
            else:
                return

    def _explained(self, error: KafkaError) -> Exception:
        """What to tell of `error`; a record that was refused before says more than the transaction that it ended."""
        if error.code() in {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001  so named
            return FatalError("another replay of this group has taken over")
        cause = self._refusal or error
        rights = {
            KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant Write and Describe on the input topics",
            KafkaError.GROUP_AUTHORIZATION_FAILED: f"grant Read and Describe on the group {self._group_id}",
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
                f"grant Write and Describe on the transactional id {self._group_id}"
            ),
        }
        if (fix := rights.get(cause.code())) is not None:
            return ConfigError(f"the broker refuses the replay ({cause.name()}): {fix}")
        if cause.code() == KafkaError.INVALID_TIMESTAMP:
            fix = "raise message.timestamp.before.max.ms of the input topic, or replay only what is younger"
            return RetryableError(f"the broker refuses a record's timestamp: {fix}")
        return RetryableError(f"the replay stopped ({cause.name()}): run it again, it goes on where this one ended")
