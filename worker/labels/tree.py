"""The labels of a schema as they are scored: flat or as a tree, each with its hypotheses."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from worker.labels.parts import Label


@dataclass(frozen=True, slots=True)
class Node:
    """A label and its place."""

    label: Label
    parent: int | None
    children: tuple[int, ...]
    hypotheses: tuple[str, ...]
    """One per template; a single one where the label brings a whole hypothesis."""


@dataclass(frozen=True, slots=True)
class LabelPairs:
    """The hypotheses of one label, as indices into those of its stage."""

    positive: tuple[int, ...]
    """One per template; a single one where the label brings a whole hypothesis."""
    negative: int | None
    """The contrasting hypothesis, where the label has one."""


@dataclass(frozen=True, slots=True, eq=False)
class TreeStage:
    """Labels that are scored together."""

    nodes: tuple[int, ...]
    """The labels, as indices into the tree."""
    hypotheses: tuple[str, ...]
    """Each different hypothesis once: labels that share one share its pair."""
    labels: tuple[LabelPairs, ...]
    """In the order of `nodes`."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelTree:
    """All labels of a schema, parents before children, in the order in which they are listed.

    A message is scored in stages. The first one holds all labels, or the roots alone where the best of siblings
    decides whose children are looked at next.
    """

    nodes: tuple[Node, ...]
    first: tuple[int, ...]
    """The labels of the first stage."""
    is_flat: bool
    """Whether no label has children."""
    pairs: int
    """Pairs, per window, that scoring every label would cost."""
    most_pairs: int
    """Pairs, per window, that a message costs at most."""
    _stages: dict[tuple[int, ...], TreeStage] = field(default_factory=dict, repr=False)

    def stage(self, nodes: tuple[int, ...]) -> TreeStage:
        """The stage that scores `nodes`, `first` or what is `after` a node: worked out once, for every message."""
        stage = self._stages.get(nodes)
        if stage is None:  # two threads may both make it: they make the same
            stage = self._stages[nodes] = self.part(nodes)
        return stage

    def part(self, nodes: tuple[int, ...]) -> TreeStage:
        """What scores some of the labels of a stage, as chosen for one message."""
        return _stage(self.nodes, nodes)

    @property
    def is_staged(self) -> bool:
        """Whether a stage may follow the first one."""
        return len(self.first) < len(self.nodes)

    def after(self, node: int) -> tuple[int, ...]:
        """The labels of the stage that follows where `node` was the best; none where that is the end."""
        return self.nodes[node].children if self.is_staged else ()

    def path(self, node: int) -> tuple[str, ...]:
        """Names from a root down to `node`."""
        names: list[str] = []
        step: int | None = node
        while step is not None:
            names.append(self.nodes[step].label.name)
            step = self.nodes[step].parent
        return tuple(reversed(names))

    def hypotheses(self) -> Iterator[str]:
        """Every hypothesis of every label; one that several share comes several times."""
        yield from _hypotheses_of(self.nodes)


def label_tree(
    labels: tuple[Label, ...], templates: tuple[str, ...], *, in_stages: bool, top_k: int | None = None
) -> LabelTree:
    """The tree of `labels`; with `in_stages` siblings are scored only where their parent was the best.

    With `top_k` at most so many labels of a stage are scored.
    """
    nodes: list[Node] = []

    def add(label: Label, parent: int | None) -> int:
        place = len(nodes)
        nodes.append(Node(label, parent, (), _hypotheses(label, templates)))
        children = tuple(add(child, place) for child in label.children)
        nodes[place] = Node(label, parent, children, nodes[place].hypotheses)
        return place

    roots = tuple(add(label, None) for label in labels)
    first = roots if in_stages else tuple(range(len(nodes)))
    stages = [first, *(node.children for node in nodes if in_stages and node.children)]
    pairs = sum(_pairs(nodes, stage) for stage in stages)
    most = _most_pairs(nodes, first, top_k) if in_stages else _most_of_stage(nodes, first, top_k)
    return LabelTree(tuple(nodes), first, len(roots) == len(nodes), pairs, most)


def fill_template(template: str, words: str) -> str:
    """The hypothesis that `template` makes of a label's words, by replacement: braces in `words` stay as they are."""
    return template.replace("{}", words)


def _stage(tree: tuple[Node, ...], nodes: tuple[int, ...]) -> TreeStage:
    index: dict[str, int] = {}
    labels = []
    for node in (tree[place] for place in nodes):
        positive = tuple(index.setdefault(hypothesis, len(index)) for hypothesis in node.hypotheses)
        negative = node.label.negative
        labels.append(LabelPairs(positive, None if negative is None else index.setdefault(negative, len(index))))
    return TreeStage(nodes, tuple(index), tuple(labels))


def _hypotheses(label: Label, templates: tuple[str, ...]) -> tuple[str, ...]:
    if label.hypothesis is not None:
        return (label.hypothesis,)
    return tuple(fill_template(template, label.description or label.name) for template in templates)


def _hypotheses_of(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        yield from node.hypotheses
        if node.label.negative is not None:
            yield node.label.negative


def _pairs(nodes: list[Node], stage: tuple[int, ...]) -> int:
    return len(set(_hypotheses_of(nodes[place] for place in stage)))


def _most_pairs(nodes: list[Node], stage: tuple[int, ...], top_k: int | None) -> int:
    below = max((_most_pairs(nodes, nodes[place].children, top_k) for place in stage), default=0)
    return _most_of_stage(nodes, stage, top_k) + below


def _most_of_stage(nodes: list[Node], stage: tuple[int, ...], top_k: int | None) -> int:
    """Pairs, per window, of the `top_k` labels of `stage` that cost most."""
    pairs = _pairs(nodes, stage)
    if top_k is None or top_k >= len(stage):
        return pairs
    costs = sorted((_pairs(nodes, (place,)) for place in stage), reverse=True)
    return min(pairs, sum(costs[:top_k]))
