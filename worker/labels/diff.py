"""What changes from one label schema to another, in the words of those who write them. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from worker.types import JsonValue

_LABEL_KEYS_OF_THEIR_OWN = frozenset({"name", "children"})
_KEYS_OF_THEIR_OWN = frozenset({"name", "version", "labels", "hypothesis_templates", "multi_label"})

Document = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changes."""

    change: Literal["added", "removed", "changed", "moved"]
    subject: str
    """`label refund`, `threshold of label bug`, `template`, `mode`, …"""
    before: JsonValue = None
    after: JsonValue = None

    def __str__(self) -> str:
        """One line: a mark, the subject, and from what to what."""
        if self.change == "added":
            return f"+ {self.subject}{_colon(self.after)}"
        if self.change == "removed":
            return f"- {self.subject}{_colon(self.before)}"
        if self.change == "moved":
            return f"~ {self.subject}"
        return f"~ {self.subject}: {_shown(self.before)} -> {_shown(self.after)}"


def differences(before: Document, after: Document) -> tuple[Difference, ...]:
    """What changes from the document `before` to `after`, both of which describe label schemas; versions left out."""
    return tuple(_differences(before, after))


def _differences(before: Document, after: Document) -> Iterator[Difference]:
    modes = [_mode(document) for document in (before, after)]
    if modes[0] != modes[1]:
        yield Difference("changed", "mode", modes[0], modes[1])
    yield from _templates(before, after)
    yield from _labels(_tree(before), _tree(after))
    for key in sorted((before.keys() | after.keys()) - _KEYS_OF_THEIR_OWN):
        if before.get(key) != after.get(key):
            yield Difference("changed", key, before.get(key), after.get(key))


def _templates(before: Document, after: Document) -> Iterator[Difference]:
    old, new = _strings(before.get("hypothesis_templates")), _strings(after.get("hypothesis_templates"))
    for template in old:
        if template not in new:
            yield Difference("removed", "template", before=template)
    for template in new:
        if template not in old:
            yield Difference("added", "template", after=template)


def _labels(old: Mapping[str, Document], new: Mapping[str, Document]) -> Iterator[Difference]:
    for path, label in old.items():
        if path not in new:
            yield Difference("removed", f"label {path}", before=_about(label))
    for path, label in new.items():
        if path not in old:
            yield Difference("added", f"label {path}", after=_about(label))
            continue
        for key in sorted((old[path].keys() | label.keys()) - _LABEL_KEYS_OF_THEIR_OWN):
            if old[path].get(key) != label.get(key):
                yield Difference("changed", f"{key} of label {path}", old[path].get(key), label.get(key))
    kept = [path for path in old if path in new]
    if kept != [path for path in new if path in old]:
        yield Difference("moved", "order of the labels: ties go to the first")


def _tree(document: Document, above: str = "", key: str = "labels") -> dict[str, Document]:
    """Every label by its path, `billing / refund`, in the order of the document."""
    found: dict[str, Document] = {}
    labels = document.get(key)
    for label in labels if isinstance(labels, list) else ():
        if isinstance(label, dict):
            path = f"{above}{label.get('name')}"
            found[path] = label
            found |= _tree(label, f"{path} / ", "children")
    return found


def _about(label: Document) -> JsonValue:
    return {key: value for key, value in label.items() if key not in _LABEL_KEYS_OF_THEIR_OWN and value is not None}


def _mode(document: Document) -> str:
    return "multi" if document.get("multi_label") else "single"


def _strings(value: JsonValue) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []


def _colon(value: JsonValue) -> str:
    return f": {_shown(value)}" if value not in (None, {}) else ""


def _shown(value: JsonValue) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
