"""From labelled texts to pairs: true hypotheses and false ones in balance, class by class."""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.training.data import NliRow, Row
from worker.training.recipe import ClassificationPart
from worker.training.verbalize import Verbalized

NEAR_CLASSES = 3
"""Among how many classes of similar texts a hard negative is drawn."""
_BUCKETS = 4096
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A premise, a hypothesis, and whether it follows."""

    premise: str
    hypothesis: str
    is_entailment: bool


@dataclass(frozen=True, slots=True)
class _Case:
    """The text of a row with the hypothesis of a class."""

    row: int
    label: int


def pairs_available(rows: int, part: ClassificationPart) -> int:
    """How many pairs so many texts give when each text is true once."""
    return round(rows * (1.0 + part.negatives))


def classification_pairs(
    rows: Sequence[Row], classes: Sequence[Verbalized], part: ClassificationPart, count: int, seed: int
) -> Iterator[LabelledPair]:
    """`count` pairs of a set, the same for the same seed.

    As in Laurer et al. (2023): every text is true once with its class, and every class gets `negatives` times as many
    texts of other classes, so that a hypothesis says nothing about its own chance. Where `count` asks for more than
    that, the texts come again, with other templates and other false partners.
    """
    places = {each.label: number for number, each in enumerate(classes)}
    usable = [row for row in rows if row.label in places]
    labels = np.array([places[row.label] for row in usable], dtype=np.int64)
    if len(set(labels.tolist())) < 2:  # noqa: PLR2004  # a class and another one
        return
    draw = np.random.default_rng(seed)
    near = near_classes([row.text for row in usable], labels, len(classes)) if part.hard_negatives else None
    left = count
    while left > 0:
        cases = _one_round(labels, part, near, draw)
        for place in draw.permutation(len(cases))[:left].tolist():
            case = cases[place]
            is_true = bool(labels[case.row] == case.label)
            yield _worded(usable[case.row].text, classes[case.label], is_true, part.inverted, draw)
        left -= len(cases)


def nli_pairs(rows: Sequence[NliRow], count: int, seed: int) -> Iterator[LabelledPair]:
    """`count` pairs of an NLI set in a drawn order; again from the start where there are fewer."""
    draw = np.random.default_rng(seed)
    left = count if rows else 0
    while left > 0:
        for place in draw.permutation(len(rows))[:left].tolist():
            row = rows[place]
            yield LabelledPair(row.premise, row.hypothesis, row.is_entailment)
        left -= len(rows)


def near_classes(texts: Sequence[str], labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """For each class those whose texts use the most similar words, nearest first; int64 [classes, near]."""
    counts = np.zeros((classes, _BUCKETS))
    documents = np.zeros(_BUCKETS)
    for text, label in zip(texts, labels.tolist(), strict=True):
        buckets = list(_word_buckets(text))
        counts[label, buckets] += 1.0
        documents[buckets] += 1.0
    weighted = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0) * np.log(len(texts) / (1.0 + documents) + 1)
    unit = weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -1.0)
    likeness[:, counts.sum(axis=1) == 0] = -1.0
    return np.argsort(-likeness, axis=1, kind="stable")[:, : min(NEAR_CLASSES, classes - 1)]


def _word_buckets(text: str) -> Iterable[int]:
    # Python's own hash differs from process to process.
    return {zlib.crc32(word.encode()) % _BUCKETS for word in _WORD.findall(text.lower())}


def _one_round(
    labels: npt.NDArray[np.int64],
    part: ClassificationPart,
    near: npt.NDArray[np.int64] | None,
    draw: np.random.Generator,
) -> list[_Case]:
    cases = [_Case(row, label) for row, label in enumerate(labels.tolist())]
    for label in np.unique(labels).tolist():
        others = np.flatnonzero(labels != label)
        wanted = int((labels == label).sum() * part.negatives + draw.random())  # the fraction is drawn for
        hard = int((draw.random(wanted) < part.hard_negatives).sum())
        pool = np.flatnonzero(np.isin(labels, near[label])) if near is not None else others
        pool = pool if pool.size else others
        chosen = [*draw.choice(pool, hard), *draw.choice(others, wanted - hard)]
        cases += [_Case(int(row), label) for row in chosen]
    return cases


def _worded(text: str, said: Verbalized, is_true: bool, inverted: float, draw: np.random.Generator) -> LabelledPair:  # noqa: FBT001  # a fact, not a switch
    denies = bool(said.inverted) and draw.random() < inverted
    sentences = said.inverted if denies else said.hypotheses
    return LabelledPair(text, sentences[int(draw.integers(len(sentences)))], is_true != denies)
