"""Scores kept for pairs that come again: the same token ids under the same model are scored once.

Pure, and used by one thread. Model, engine and precision are those of the process, so a pair's key is its token ids, as
cut, and their types: two texts that differ only where they are cut away share their scores.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from worker.pipeline.pair_keys import PairHasher
from worker.types import Batch, Float32Array, PairScores

ENTRY_BYTES = 240
"""What one pair's scores take with their key, at most, for heads of up to 3 classes: measured by a test."""

_PAIR_BYTES = 12
"""The logits of a pair in 3 classes."""


class ScoreCache:
    """Scores by key, up to a number of bytes; those that were not asked for lately are given up.

    Two generations: what is put or found moves into the young one; when that is full, the old one is given up and the
    young one grows old. No order has to be kept, and nothing is ever searched for the oldest.
    """

    def __init__(self, most_bytes: int) -> None:
        """Hold at most `most_bytes`; with less than two entries' worth it stays empty."""
        self.hasher = PairHasher()
        """Whose hashes are the keys."""
        self._most_young = most_bytes // (2 * ENTRY_BYTES)
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._young_entries = self._old_entries = 0

    def __len__(self) -> int:
        """Pairs of which the scores are kept."""
        return len(self._young) + len(self._old)

    @property
    def held_bytes(self) -> int:
        """What they take, reckoned at `ENTRY_BYTES` each."""
        return (self._young_entries + self._old_entries) * ENTRY_BYTES

    @property
    def is_off(self) -> bool:
        """Whether it can hold nothing."""
        return self._most_young == 0

    def get(self, key: bytes) -> bytes | None:
        """The logits of a pair as float32 bytes, where they are kept."""
        row = self._young.get(key)
        if row is None:
            row = self._old.get(key)
            if row is not None:
                self.put(key, row)
        return row

    def look_up(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
        """Each key, and what `get` has for it."""
        return zip(keys, map(self.get, keys), strict=True)

    def put_all(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """Keep the logits of many pairs."""
        are_new = self._young.keys().isdisjoint(keys) and self._old.keys().isdisjoint(keys)
        have_room = self._young_entries + len(keys) < self._most_young and max(map(len, rows), default=0) <= _PAIR_BYTES
        if are_new and have_room and len(set(keys)) == len(keys):  # as nearly always: the same, all at once
            self._young.update(zip(keys, rows, strict=True))
            self._young_entries += len(keys)
            return
        for key, row in zip(keys, rows, strict=True):
            self.put(key, row)

    def put(self, key: bytes, row: bytes) -> None:
        """Keep the logits of a pair."""
        entries = _entries(row)
        if entries > self._most_young:
            return
        if (old := self._old.pop(key, None)) is not None:
            self._old_entries -= _entries(old)
        if (known := self._young.pop(key, None)) is not None:
            self._young_entries -= _entries(known)
        if self._young_entries + entries > self._most_young:
            self._grow_old()
        self._young[key] = row
        self._young_entries += entries
        if self._young_entries == self._most_young:
            self._grow_old()

    def _grow_old(self) -> None:
        self._old, self._young = self._young, {}
        self._old_entries, self._young_entries = self._young_entries, 0


class Recall:
    """One batch and what is known of it: known pairs are answered, the others are scored once each.

    Every pair of the batch comes out exactly once: in `known`, in an answer of `learn` or `learnt`, in `left`, or,
    where the engine has failed on it, in nobody's: then it is in the batch that failed.
    """

    def __init__(self, cache: ScoreCache, batch: Batch, running: "Recall | None" = None) -> None:
        """Look every pair up; those that are scored in the batch `running` right now are not scored again."""
        self._cache = cache
        self._batch = batch
        self.scored: dict[bytes, int] = {}
        """Which row of the batch is scored, by key."""
        self._waiting: dict[bytes, list[int]] = {}  # rows that wait for the one that is scored
        self._running: list[tuple[int, bytes]] = []  # rows that wait for the batch before, with their keys
        being_scored = running.scored if running is not None else {}
        rows: list[int] = []
        found: list[bytes] = []
        keys = batch.keys or cache.hasher.keys(batch.token_ids, batch.type_ids, batch.lengths)
        for row, (key, kept) in enumerate(cache.look_up(keys)):
            if kept is not None:
                rows.append(row)
                found.append(kept)
            elif key in being_scored:
                self._running.append((row, key))
            elif self.scored.setdefault(key, row) != row:
                self._waiting.setdefault(key, []).append(row)
        self.known = self._answer(rows, found)
        """The pairs whose scores were kept, and these scores; None where there is none."""
        self.unknown = self._part(list(self.scored.values()))
        """Each different pair that has to be scored; None where all were known."""

    def learn(self, batch: Batch, scores: PairScores) -> tuple[Batch, PairScores] | None:
        """Keep the scores of a part of `unknown`; gives the pairs that waited for them, and theirs."""
        answers = _by_row(batch, scores)
        keys = list(self.scored) if batch is self.unknown else self._keys_of(batch)
        self._cache.put_all(keys, answers)
        if not self._waiting:
            return None
        rows: list[int] = []
        found: list[bytes] = []
        for key, answer in zip(keys, answers, strict=True):
            waiting = self._waiting.pop(key, ())
            rows += waiting
            found += [answer] * len(waiting)
        return self._answer(rows, found)

    def learnt(self) -> tuple[Batch, PairScores] | None:
        """The pairs that waited for the batch before, which is done now, and their scores; what it lacks is left."""
        running, self._running = self._running, []
        rows: list[int] = []
        found: list[bytes] = []
        for (row, key), (_, kept) in zip(running, self._cache.look_up([key for _, key in running]), strict=True):
            if kept is None:
                self._waiting.setdefault(key, []).append(row)
            else:
                rows.append(row)
                found.append(kept)
        return self._answer(rows, found)

    def left(self) -> Batch | None:
        """The pairs that still wait, for one that was never scored: to be scored by themselves. None waits on."""
        rows = sorted(row for waiting in self._waiting.values() for row in waiting)
        self._waiting = {}
        return self._part(rows)

    def _keys_of(self, part: Batch) -> list[bytes]:
        keys = {self._batch.refs[row]: key for key, row in self.scored.items()}
        return [keys[ref] for ref in part.refs]

    def _part(self, rows: Sequence[int]) -> Batch | None:
        if len(rows) == len(self._batch.refs):
            return self._batch
        return self._batch.take(rows) if rows else None

    def _answer(self, rows: Sequence[int], found: Sequence[bytes]) -> tuple[Batch, PairScores] | None:
        batch = self._part(rows)
        if batch is None:
            return None
        logits: Float32Array = np.frombuffer(b"".join(found), np.float32).reshape(batch.asked, -1)
        return batch, PairScores(logits)


def _by_row(batch: Batch, scores: PairScores) -> list[bytes]:
    """The logits of each row of `batch`, as float32 bytes."""
    logits = np.ascontiguousarray(scores.logits, np.float32)
    content, width = logits.tobytes(), logits.shape[1] * logits.itemsize
    if batch.hypotheses is None:
        return [content[at : at + width] for at in range(0, len(content), width)]
    ends = (batch.answers() * width).tolist()
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _entries(row: bytes) -> int:
    """How many times `ENTRY_BYTES` the scores take: those of a row that asks about many labels are longer."""
    return 1 + max(0, len(row) - _PAIR_BYTES + ENTRY_BYTES - 1) // ENTRY_BYTES
