"""Scores kept for pairs that come again: the same token ids under the same model are scored once.

Pure, and used by one thread. Model, engine and precision are those of the process, so a pair's key is its token ids, as
cut, and their types: two texts that differ only where they are cut away share their scores.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from worker.types import Batch, Float32Array, PairScores

KEY_BYTES = 16
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

    Every pair of the batch comes out exactly once: in `known`, in an answer of `learn`, in `left`, or, where the engine
    has failed on it, in nobody's: then it is in the batch that failed.
    """

    def __init__(self, cache: ScoreCache, batch: Batch) -> None:
        """Look every pair up."""
        self._cache = cache
        self._batch = batch
        self._keys = pair_keys(batch)
        self._scored: dict[bytes, int] = {}  # row of the batch that is scored, by key
        self._waiting: dict[bytes, list[int]] = {}  # rows that wait for the one that is scored
        rows: list[int] = []
        found: list[bytes] = []
        for row, key in enumerate(self._keys):
            kept = cache.get(key)
            if kept is not None:
                rows.append(row)
                found.append(kept)
            elif key in self._scored:
                self._waiting.setdefault(key, []).append(row)
            else:
                self._scored[key] = row
        self.known = self._answer(rows, found)
        """The pairs whose scores were kept, and these scores; None where there is none."""
        self._keys_by_ref = {batch.refs[row]: key for key, row in self._scored.items()}

    @property
    def unknown(self) -> Batch | None:
        """Each different pair that has to be scored; None where all were known."""
        rows = list(self._scored.values())
        if len(rows) == len(self._batch.refs):
            return self._batch
        return self._batch.take(rows) if rows else None

    def learn(self, batch: Batch, scores: PairScores) -> tuple[Batch, PairScores] | None:
        """Keep the scores of a part of `unknown`; gives the pairs that waited for them, and theirs."""
        rows: list[int] = []
        found: list[bytes] = []
        logits = np.ascontiguousarray(scores.logits, np.float32)
        each = logits if batch.hypotheses is None else np.split(logits, batch.answers()[:-1])
        for ref, answer in zip(batch.refs, each, strict=True):
            key, row = self._keys_by_ref[ref], answer.tobytes()
            self._cache.put(key, row)
            waiting = self._waiting.pop(key, ())
            rows += waiting
            found += [row] * len(waiting)
        return self._answer(rows, found)

    def left(self) -> Batch | None:
        """The pairs that still wait, for one that was never scored: to be scored by themselves. None waits on."""
        rows = sorted(row for waiting in self._waiting.values() for row in waiting)
        self._waiting = {}
        return self._batch.take(rows) if rows else None

    def _answer(self, rows: Sequence[int], found: Sequence[bytes]) -> tuple[Batch, PairScores] | None:
        if not rows:
            return None
        whole = len(rows) == len(self._batch.refs)
        batch = self._batch if whole else self._batch.take(rows)
        logits: Float32Array = np.frombuffer(b"".join(found), np.float32).reshape(batch.asked, -1)
        return batch, PairScores(logits)


def _entries(row: bytes) -> int:
    """How many times `ENTRY_BYTES` the scores take: those of a row that asks about many labels are longer."""
    return 1 + max(0, len(row) - _PAIR_BYTES + ENTRY_BYTES - 1) // ENTRY_BYTES


def pair_keys(batch: Batch) -> list[bytes]:
    """A 128-bit hash of each pair of `batch`: equal for equal pairs, and for no others that anyone could find."""
    keys = []
    end = 0
    for length in batch.lengths.tolist():
        start, end = end, end + length
        pair = batch.token_ids[start:end].tobytes() + batch.type_ids[start:end].tobytes()
        keys.append(blake2b(pair, digest_size=KEY_BYTES).digest())
    return keys
