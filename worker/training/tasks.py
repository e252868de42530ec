"""What is evaluated: test sets of a table, and sets in the format of BTZSC."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import ConfigError
from worker.labels.schema import LabelSchema, parse_schema
from worker.training.data import Row, read_objects, read_rows, stratified
from worker.training.sets import ClassificationSet, ClassWords
from worker.training.verbalize import plain_words
from worker.types import JsonValue

MANY_CLASSES: Final = 50
UNKNOWN_CLUSTER: Final = "unknown"
"""Of a set that no table tells the task of: no figure on it is called zero-shot."""
BTZSC_CLUSTERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("amazonpolarity", "imdb", "appreviews", "yelpreviews", "rottentomatoes"), "sentiment"),
    "financialphrasebank": "sentiment",
    **dict.fromkeys(("emotiondair", "empathetic"), "emotion"),
    **dict.fromkeys(("banking77", "massive"), "intent"),
    **dict.fromkeys(("agnews", "yahootopics", "manifesto", "capsotu"), "topic"),
    "trueteacher": "factuality",
    **dict.fromkeys(("biasframes_intent", "biasframes_offensive", "biasframes_sex"), "toxicity"),
    **dict.fromkeys(("wikitoxic_toxicaggregated", "wikitoxic_obscene", "wikitoxic_threat"), "toxicity"),
    "wikitoxic_insult": "toxicity",
}
"""The sets of BTZSC (package btzsc 0.1.2) by what a model has to know, not by its four task families: a model that saw
one toxicity set has not been kept from the others."""
_SUFFIXES: Final = (".jsonl.gz", ".jsonl", ".csv.gz", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many texts of a set are taken: the same ones for the same seed."""

    texts: int = 200
    texts_of_many_classes: int = 60
    """Of a set with more than 50 classes: its pairs are many."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A test set, ready to be scored."""

    name: str
    cluster: str
    schema: LabelSchema
    """One label a class, one template or several."""
    rows: tuple[Row, ...]
    """Labels are names of the schema's."""
    rows_in_file: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The names, in the order of the schema."""
        return tuple(label.name for label in self.schema.labels)


def table_task(table: ClassificationSet, data: Path, sampling: Sampling) -> Task | None:
    """The test set of an entry of the table; None where it has none.

    Raises:
        ConfigError: the file is missing or broken.
    """
    if table.test is None:
        return None
    rows = list(read_rows(data / table.test, table))
    names = sorted({row.label for row in rows} | {name for name, words in table.labels.items() if words is not None})
    labels = [_label(name, table.labels.get(name) or "") for name in names]
    return _task(table.name, table.cluster, (labels, list(table.templates)), rows, sampling)


def btzsc_tasks(folder: Path, sampling: Sampling, entailment: int = 1) -> Iterator[Task]:
    """Every set below `folder`: files NAME.jsonl, NAME.csv or NAME.parquet with columns text, hypothesis and labels.

    Each text comes once with each hypothesis; `labels` is `entailment` at the true one. A set that BTZSC does not have
    is of an unknown cluster.

    Raises:
        ConfigError: there is none, or a text has not exactly one true hypothesis.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.name.endswith(_SUFFIXES)]
    if not files:
        raise ConfigError(f"{folder}: no data sets; expected files with columns text, hypothesis and labels")
    for file in files:
        name = _set_name(file, folder)
        rows, hypotheses = _ungrouped(file, entailment)
        labels: list[JsonValue] = [{"name": each, "hypothesis": each} for each in hypotheses]
        yield _task(name, _btzsc_cluster(name), (labels, ["{}"]), rows, sampling)


def plain_name(name: str) -> str:
    """Names as people vary them: `rotten_tomatoes` and `rottentomatoes` are one set."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _btzsc_cluster(name: str) -> str:
    by_plain_name = {plain_name(each): cluster for each, cluster in BTZSC_CLUSTERS.items()}
    return by_plain_name.get(plain_name(name), UNKNOWN_CLUSTER)


def _task(
    name: str, cluster: str, words: tuple[list[JsonValue], list[str]], rows: list[Row], sampling: Sampling
) -> Task:
    labels, templates = words
    most = sampling.texts if len(labels) <= MANY_CLASSES else min(sampling.texts, sampling.texts_of_many_classes)
    document: dict[str, JsonValue] = {"name": "evaluate", "version": 0, "labels": labels}
    schema = parse_schema({**document, "hypothesis_templates": [*templates]}, name)
    return Task(name, cluster, schema, tuple(stratified(rows, most, sampling.seed)), len(rows))


def _label(name: str, given: str | ClassWords) -> JsonValue:
    spoken = given if isinstance(given, ClassWords) else ClassWords(words=given or None)
    if spoken.hypothesis is not None:
        return {"name": name, "hypothesis": spoken.hypothesis}
    return {"name": name, "description": spoken.words or plain_words(name)}


def _set_name(file: Path, folder: Path) -> str:
    """`agnews` for `agnews.jsonl`, `agnews.test.csv` and `agnews/test-00000-of-00001.parquet`."""
    parts = file.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else file.name.split(".")[0]


def _ungrouped(file: Path, entailment: int) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    hypotheses: dict[str, None] = {}
    text, seen, true = None, set[str](), list[str]()
    for row in read_objects(file):
        if not {"text", "hypothesis", "labels"} <= row.keys():
            raise ConfigError(f"{file}: expected the columns text, hypothesis and labels")
        said = str(row["hypothesis"])
        if text is not None and (row["text"] != text or said in seen):
            rows.append(Row(text, _only(true, file)))
            seen, true = set(), []
        text = str(row["text"])
        seen.add(said)
        hypotheses[said] = None
        if str(row["labels"]) == str(entailment):
            true.append(said)
    if text is not None:
        rows.append(Row(text, _only(true, file)))
    return rows, list(hypotheses)


def _only(true: list[str], file: Path) -> str:
    if len(true) != 1:
        raise ConfigError(f"{file}: a text has {len(true)} true hypotheses, expected one; see --btzsc-entailment")
    return true[0]
