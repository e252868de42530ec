"""Rows of local files, read one by one: JSON lines, CSV and Parquet, gzipped or not. Memory holds what is kept."""

import csv
import gzip
import hashlib
import importlib.util
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TextIO, TypeVar

import numpy as np

from worker.errors import ConfigError
from worker.training.sets import ClassificationSet, NliSet

T = TypeVar("T")
PARQUET_HINT = 'pip install "nli-stream-worker[train]"'
_PLACE = re.compile(r"\{(\w+)\}")
_BATCH_ROWS = 1024
DELIMITERS: Final[Mapping[str, str]] = {".csv": ",", ".tsv": "\t"}
_ENCODING = "utf-8-sig"
"""UTF-8; spreadsheets put a mark in front of it."""
_LARGEST_FIELD = 16 * 1024 * 1024
"""Characters of one CSV field: Python's own limit of 128 KiB is less than a long document."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text."""

    text: str
    label: str


@dataclass(frozen=True, slots=True)
class NliRow:
    """One pair, and whether its hypothesis follows."""

    premise: str
    hypothesis: str
    is_entailment: bool


@dataclass(frozen=True, slots=True)
class Caps:
    """How many rows are kept at most; None is no limit."""

    per_class: int | None = None
    per_set: int | None = None


@dataclass(frozen=True, slots=True)
class Hints:
    """What a person changes where a file is not as expected."""

    file: str = ""
    """Where there is none."""
    columns: str = ""
    """Where it has no such column."""


OF_TABLE = Hints("--data names the folder that the table's paths start from", "`columns` in the table renames it")
"""For files that a table of data sets names."""


def read_objects(path: Path, hints: Hints = Hints()) -> Iterator[Mapping[str, object]]:
    """The rows of a file by column, as they are read. The name decides: .jsonl, .csv or .parquet, also with .gz.

    Raises:
        ConfigError: there is no such file, its kind is unknown, or a line of it cannot be read.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file{_also(hints.file)}")
    if kind == ".parquet":
        yield from _read_parquet(path)
        return
    if kind is None:
        raise ConfigError(f"{path}: expected a file .jsonl, .csv, .tsv or .parquet, each also as .gz (not Parquet)")
    try:
        with open_text(path) as stream:
            if kind == ".jsonl":
                yield from _json_lines(path, stream)
            else:
                yield from csv.DictReader(csv_lines(stream), delimiter=DELIMITERS[kind])
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None


def kind_of(path: Path) -> str | None:
    """`.jsonl`, `.csv`, `.tsv` or `.parquet`, as a file is by its name, gzipped or not; None if it is none of them."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return ".jsonl"
    return next((kind for kind in (*DELIMITERS, ".parquet") if name.endswith(kind)), None)


def read_rows(path: Path, table: ClassificationSet, hints: Hints = OF_TABLE) -> Iterator[Row]:
    """The labelled texts of a file; rows without a text or a label, and of classes that are left out, are passed over.

    Raises:
        ConfigError: the file cannot be read, or has no such columns.
    """
    return (row for _, row in numbered_rows(path, table, hints))


def numbered_rows(path: Path, table: ClassificationSet, hints: Hints = OF_TABLE) -> Iterator[tuple[int, Row]]:
    """As `read_rows`, each with its number among all rows of the file, from 0."""
    text, label = table.columns.get("text", "text"), table.columns.get("label", "label")
    left_out = {name for name, words in table.labels.items() if words is None}
    pattern = table.text or "{" + text + "}"
    used = _PLACE.findall(pattern)
    for number, row in enumerate(_with_columns(path, (*used, label), hints)):
        found = Row(_filled(pattern, row), str("" if row[label] is None else row[label]).strip())
        if found.text and found.label and found.label not in left_out:
            yield number, found


def read_nli(path: Path, table: NliSet) -> Iterator[NliRow]:
    """The pairs of a file; a pair without a label (`-`), a premise or a hypothesis is passed over.

    Raises:
        ConfigError: the file cannot be read, or has no such columns.
    """
    names = [table.columns.get(key, key) for key in ("premise", "hypothesis", "label")]
    for row in _with_columns(path, names, OF_TABLE):
        premise, hypothesis, label = (str("" if row[name] is None else row[name]).strip() for name in names)
        if premise and hypothesis and label not in {"", "-", "-1"}:
            yield NliRow(premise, hypothesis, label in table.entailment)


