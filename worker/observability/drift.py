"""Whether a label schema is met by other messages than at first: one number for each version.

The number is the population stability index of what was selected, the sum over classes of (q - p) * ln(q / p): p is a
class's share in the first `REFERENCE` predictions under the version, q its share in the latest `RECENT` ones after
them. Classes are the labels that were selected most in the reference, all other labels as one, and "none selected".
A share is (count + 1/2) / (all + classes/2), so that none is zero (Jeffreys' prior).

Formula and the rule of thumb (up to 0.1: as before; above 0.25: look at it): N. Siddiqi, Credit Risk Scorecards, 2006.
Without any drift the expected value is (classes - 1) * (1/REFERENCE + 1/RECENT) (B. Yurdakul, Statistical Properties of
Population Stability Index, 2018): 0.02 with all classes in use, which is why there are no more of them.
"""

import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from worker.messages.reference import INLINE

REFERENCE = 2000
RECENT = 2000
NAMED_CLASSES = 18
"""Labels that are a class of their own."""
MOST_VERSIONS = 32
"""Versions that are kept, those used last: each takes some kilobytes, two megabytes where every label is selected."""

_NONE, _OTHER = 0, 1
_CLASSES = NAMED_CLASSES + 2


class _Version:
    """What was selected under one version, first and lately."""

    def __init__(self) -> None:
        self._predictions = 0
        self._first: Counter[str] = Counter()
        """Label, or "" for none -> how often, until the reference is complete."""
        self._class_of: Mapping[str, int] = {}
        self._reference: list[int] = []
        self._recent: deque[bytes] = deque()
        """The classes of what each prediction selected."""
        self._counts = [0] * _CLASSES

    def note(self, selected: Sequence[str]) -> None:
        if self._predictions < REFERENCE:
            self._first.update(selected or ("",))
            self._predictions += 1
            if self._predictions == REFERENCE:
                self._divide()
            return
        classes = bytes([self._class_of.get(label, _OTHER) for label in selected or ("",)])
        self._recent.append(classes)
        for each in classes:
            self._counts[each] += 1
        if len(self._recent) > RECENT:
            for each in self._recent.popleft():
                self._counts[each] -= 1

    def index(self) -> float | None:
        """None until there are as many recent predictions as are compared."""
        if len(self._recent) < RECENT:
            return None
        used = [n for n in range(_CLASSES) if self._reference[n] or self._counts[n]]
        return stability_index([self._reference[n] for n in used], [self._counts[n] for n in used])

    def _divide(self) -> None:
        """Say which labels are classes of their own."""
        ranking = sorted((label for label in self._first if label), key=lambda label: (-self._first[label], label))
        self._class_of = {"": _NONE} | {label: n + 2 for n, label in enumerate(ranking[:NAMED_CLASSES])}
        self._reference = [0] * _CLASSES
        for label, count in self._first.items():
            self._reference[self._class_of.get(label, _OTHER)] += count
        self._first.clear()


class LabelDrift:
    """A gauge for each version of a label schema. Thread-safe; bounded memory."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        """Nothing has been selected yet."""
        self._name, self._text = name, text
        self._lock = threading.Lock()
        self._versions: OrderedDict[tuple[str, int], _Version] = OrderedDict()
        registry.register(self)

    def note(self, name: str, version: int, selected: Sequence[str]) -> None:
        """One prediction under a version selected these labels; label sets of single messages are left out."""
        if name == INLINE:
            return
        key = (name, version)
        with self._lock:
            kept = self._versions.get(key)
            if kept is None:
                kept = self._versions[key] = _Version()
                if len(self._versions) > MOST_VERSIONS:
                    self._versions.popitem(last=False)
            else:
                self._versions.move_to_end(key)
            kept.note(selected)

    def in_force(self, name: str, version: int | None) -> None:
        """Forget the other versions of a label schema: what holds no more does not drift."""
        with self._lock:
            for key in [key for key in self._versions if key[0] == name and key[1] != version]:
                del self._versions[key]

    def collect(self) -> list[GaugeMetricFamily]:
        """What the registry asks for."""
        family = self.describe()[0]
        with self._lock:
            found = {key: version.index() for key, version in self._versions.items()}
        for (name, version), index in found.items():
            if index is not None:
                family.add_metric([name, str(version)], index)
        return [family]

    def describe(self) -> list[GaugeMetricFamily]:
        """The same without values, for the registry's check of names."""
        return [GaugeMetricFamily(self._name, self._text, labels=("name", "version"))]


def stability_index(first: Sequence[int], later: Sequence[int]) -> float:
    """The population stability index of two counts of the same classes; 0 where their shares are the same."""
    shares = zip(_shares(first), _shares(later), strict=True)
    return math.fsum((q - p) * math.log(q / p) for p, q in shares)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + len(counts) / 2
    return [(count + 0.5) / total for count in counts]
