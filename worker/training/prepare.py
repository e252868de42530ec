"""What a stage of training sees: each set read, capped, mixed and put into pairs, one set in memory at a time."""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from worker.errors import ConfigError
from worker.training.data import Caps, Row, keep_pairs, keep_rows, read_nli, read_rows
from worker.training.mixing import shared_counts
from worker.training.pairs import LabelledPair, classification_pairs, nli_pairs, pairs_available
from worker.training.recipe import ClassificationPart, NliPart, Stage
from worker.training.sets import ClassificationSet, NliSet, SetTable
from worker.training.verbalize import verbalize

Told = Callable[[int, int], None]
"""Told now and then how much is done, and of how much."""
_TOLD_EVERY_PAIRS = 1_000


@dataclass(frozen=True, slots=True)
class SetUse:
    """What a stage takes of one set."""

    name: str
    kind: str
    """`nli` or `classification`."""
    cluster: str
    licence: str
    ship: str
    rows: int
    """Texts or pairs that were kept of its training file."""
    classes: int
    pairs: int
    """Pairs that it gives."""
    left_out: int = 0
    """Texts that stand in a test file too."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What no stage may see."""

    sets: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()

    def leaves(self, table: SetTable) -> SetTable:
        """The table without what is held out.

        Raises:
            ConfigError: a name stands for nothing in the table.
        """
        sets: tuple[ClassificationSet | NliSet, ...] = (*table.classification, *table.nli)
        known = {each.name for each in sets}
        clusters = {each.cluster for each in sets}
        for name, names in (*((name, known) for name in self.sets), *((name, clusters) for name in self.clusters)):
            if name not in names:
                raise ConfigError(f"held out: the table has no {name}; it has {', '.join(sorted(names)[:20])}")
        return SetTable(
            classification=tuple(each for each in table.classification if self._leaves(each)),
            nli=tuple(each for each in table.nli if self._leaves(each)),
        )

    def _leaves(self, each: ClassificationSet | NliSet) -> bool:
        return each.name not in self.sets and each.cluster not in self.clusters


@dataclass(frozen=True, slots=True)
class Source:
    """Where training texts come from, and which must not be among them."""

    folder: Path
    tested: frozenset[bytes] = frozenset()
    """Texts of test files, as `text_key` has them."""

    @classmethod
    def of(cls, table: SetTable, folder: Path) -> "Source":
        """One that keeps the test texts of all classification sets of `table` out; a file that is not there has none.

        Raises:
            ConfigError: a file cannot be read.
        """
        tests = (each for each in table.classification if each.test and (folder / each.test).is_file())
        keys = (text_key(row.text) for each in tests for row in read_rows(folder / (each.test or ""), each))
        return cls(folder, frozenset(keys))

    def rows(self, each: ClassificationSet) -> Iterator[Row]:
        """The training texts of a set, without those of any test."""
        return (row for row in read_rows(_path(self.folder, each), each) if text_key(row.text) not in self.tested)

    def left_out(self, each: ClassificationSet) -> int:
        """How many different training texts of a set stand in a test file."""
        keys = {text_key(row.text) for row in read_rows(_path(self.folder, each), each)} if self.tested else set()
        return len(keys & self.tested)