def open_text(path: Path) -> TextIO:
    """A file, gzipped or not, with its line ends as they are and without a byte order mark."""
    if path.name.endswith(".gz"):
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")


def csv_lines(stream: Iterable[str]) -> Iterable[str]:
    """`stream`, for a reader of the module csv that takes long fields too."""
    csv.field_size_limit(_LARGEST_FIELD)
    return stream


def keep_rows(rows: Iterable[Row], caps: Caps, seed: int) -> list[Row]:
    """A sample of `rows` within `caps`: the same for the same seed, every row of a class as likely as any other.

    A text that comes twice is taken once. Memory holds the sample and a hash per text.
    """
    draw = np.random.default_rng(seed)
    seen: set[bytes] = set()
    by_class: dict[str, _Reservoir[Row]] = {}
    for row in rows:
        key = hashlib.blake2b(row.text.encode(), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            by_class.setdefault(row.label, _Reservoir(caps.per_class, draw)).offer(row)
    kept = [row for label in sorted(by_class) for row in by_class[label].kept]
    order = draw.permutation(len(kept))
    return [kept[index] for index in order[: caps.per_set]]


def keep_pairs(rows: Iterable[NliRow], limit: int | None, seed: int) -> list[NliRow]:
    """A sample of at most `limit` pairs, shuffled: files are often sorted by premise. The same for the same seed."""
    draw = np.random.default_rng(seed)
    reservoir: _Reservoir[NliRow] = _Reservoir(limit, draw)
    for row in rows:
        reservoir.offer(row)
    return [reservoir.kept[index] for index in draw.permutation(len(reservoir.kept))]


def stratified(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """At most `limit` rows, each class in its share and with one row at least while there is room; in file order."""
    if len(rows) <= limit:
        return list(rows)
    draw = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.label, []).append(place)
    queues = {label: [found[i] for i in draw.permutation(len(found))] for label, found in sorted(places.items())}
    # In rounds of falling need: whose share of what was drawn lags most behind its share of the rows comes next.
    taken = dict.fromkeys(queues, 0)
    chosen: list[int] = []
    while len(chosen) < limit:
        label = max(queues, key=lambda name: (taken[name] == 0, len(places[name]) / (taken[name] + 1)))
        chosen.append(queues[label][taken[label]])
        taken[label] += 1
        if taken[label] == len(queues[label]):
            del queues[label]
    return [rows[place] for place in sorted(chosen)]


class _Reservoir(Generic[T]):
    """A fair sample of a stream of unknown length (Vitter 1985, algorithm R)."""

    def __init__(self, size: int | None, draw: np.random.Generator) -> None:
        self.kept: list[T] = []
        self._size = size
        self._draw = draw
        self._offered = 0

    def offer(self, item: T) -> None:
        """Keep `item`, or not."""
        self._offered += 1
        if self._size is None or len(self.kept) < self._size:
            self.kept.append(item)
        elif (place := int(self._draw.integers(self._offered))) < self._size:
            self.kept[place] = item


def _filled(pattern: str, row: Mapping[str, object]) -> str:
    return _PLACE.sub(lambda match: str("" if row[match[1]] is None else row[match[1]]), pattern).strip()


def _with_columns(path: Path, names: Sequence[str], hints: Hints) -> Iterator[Mapping[str, object]]:
    for number, row in enumerate(read_objects(path, hints), start=1):
        missing = [name for name in names if name not in row]
        if missing:
            raise ConfigError(f"{path}: row {number} has no column {missing[0]}{_also(hints.columns)}")
        yield row


def _also(hint: str) -> str:
    return f"; {hint}" if hint else ""


def _json_lines(path: Path, stream: TextIO) -> Iterator[Mapping[str, object]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ConfigError(f"{path}: line {number}: expected JSON") from None
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: line {number}: expected an object")
        yield row


def _read_parquet(path: Path) -> Iterator[Mapping[str, object]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(f"{path}: reading Parquet needs a package that is not installed: {PARQUET_HINT}")
    import pyarrow.parquet  # noqa: PLC0415  # optional

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet ({type(error).__name__})") from None
