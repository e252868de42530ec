"""Finds the records for which a transaction is refused, so that nobody else waits for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaError, Message

from worker.errors import Stage
from worker.kafka.refusals import RECORD_CODES, TOPIC_CODES, RefusedTopics
from worker.types import Finished, OutboundRecord, Record, Refusal, TopicPartition

WATCHED_TRANSACTIONS = 100
"""How many transactions are watched record by record after one was refused: what is refused seldom comes alone."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Blame:
    """Where an output was refused, and why."""

    topic: str
    partition: int | None
    error: KafkaError


class Reports:
    """What the broker, or the client itself, refused of one transaction."""

    def __init__(self, error: KafkaError | None = None) -> None:
        """`error` is the transaction's own, where no record was reported."""
        self.error = error
        self.blamed: dict[int, Blame] = {}
        """Place in the transaction -> why its record was refused, or everything that goes to its topic."""
        self.exact: set[tuple[str, int | None]] = set()
        """The partitions of which the broker said which records of a batch it means."""
        self.failure: KafkaError | None = None
        """The first error of any kind."""

    def note(self, place: int, blame: Blame) -> None:
        """An output of the record at `place` was not delivered; what merely suffers with others is not blamed."""
        self.failure = blame.error if self.failure is None else self.failure
        if is_refusal(blame.error):
            self.blamed.setdefault(place, blame)
        elif blame.error.code() == KafkaError._INVALID_DIFFERENT_RECORD:  # noqa: SLF001  so named
            self.exact.add((blame.topic, blame.partition))

    def watcher(self, place: int) -> Callable[[KafkaError | None, Message], None]:
        """A delivery callback for the outputs of the record at `place`."""

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.note(place, Blame(message.topic() or "", message.partition(), error))

        return on_delivery


class RefusedError(Exception):
    """The broker refused a transaction for what was in it."""

    def __init__(self, reports: Reports) -> None:
        """`reports` say for what, where that is known."""
        super().__init__(reports)
        self.reports = reports


def is_refusal(error: KafkaError) -> bool:
    """Whether `error` is about what was sent, and comes again with it."""
    return error.code() in RECORD_CODES or error.code() in TOPIC_CODES


class Triage:
    """Says what to send next, and what becomes of what was refused. Used by one thread."""

    def __init__(
        self,
        dead_letter: Callable[[Record, Refusal], OutboundRecord],
        topics: RefusedTopics,
        unwritable: Callable[[Iterable[str]], set[str]],
    ) -> None:
        """`unwritable(topics)` asks the broker which of them we have no right to write; empty where it does not say."""
        self._dead_letter = dead_letter
        self._unwritable = unwritable
        self._topics = topics
        self._suspects: set[tuple[TopicPartition, int]] = set()
        self._watched = 0

    @property
    def is_watching(self) -> bool:
        """Whether the next transaction is to be watched record by record."""
        return self._watched > 0

    def chunk(self, pending: Sequence[Finished]) -> list[Finished]:
        """What of `pending` to send next: all, or where some are suspect, so many that the culprit is soon alone."""
        places = [place for place, each in enumerate(pending) if _identity(each) in self._suspects]
        if not places:
            return list(pending)
        if len(places) == 1:
            return list(pending[: max(1, places[0])])
        return list(pending[: places[(len(places) - 1) // 2] + 1])

    def passed(self, chunk: Sequence[Finished]) -> None:
        """`chunk` was committed."""
        self._topics.accept(output.topic for each in chunk for output in each.outputs)
        if self._watched:
            self._watched -= 1
            self._suspects -= {_identity(each) for each in chunk}

    def judge(self, chunk: Sequence[Finished], reports: Reports) -> list[Finished]:
        """`chunk` to be sent again after it was refused, with the culprit as a dead letter once it is found."""
        was_watching, self._watched = self.is_watching, WATCHED_TRANSACTIONS
        error = reports.error
        if reports.blamed:
            return self._convict(chunk, reports)
        if error is not None and error.code() in TOPIC_CODES:
            topics = {output.topic for each in chunk for output in each.outputs}
            self._shut(dict.fromkeys(self._unwritable(topics) or topics, error))
        elif error is not None and was_watching:
            # No record was named: each may be at fault.
            if len(chunk) == 1:
                return [self._give_up(chunk[0], Blame(chunk[0].outputs[-1].topic, None, error))]
            self._suspects = {_identity(each) for each in chunk}
        return list(chunk)

    def _convict(self, chunk: Sequence[Finished], reports: Reports) -> list[Finished]:
        blames = reports.blamed.values()
        self._shut({blame.topic: blame.error for blame in blames if blame.error.code() in TOPIC_CODES})
        records = {place: blame for place, blame in reports.blamed.items() if blame.error.code() in RECORD_CODES}
        is_alone = len(chunk) == 1
        sure = {
            place for place, blame in records.items() if is_alone or (blame.topic, blame.partition) in reports.exact
        }
        self._suspects = {_identity(chunk[place]) for place in records.keys() - sure}
        return [self._give_up(each, records[at]) if at in sure else each for at, each in enumerate(chunk)]

    def _shut(self, topics: Mapping[str, KafkaError]) -> None:
        for topic, error in topics.items():
            self._topics.refuse(topic, f"{topic} takes nothing ({error.name()}): {TOPIC_CODES[error.code()]}")

    def _give_up(self, finished: Finished, blame: Blame) -> Finished:
        record, topic, error = finished.record, blame.topic, blame.error
        code = RECORD_CODES[error.code()]
        if finished.code is not None:
            fix = "it is the place for what others refuse: change what it takes"
            self._topics.refuse(topic, f"{topic} refuses a dead letter for good ({error.name()}): {fix}")
            return finished
        log.warning(
            "message.dead_lettered",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=code.value,
            stage=Stage.ENCODE.value,
        )
        refusal = Refusal(code, Stage.ENCODE, f"the broker refuses the prediction for good ({error.name()})")
        return Finished(record, (self._dead_letter(record, refusal),), code)


def _identity(finished: Finished) -> tuple[TopicPartition, int]:
    return finished.record.source, finished.record.offset