def text_key(text: str) -> bytes:
    """A short name for a text, the same whatever its case and its white space."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class StageData:
    """The pairs of a stage, made as they are asked for."""

    uses: tuple[SetUse, ...]
    pairs: Callable[[], Iterator[LabelledPair]]


def stage_table(stage: Stage, left: SetTable, table: SetTable) -> SetTable:
    """The sets that `stage` may see: of `table`, what is left of it.

    Pairs that were recast from the task of a classification set come with the classification sets: a stage of NLI alone
    is then one, and models that are kept from different tasks can share it.
    """
    if stage.only == "shippable":
        left = left.shippable()
    if stage.classification is not None:
        return SetTable(classification=left.classification, nli=left.nli if stage.nli else ())
    clusters = table.clusters()
    return SetTable(nli=tuple(each for each in left.nli if each.cluster not in clusters) if stage.nli else ())


def untold(_done: int, _of: int) -> None:
    """Nobody is told."""


def stage_data(stage: Stage, table: SetTable, source: Source, seed: int, told: Told = untold) -> StageData:
    """What `stage` takes of `table`, whose files `source` reads. Reads every file once to count.

    `told` counts the files.

    Raises:
        ConfigError: a file is missing or broken, or nothing is left to train on.
    """
    data = source.folder
    nli = [each for each in table.nli if each.train] if stage.nli else []
    classification = [each for each in table.classification if each.train] if stage.classification else []
    files = len(nli) + len(classification)
    rows: dict[str, int] = {}
    for each in nli:
        rows[each.name] = _nli_rows(each, stage, data, seed)
        told(len(rows), files)
    facts: dict[str, tuple[int, set[str]]] = {}
    for task in classification:
        facts[task.name] = _class_facts(task, stage, source, seed)
        told(len(rows) + len(facts), files)
    sizes = {
        "nli": {name: count for name, count in rows.items() if count},
        "classification": {
            name: pairs_available(texts, stage.classification)
            for name, (texts, labels) in facts.items()
            if stage.classification and len(labels) > 1
        },
    }
    shares = {"nli": stage.nli.share if stage.nli else None, "classification": None}
    if stage.classification is not None:
        shares["classification"] = stage.classification.share
    counts = shared_counts(sizes, stage.pairs, shares, stage.rate_max)
    if not sum(counts.values()):
        raise ConfigError(f"stages: {stage.name}: no set with a training file is left to train on")
    uses = [_use(each, rows[each.name], 2, counts) for each in nli]
    uses += [
        replace(_use(each, rows_kept, len(labels), counts), left_out=source.left_out(each))
        for each, (rows_kept, labels) in zip(classification, facts.values(), strict=True)
    ]

    def pairs() -> Iterator[LabelledPair]:
        for each in nli:
            if counts.get(each.name):
                kept = keep_pairs(read_nli(_path(data, each), each), _nli_part(stage).max_per_set, _seed(seed, each))
                yield from nli_pairs(kept, counts[each.name], _seed(seed, each))
        for task in classification:
            if counts.get(task.name):
                yield from _classification(task, stage, source, counts[task.name], seed)

    return StageData(tuple(use for use in uses if use.pairs), pairs)


def counted(data: StageData, told: Told) -> Iterator[LabelledPair]:
    """The pairs of `data`, and `told` how many there were."""
    total = sum(use.pairs for use in data.uses)
    done = 0
    for done, pair in enumerate(data.pairs(), start=1):
        yield pair
        if done % _TOLD_EVERY_PAIRS == 0:
            told(done, total)
    told(done, total)


def kept_rows(each: ClassificationSet, part: ClassificationPart, source: Source, seed: int) -> list[Row]:
    """The training texts of a set within its caps; the same for the same seed."""
    caps = Caps(part.max_per_class, part.max_per_set)
    return keep_rows(source.rows(each), caps, _seed(seed, each))


def _classification(
    each: ClassificationSet, stage: Stage, source: Source, count: int, seed: int
) -> Iterator[LabelledPair]:
    part = stage.classification or ClassificationPart()
    rows = kept_rows(each, part, source, seed)
    classes = verbalize(each, sorted({row.label for row in rows}))
    return classification_pairs(rows, classes, part, count, _seed(seed, each))


def _nli_rows(each: NliSet, stage: Stage, data: Path, seed: int) -> int:
    return len(keep_pairs(read_nli(_path(data, each), each), _nli_part(stage).max_per_set, _seed(seed, each)))


def _class_facts(each: ClassificationSet, stage: Stage, source: Source, seed: int) -> tuple[int, set[str]]:
    rows = kept_rows(each, stage.classification or ClassificationPart(), source, seed)
    return len(rows), {row.label for row in rows}


def _use(each: ClassificationSet | NliSet, rows: int, classes: int, counts: dict[str, int]) -> SetUse:
    kind = "nli" if isinstance(each, NliSet) else "classification"
    licence = each.licence
    return SetUse(each.name, kind, each.cluster, licence.name, licence.ship, rows, classes, counts.get(each.name, 0))


def _nli_part(stage: Stage) -> NliPart:
    return stage.nli or NliPart()


def _path(data: Path, each: ClassificationSet | NliSet) -> Path:
    return data / (each.train or "")


def _seed(seed: int, each: ClassificationSet | NliSet) -> int:
    """A seed of its own for each set, so that leaving one out changes no other."""
    return zlib.crc32(f"{seed}/{each.name}".encode())
