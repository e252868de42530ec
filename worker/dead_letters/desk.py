"""Looking through the dead letter topics of a configuration, and sending what is in them again."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from worker.clock import Clock
from worker.config import Config
from worker.dead_letters.memory import MEMORY_BYTES, Memory
from worker.dead_letters.selection import Position, ReplayRules, Skip, Tally, Wanted
from worker.errors import ConfigError, FatalError
from worker.kafka.clients import connection, producer_settings
from worker.kafka.letters import LetterReader
from worker.kafka.present import present_bindings
from worker.kafka.replay import Note, Replayer, ReplayNotes
from worker.messages.binding import Binding
from worker.messages.codec import record_bytes
from worker.messages.dead_letter import DeadLetter, read_dead_letter, replayed
from worker.settings import REPLAY_INSTANCE
from worker.types import Record, TopicPartition

BATCH_RECORDS = 500
BATCH_BYTES = 16 * 1024 * 1024
"""A transaction is made when this many records or bytes are to be sent: what is held in memory."""


@dataclass(slots=True)
class _Ledger:
    """One partition of a dead letter topic in the course of a replay."""

    memory: Memory
    end: int
    """Where reading ends; what is written meanwhile stays for the next replay."""
    first_left: int | None = None
    """The first one that was not sent, now or before: the position stays below it."""
    sent: list[int] = field(default_factory=list)

    def leave(self, offset: int) -> None:
        """The record at `offset` is not sent."""
        if self.first_left is None:
            self.first_left = offset

    def note(self, read_up_to: int) -> Note:
        """What is to be committed once everything before `read_up_to` has been looked at.

        Raises:
            FatalError: there is no room to remember it.
        """
        position = read_up_to if self.first_left is None else self.first_left
        self.memory = self.memory.with_replayed(self.sent).advanced(position)
        self.sent.clear()
        metadata = self.memory.metadata()
        if len(metadata) > MEMORY_BYTES:
            raise FatalError(
                "too many dead letters were left out between replayed ones to remember which: nothing more was sent; "
                "replay with fewer filters, or one code after the other"
            )
        return Note(self.memory.position, metadata)


@dataclass(slots=True)
class _Batch:
    letters: list[DeadLetter] = field(default_factory=list)
    size_bytes: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.letters) >= BATCH_RECORDS or self.size_bytes >= BATCH_BYTES

    def add(self, letter: DeadLetter) -> None:
        record = letter.record
        self.letters.append(letter)
        self.size_bytes += record_bytes(record.key, record.value, record.headers)


class LetterDesk:
    """Reads and replays the dead letters of one configuration. Every method blocks on the broker."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._client = connection(config.kafka, REPLAY_INSTANCE)
        self.group_id = f"{config.kafka.group_id}.{REPLAY_INSTANCE}"
        self._present: tuple[Binding, ...] | None = None

    def topics(self, topic: str | None) -> tuple[str, ...]:
        """The dead letter topics that `topic` (an input, or one of themselves) stands for; without it all.

        Raises:
            ConfigError: the configuration has no such topic.
            RetryableError: the broker, asked what a pattern matches, does not answer.
        """
        found = {
            binding.dead_letter_topic: None
            for binding in self._bindings()
            if topic in {None, binding.input, binding.dead_letter_topic}
        }
        if not found:
            raise ConfigError("--topic: expected an input topic of the configuration, or its dead letter topic")
        return tuple(found)

    def originals(self, topic: str | None) -> frozenset[str]:
        """The input topics to which `topic` narrows; empty where it does not."""
        return frozenset(binding.input for binding in self._bindings() if binding.input == topic)

    def letters(self, topics: tuple[str, ...], wanted: Wanted, tally: Tally) -> Iterator[DeadLetter]:
        """The dead letters that are meant, each partition in order, and a count of all in `tally`.

        Raises:
            WorkerError: the topics cannot be read.
        """
        with LetterReader(self._client, self._clock) as reader:
            partitions = [p for found in reader.partitions(topics).values() for p in found]
            for record in reader.read(reader.ends(partitions)):
                letter = read_dead_letter(record)
                if letter is None:
                    tally.skip("not_ours")
                elif wanted.includes(letter):
                    tally.count(letter.code)
                    yield letter

    def find(self, position: Position) -> Record:
        """The record at `position`, a dead letter of ours or not.

        Raises:
            ConfigError: there is none.
            RetryableError: the broker does not answer.
        """
        self.topics(position.place.topic)
        with LetterReader(self._client, self._clock) as reader:
            if position.place in reader.partitions([position.place.topic]).get(position.place.topic, ()):
                low, end = reader.ends([position.place])[position.place]
                span = (position.offset, position.offset + 1)
                records = reader.read({position.place: span}) if low <= position.offset < end else iter(())
                for record in records:
                    return record
        raise ConfigError("there is no record at this position (any more)")

    def rules(self, wanted: Wanted, max_attempts: int) -> ReplayRules:
        """What may be replayed, with the input topics as they are now."""
        bindings = self._bindings()
        with LetterReader(self._client, self._clock) as reader:
            inputs = reader.partitions({binding.input for binding in bindings})
        places: dict[str, frozenset[TopicPartition]] = {}
        for binding in bindings:
            known = places.get(binding.dead_letter_topic, frozenset())
            places[binding.dead_letter_topic] = known | frozenset(inputs.get(binding.input, ()))
        return ReplayRules(wanted, places, max_attempts)

    def rehearse(self, topics: tuple[str, ...], rules: ReplayRules, tally: Tally) -> Iterator[DeadLetter]:
        """What `replay` would send now, in its order. Nothing is written.

        Raises:
            WorkerError: the topics cannot be read.
        """
        with LetterReader(self._client, self._clock) as reader:
            for letter in self._due(reader, self._ledgers(reader, topics), rules, tally):
                tally.count(letter.code)
                yield letter

    def replay(self, topics: tuple[str, ...], rules: ReplayRules, tally: Tally) -> Iterator[DeadLetter]:
        """Send dead letters again; each is yielded once the transaction that holds it is committed.

        Raises:
            WorkerError: it cannot go on; what was yielded is sent, and remembered.
        """
        settings = producer_settings(self._config.kafka, REPLAY_INSTANCE, transactional=True)
        with (
            # First of all: it ends what a former replay left open, so that its notes are known.
            Replayer(settings, self._client, self.group_id, self._clock) as replayer,
            LetterReader(self._client, self._clock) as reader,
        ):
            ledgers, batch = self._ledgers(reader, topics), _Batch()
            for letter in self._due(reader, ledgers, rules, tally):
                batch.add(letter)
                ledgers[letter.record.source].sent.append(letter.record.offset)
                if batch.is_full:
                    last = {each.record.source: each.record.offset + 1 for each in batch.letters}
                    yield from _send(replayer, batch, {p: ledgers[p].note(end) for p, end in last.items()}, tally)
                    batch = _Batch()
            # With the last ones the notes of every partition, changed or not: so the broker keeps them for longer.
            notes = {p: ledger.note(ledger.end) for p, ledger in ledgers.items()}
            yield from _send(replayer, batch, notes, tally)

    def _bindings(self) -> tuple[Binding, ...]:
        if self._present is None:
            self._present = present_bindings(self._config.kafka, self._config.bindings(), REPLAY_INSTANCE)
        return self._present

    def _ledgers(self, reader: LetterReader, topics: tuple[str, ...]) -> dict[TopicPartition, _Ledger]:
        partitions = [p for found in reader.partitions(topics).values() for p in found]
        notes = ReplayNotes(self._client, self.group_id).read(partitions)
        ledgers = {}
        for partition, (low, end) in reader.ends(partitions).items():
            note = notes.get(partition, Note(0, ""))
            ledgers[partition] = _Ledger(Memory.read(note.offset, note.metadata).advanced(low), end)
        return ledgers

    @staticmethod
    def _due(
        reader: LetterReader, ledgers: Mapping[TopicPartition, _Ledger], rules: ReplayRules, tally: Tally
    ) -> Iterator[DeadLetter]:
        for record in reader.read({p: (ledger.memory.position, ledger.end) for p, ledger in ledgers.items()}):
            ledger, letter = ledgers[record.source], read_dead_letter(record)
            if ledger.memory.holds(record.offset):
                tally.skip("replayed_before")
                continue
            skip: Skip | None = "not_ours" if letter is None else rules.skip(letter)
            if skip is not None:
                tally.skip(skip)
                ledger.leave(record.offset)
            elif letter is not None:
                yield letter


def _send(
    replayer: Replayer, batch: _Batch, notes: Mapping[TopicPartition, Note], tally: Tally
) -> Iterator[DeadLetter]:
    if notes:
        replayer.send([replayed(letter) for letter in batch.letters], notes)
    for letter in batch.letters:
        tally.count(letter.code)
        yield letter
