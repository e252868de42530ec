"""What docs/label-schemas.md says of scores, in plain Python: slow, and written without the pipeline.

It reads the document itself, encodes every pair by the tokenizer's own rule, scores one pair at a time, and scores all
labels of a hierarchy, whatever the worker leaves out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from worker.engines.base import Engine
from worker.types import Batch, PairRef

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a prediction should say. `scores` are of all labels, those that a descent never asks for included."""

    label: str | None
    selected: frozenset[str]
    scores: Mapping[str, float]
    asked: frozenset[str]
    """The labels that a single-label descent has to score."""
    listed: tuple[str, ...]
    """By falling score, cut to `top_k`, selected ones always among them."""
    paths: Mapping[str, tuple[str, ...] | None]
    """Of every label that is listed; None where it is not selected, or no label has children."""
    spread: float | None
    """Widest difference that a single template instead of another one would make to a label among its siblings."""


class ByHand:
    """The decision about a text, from the words of a document."""

    def __init__(self, document: Document, tokenizer: Tokenizer, engine: Engine) -> None:
        self.document, self.tokenizer, self.engine = document, tokenizer, engine
        self.is_multi = bool(document.get("multi_label", False))
        self.templates: Sequence[str] = document.get("hypothesis_templates", ["This example is {}."])
        calibration = document.get("calibration") or {}
        holds = calibration.get("model") == engine.info.stamp.digest
        self.temperature = calibration.get("temperature", 1.0) if holds else 1.0
        self.bias = calibration.get("bias", {}) if holds else {}
        self.scores: dict[str, float] = {}
        self.parents: dict[str, str | None] = {}
        self.spreads: dict[str, float] = {}

    def decide(self, text: str) -> Expected:
        self.scores, self.parents, self.spreads = {}, {}, {}
        self._score(text, self.document["labels"], None)
        if not self.is_multi:
            return self._descend(self.scores)
        over = {name for name, score in self.scores.items() if score >= self._threshold(name)}
        return self._expected(None, frozenset(self._with_ancestors(over, self.parents)), frozenset(self.scores))

    def _expected(self, label: str | None, selected: frozenset[str], asked: frozenset[str]) -> Expected:
        ranking = sorted(asked, key=lambda name: -self.scores[name])
        kept = {*ranking[: self.document.get("top_k") or len(ranking)], *selected}
        listed = tuple(name for name in ranking if name in kept)
        is_flat = set(self.parents.values()) == {None}
        paths = {name: self._path(name) if name in selected and not is_flat else None for name in listed}
        spreads = [self.spreads[name] for name in asked if name in self.spreads]
        return Expected(label, selected, self.scores, asked, listed, paths, max(spreads, default=None))

    def _path(self, name: str) -> tuple[str, ...]:
        parent = self.parents[name]
        return (name,) if parent is None else (*self._path(parent), name)

    def _score(self, text: str, siblings: Sequence[Document], parent: str | None) -> None:
        above = 1.0 if parent is None else self.scores[parent]
        by_template = [self._shares(text, siblings, [template]) for template in self.templates]
        for place, (label, share) in enumerate(
            zip(siblings, self._shares(text, siblings, self.templates), strict=True)
        ):
            self.scores[label["name"]] = share * above
            self.parents[label["name"]] = parent
            if len(self.templates) > 1 and not all(each.get("hypothesis") for each in siblings):
                shares = [each[place] for each in by_template]
                self.spreads[label["name"]] = max(shares) - min(shares)
        for label in siblings:
            if label.get("children"):
                self._score(text, label["children"], label["name"])

    def _shares(self, text: str, siblings: Sequence[Document], templates: Sequence[str]) -> list[float]:
        """What each of `siblings` has of 1, or has by itself, where `templates` are those of the document."""
        alone = self.is_multi or len(siblings) == 1
        evidence = [self._evidence(text, label, templates, alone=alone) for label in siblings]
        bias = [self.bias.get(label["name"], 0.0) for label in siblings]
        calibrated = [z / self.temperature + b for z, b in zip(evidence, bias, strict=True)]
        if alone:
            return [1 / (1 + math.exp(-z)) for z in calibrated]
        total = math.fsum(math.exp(z) for z in calibrated)
        return [math.exp(z) / total for z in calibrated]

    def _evidence(self, text: str, label: Document, templates: Sequence[str], *, alone: bool) -> float:
        """Templates averaged within each window, then the best window, or their mean."""
        own = label.get("hypothesis")
        filling = label.get("description") or label["name"]
        hypotheses = [own] if own else [template.replace("{}", filling) for template in templates]
        of_windows = []
        for window in self._windows(text):
            logits = [self._logits(window, hypothesis) for hypothesis in hypotheses]
            entailment = math.fsum(row[0] for row in logits) / len(logits)
            against = math.fsum(row[1] for row in logits) / len(logits) if alone else 0.0
            if label.get("negative"):
                against = self._logits(window, label["negative"])[0]
            of_windows.append(entailment - against)
        long_text = self.document.get("long_text") or {}
        return math.fsum(of_windows) / len(of_windows) if long_text.get("aggregate") == "mean" else max(of_windows)

    def _windows(self, text: str) -> list[list[int]]:
        ids = self._ids(text)
        long_text = self.document.get("long_text") or {}
        if long_text.get("strategy") != "windows":
            return [ids]
        size = self.engine.info.max_pair_tokens - 3 - max(len(self._ids(h)) for h in self._all_hypotheses())
        if len(ids) <= size:
            return [ids]
        overlap = min(long_text.get("overlap_tokens", 32), size - 1)
        starts = [0]
        while starts[-1] + size < len(ids):
            starts.append(min(starts[-1] + size - overlap, len(ids) - size))
        return [ids[start : start + size] for start in starts]

    def _all_hypotheses(self) -> list[str]:
        found: list[str] = []
        waiting = list(self.document["labels"])
        while waiting:
            label = waiting.pop()
            waiting += label.get("children", [])
            filling = label.get("description") or label["name"]
            found += (
                [label["hypothesis"]] if label.get("hypothesis") else [t.replace("{}", filling) for t in self.templates]
            )
            found += [label["negative"]] if label.get("negative") else []
        return found

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _logits(self, premise: list[int], hypothesis: str) -> list[float]:
        """`[CLS] premise [SEP] hypothesis [SEP]`, the premise cut to what is left."""
        second = self._ids(hypothesis)
        first = premise[: self.engine.info.max_pair_tokens - 3 - len(second)]
        cls, sep = self.tokenizer.token_to_id("[CLS]"), self.tokenizer.token_to_id("[SEP]")
        ids = np.array([cls, *first, sep, *second, sep], np.int32)
        types = np.array([0] * (len(first) + 2) + [1] * (len(second) + 1), np.int32)
        batch = Batch((PairRef(0, 0),), ids, types, np.array([len(ids)], np.int32))
        return [float(each) for each in self.engine.score(batch).logits[0]]

    def _label(self, name: str) -> Document:
        waiting = list(self.document["labels"])
        while waiting:
            label: Document = waiting.pop()
            if label["name"] == name:
                return label
            waiting += label.get("children", [])
        raise KeyError(name)

    def _threshold(self, name: str) -> float:
        given = self._label(name).get("threshold")
        return (0.5 if self.is_multi else 0.0) if given is None else given

    def _with_ancestors(self, names: set[str], parents: Mapping[str, str | None]) -> set[str]:
        found = set(names)
        for name in names:
            step = parents[name]
            while step is not None:
                found.add(step)
                step = parents[step]
        return found

    def _descend(self, scores: Mapping[str, float]) -> Expected:
        is_flat = not any(label.get("children") for label in self.document["labels"])
        open_above = (self.document.get("hierarchy") or {}).get("open_above", 0.2)
        siblings, product = self.document["labels"], 1.0
        winner, margin, asked = None, None, set[str]()
        while siblings:
            names = [label["name"] for label in siblings]
            asked |= set(names)
            best = max(names, key=lambda name: scores[name])  # the first of equals
            if (not is_flat and scores[best] / product < open_above) or scores[best] < self._threshold(best):
                break
            others = [scores[name] for name in names if name != best]
            margin = (scores[best] - max(others)) / product if others else None
            winner, product = best, scores[best]
            siblings = self._label(best).get("children", [])
        abstain = self.document.get("abstain") or {}
        if winner is not None and (
            scores[winner] < abstain.get("below", 0.0) or (margin is not None and margin < abstain.get("margin", 0.0))
        ):
            winner = None
        selected = frozenset() if winner is None else frozenset({winner})
        return self._expected(abstain.get("label") if winner is None else winner, selected, frozenset(asked))
