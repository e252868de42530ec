"""From classes to sentences: the hypotheses of a data set, true ones and inverted ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.labels.tree import fill_template
from worker.training.sets import ClassificationSet, ClassWords


@dataclass(frozen=True, slots=True)
class Verbalized:
    """The sentences of one class."""

    label: str
    hypotheses: tuple[str, ...]
    """Each says that a text is of the class: one per template, or a whole one."""
    inverted: tuple[str, ...]
    """Each says that it is not; may be empty."""


def verbalize(table: ClassificationSet, labels: Iterable[str]) -> tuple[Verbalized, ...]:
    """The sentences of every class that is not left out, in the order of `labels`."""
    words = ((label, table.labels.get(label, "")) for label in labels)
    return tuple(_class(table, label, each) for label, each in words if each is not None)


def plain_words(label: str) -> str:
    """A label's name as it stands in a sentence: `card_arrival` is `card arrival`."""
    return " ".join(label.replace("_", " ").replace("-", " ").split()) or label


def hypotheses_by_template(classes: Sequence[Verbalized]) -> tuple[tuple[str, ...], ...]:
    """For each template the hypothesis of each class; a whole hypothesis stands under every template."""
    templates = max((len(each.hypotheses) for each in classes), default=0)
    return tuple(tuple(each.hypotheses[t % len(each.hypotheses)] for each in classes) for t in range(templates))


def _class(table: ClassificationSet, label: str, given: str | ClassWords) -> Verbalized:
    spoken = given if isinstance(given, ClassWords) else ClassWords(words=given or None)
    words = spoken.words or plain_words(label)
    hypotheses = (spoken.hypothesis,) if spoken.hypothesis else _filled(table.templates, words)
    inverted = (spoken.negative,) if spoken.negative else _filled(table.inverted, words)
    # An inverted template around a class that has a hypothesis of its own would deny other words than it uses.
    return Verbalized(label, hypotheses, () if spoken.hypothesis and not spoken.negative else inverted)


def _filled(templates: Sequence[str], words: str) -> tuple[str, ...]:
    return tuple(fill_template(template, words) for template in templates)
