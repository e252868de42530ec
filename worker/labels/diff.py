"""What changes from one label schema to another, in the words of those who write them. Pure."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from worker.labels.parts import Abstain, Calibration, Hierarchy, Label, LongText, ShortlistRule
from worker.labels.schema import DEFAULT_TEMPLATE, MULTI_LABEL_THRESHOLD, LabelSchema
from worker.types import JsonValue

_LABEL_KEYS_OF_THEIR_OWN = frozenset({"name", "children"})
_KEYS_OF_THEIR_OWN = frozenset({"name", "version", "labels", "hypothesis_templates", "multi_label"})
_SECTIONS: Mapping[str, type[BaseModel]] = {
    "abstain": Abstain,
    "calibration": Calibration,
    "hierarchy": Hierarchy,
    "long_text": LongText,
    "shortlist": ShortlistRule,
}
_TOP = "the top"

Document = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that changes."""

    change: Literal["added", "removed", "changed", "moved"]
    subject: str
    """`label refund`, `threshold of label bug`, `template`, `mode`, …"""
    before: JsonValue = None
    after: JsonValue = None
    default: JsonValue = None
    """What holds where nothing is said; None where that is nothing, or means nothing here."""

    def __str__(self) -> str:
        """One line: a mark, the subject, and from what to what."""
        if self.change == "added":
            return f"+ {self.subject}{_colon(self.after)}"
        if self.change == "removed":
            return f"- {self.subject}{_colon(self.before)}"
        if self.change == "moved":
            where = "" if self.before is None else f": moved from {_shown(self.before)} to {_shown(self.after)}"
            return f"~ {self.subject}{where}"
        before, after = (_shown(each) + self._note(each) for each in (self.before, self.after))
        return f"~ {self.subject}: {before} -> {after}"

    def _note(self, value: JsonValue) -> str:
        return " (default)" if self.default is not None and value == self.default else ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A label, and where it stands."""

    path: str
    """`billing / refund`."""
    parent: str
    label: Document


def differences(before: Document, after: Document) -> tuple[Difference, ...]:
    """What changes from the document `before` to `after`, both of which describe label schemas; versions left out.

    What a document does not say has its default: saying the same is no difference.
    """
    return tuple(_differences(before, after))


def _differences(before: Document, after: Document) -> Iterator[Difference]:
    modes = [_mode(document) for document in (before, after)]
    if modes[0] != modes[1]:
        yield Difference("changed", "mode", modes[0], modes[1])
    yield from _templates(before, after)
    threshold = MULTI_LABEL_THRESHOLD if modes == ["multi", "multi"] else None
    yield from _labels(_places(before), _places(after), threshold)
    old, new, defaults = _settings(before), _settings(after), _settings({})
    for key in sorted(old.keys() | new.keys()):
        default = defaults.get(key)
        values = [settings.get(key, default) for settings in (old, new)]
        if values[0] != values[1]:
            yield Difference("changed", _subject(key), values[0], values[1], default)


def _templates(before: Document, after: Document) -> Iterator[Difference]:
    old, new = (_strings(document.get("hypothesis_templates")) for document in (before, after))
    if before and after:
        old, new = (templates or [DEFAULT_TEMPLATE] for templates in (old, new))
    for template in old:
        if template not in new:
            yield Difference("removed", "template", before=template)
    for template in new:
        if template not in old:
            yield Difference("added", "template", after=template)


def _labels(old: Mapping[str, _Place], new: Mapping[str, _Place], threshold: float | None) -> Iterator[Difference]:
    for name, place in old.items():
        if name not in new:
            yield Difference("removed", f"label {place.path}", before=_about(place.label))
    for name, place in new.items():
        if name not in old:
            yield Difference("added", f"label {place.path}", after=_about(place.label))
            continue
        if old[name].parent != place.parent:
            yield Difference("moved", f"label {name}", old[name].parent or _TOP, place.parent or _TOP)
        yield from _one_label(old[name].label, place, threshold)
    for parent in {place.parent: None for place in new.values()}:
        orders = [[name for name in each if _stays(name, parent, old, new)] for each in (old, new)]
        if orders[0] != orders[1]:
            below = f" below {parent}" if parent else ""
            yield Difference("moved", f"order of the labels{below}: ties go to the first")


def _one_label(old: Document, place: _Place, threshold: float | None) -> Iterator[Difference]:
    new = place.label
    for key in sorted((old.keys() | new.keys() | Label.model_fields.keys()) - _LABEL_KEYS_OF_THEIR_OWN):
        default: JsonValue = threshold if key == "threshold" else None
        values = [default if (value := label.get(key)) is None else value for label in (old, new)]
        if values[0] != values[1]:
            yield Difference("changed", f"{key} of label {place.path}", values[0], values[1], default)


def _stays(name: str, parent: str, old: Mapping[str, _Place], new: Mapping[str, _Place]) -> bool:
    return name in old and name in new and old[name].parent == new[name].parent == parent


def _places(document: Document) -> dict[str, _Place]:
    """Every label by its name, parents first, in the order of the document; one that stands twice by its path."""
    found: dict[str, _Place] = {}
    for place in _walk(document.get("labels")):
        name = str(place.label.get("name"))
        found[place.path if name in found else name] = place
    return found


def _walk(labels: JsonValue, above: str = "", parent: str = "") -> Iterator[_Place]:
    for label in labels if isinstance(labels, list) else ():
        if isinstance(label, dict):
            name = str(label.get("name"))
            yield _Place(f"{above}{name}", parent, label)
            yield from _walk(label.get("children"), f"{above}{name} / ", name)


def _settings(document: Document) -> dict[str, JsonValue]:
    """Everything but labels, templates and mode, by `key` or `section.key`, with its default where it is not said."""
    found: dict[str, JsonValue] = {}
    for key in (LabelSchema.model_fields.keys() | document.keys()) - _KEYS_OF_THEIR_OWN:
        value = document.get(key)
        section = value if isinstance(value, dict) else {}
        if key not in _SECTIONS or (value is not None and not isinstance(value, dict)):
            found[key] = value
            continue
        for name, field in _SECTIONS[key].model_fields.items():
            default = None if field.default is PydanticUndefined else field.default
            found[f"{key}.{name}"] = section.get(name, default)
        bias = found.pop("calibration.bias", None)
        found |= {f"calibration.bias.{label}": each for label, each in bias.items()} if isinstance(bias, dict) else {}
    return found


def _subject(key: str) -> str:
    bias, label = "calibration.bias.", key.removeprefix("calibration.bias.")
    return f"bias of label {label}" if key.startswith(bias) else key


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
