"""What a label schema is: the document, its checks, its digest. Pure."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from worker.documents import MisfitError, Problem, first_problem, key_path
from worker.errors import SchemaError
from worker.labels.parts import (
    STRICT,
    Abstain,
    Calibration,
    Digest,
    Hierarchy,
    Label,
    LongText,
    ShortlistRule,
    Template,
    Words,
    is_template,
)
from worker.labels.tree import LabelTree, fill_template, label_tree
from worker.messages.reference import INLINE, SCHEMA_NAME
from worker.types import JsonValue

__all__ = ["Label", "LabelLimits", "LabelSchema", "fill_template", "is_template", "parse_schema"]

DEFAULT_TEMPLATE = "This example is {}."
MULTI_LABEL_THRESHOLD = 0.5
MOST_LEVELS = 16
"""Labels below each other: a decision takes one stage of scoring per level."""

_Path = tuple[str | int, ...]


class LabelLimits(Protocol):
    """How large a label set may be."""

    @property
    def labels(self) -> int:
        """Most labels of one set."""
        ...

    @property
    def label_bytes(self) -> int:
        """Most UTF-8 bytes of a name, description, hypothesis or template."""
        ...


@dataclass(frozen=True, slots=True)
class DefaultLimits:
    """The limits that hold where nobody set others."""

    labels: int = 1000
    label_bytes: int = 1024


class LabelSchema(BaseModel):
    """A set of labels and how they are decided, under one name and version."""

    model_config = STRICT

    name: Annotated[str, Field(pattern=SCHEMA_NAME)] = Field(description="What bindings and messages call it.")
    version: Annotated[int, Field(ge=0)] = Field(description="Rises with every change; stamped into predictions.")
    description: str | None = Field(default=None, description="For people.")
    multi_label: bool = Field(default=False, description="True: each label is decided by itself.")
    hypothesis_templates: tuple[Template, ...] = Field(
        default=(DEFAULT_TEMPLATE,), min_length=1, description="Sentences with one `{}` each; logits are averaged."
    )
    instruction: Words | None = Field(
        default=None, description="The question put to an instruction model (`engine: t5_rank`); others ignore it."
    )
    labels: tuple[Label, ...] = Field(
        min_length=1,
        description="In order of preference: ties go to the first.",
        json_schema_extra={"uniqueItems": True},
    )
    hierarchy: Hierarchy | None = Field(default=None, description="Only where labels have children; null: defaults.")
    abstain: Abstain | None = Field(default=None, description="Only without `multi_label`.")
    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Most scores to list; null: all.")
    calibration: Calibration | None = Field(default=None, description="Written by `worker calibrate`.")
    long_text: LongText | None = Field(default=None, description="Null: truncate.")
    shortlist: ShortlistRule | None = Field(
        default=None, description="Null: every label is scored. Not with thresholds or children in `multi_label`."
    )
    requires_model: Digest | None = Field(default=None, description="Refuse this schema under any other model.")

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the document as given: as JSON, keys sorted, no white space, no defaults filled in."""
        return digest_of(canonical_json(self.document()))

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @cached_property
    def tree(self) -> LabelTree:
        """The labels as they are scored."""
        top_k = None if self.shortlist is None else self.shortlist.top_k
        return label_tree(self.labels, self.hypothesis_templates, in_stages=not self.multi_label, top_k=top_k)

    @cached_property
    def label_names(self) -> frozenset[str]:
        """Every name that a score may have."""
        return frozenset(label.name for _, label in _labelled(self.labels))

    @classmethod
    def from_canonical(cls, canonical: bytes) -> Self:
        """The schema that a document in `canonical_json` describes.

        Raises:
            pydantic.ValidationError: it describes none.
        """
        schema = cls.model_validate_json(canonical)
        vars(schema)["digest"] = digest_of(canonical)
        return schema

    def document(self) -> dict[str, JsonValue]:
        """What was given, without defaults."""
        return self.model_dump(mode="json", exclude_unset=True)

    def threshold_of(self, label: Label) -> float | None:
        """Least score at which `label` is selected; None where any score will do."""
        if label.threshold is None and self.multi_label:
            return MULTI_LABEL_THRESHOLD
        return label.threshold

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for path, expected in _contradictions(self):
            raise MisfitError(path, expected)
        return self


def parse_schema(document: JsonValue, origin: str, limits: LabelLimits | None = None) -> LabelSchema:
    """The label schema that a document describes. `origin` is where it came from, for the error's message.

    Raises:
        SchemaError: it describes none; names the origin, the key and what was expected, and quotes no value.
    """
    if not isinstance(document, dict):
        raise SchemaError(f"{origin}: expected a mapping with name, version and labels")
    limits = limits or DefaultLimits()
    for expected in _too_many(document.get("labels"), limits):
        raise SchemaError(f"{origin}: labels: {expected}")
    try:
        schema = LabelSchema.from_canonical(canonical_json(document))
    except ValidationError as error:
        raise SchemaError(f"{origin}: {_without_label_names(first_problem(error, LabelSchema))}") from None
    except (ValueError, TypeError, RecursionError):
        raise SchemaError(f"{origin}: expected strings, finite numbers, booleans, lists and mappings") from None
    if schema.name == INLINE:
        raise SchemaError(f"{origin}: name: expected another name; `{INLINE}` is reserved for label sets in messages")
    for path, expected in _excesses(schema, limits):
        raise SchemaError(f"{origin}: {path}: {expected}")
    return schema


def canonical_json(value: JsonValue) -> bytes:
    """`value` as JSON in UTF-8, keys sorted, no white space: what digests are taken of.

    Raises:
        ValueError: a number is not finite, a string is no Unicode, or a value contains itself.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8")


def digest_of(canonical: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(canonical).hexdigest()


def _too_many(labels: JsonValue, limits: LabelLimits) -> Iterator[str]:
    """What is too large about labels that nobody has checked yet: aliases can make them endless."""
    count, open_levels = 0, [(labels, 1)]
    while open_levels:
        siblings, level = open_levels.pop()
        if not isinstance(siblings, list) or not siblings:
            continue
        if level > MOST_LEVELS:
            yield f"expected at most {MOST_LEVELS} levels of `children`, and no label within itself"
            return
        count += len(siblings)
        if count > limits.labels:
            yield f"expected at most {limits.labels} labels"
            return
        open_levels += [(label.get("children"), level + 1) for label in siblings if isinstance(label, dict)]


def _labelled(labels: tuple[Label, ...], path: _Path = ("labels",)) -> Iterator[tuple[_Path, Label]]:
    """Every label, parents before children, and where it stands."""
    for index, label in enumerate(labels):
        yield (*path, index), label
        yield from _labelled(label.children, (*path, index, "children"))


def _contradictions(schema: LabelSchema) -> Iterator[tuple[_Path, str]]:
    """Keys that are each well formed, and do not go together."""
    names: dict[str, _Path] = {}
    for path, label in _labelled(schema.labels):
        first = names.setdefault(label.name, path)
        if first != path:
            yield (*path, "name"), f"expected a unique name; it is that of {key_path(first)}"
        if label.negative is not None and not schema.multi_label:
            yield (*path, "negative"), "expected only with `multi_label: true`"
    if schema.hierarchy is not None and len(names) == len(schema.labels):
        yield ("hierarchy",), "expected only where a label has `children`"
    if schema.abstain is not None:
        if schema.multi_label:
            yield ("abstain",), "expected only without `multi_label`"
        if schema.abstain.label in names:
            yield ("abstain", "label"), "expected a name that is not one of the labels"
    yield from _unlisted(schema)
    if schema.calibration is not None and not schema.calibration.bias.keys() <= names.keys():
        yield ("calibration", "bias"), "expected only names of labels that the schema has"


def _unlisted(schema: LabelSchema) -> Iterator[tuple[_Path, str]]:
    """Keys of labels that mean nothing where a label may go unscored: it is over no threshold, nor is what it holds."""
    if schema.shortlist is None or not schema.multi_label:
        return
    for path, label in _labelled(schema.labels):
        if label.threshold is not None:
            yield (*path, "threshold"), "expected none in a `multi_label` schema with a `shortlist`"
        if label.children:
            yield (*path, "children"), "expected none in a `multi_label` schema with a `shortlist`"


def _excesses(schema: LabelSchema, limits: LabelLimits) -> Iterator[tuple[str, str]]:
    most = f"expected at most {limits.label_bytes} bytes"
    for path, label in _labelled(schema.labels):
        for key in ("name", "description", "hypothesis", "negative"):
            if len((getattr(label, key) or "").encode()) > limits.label_bytes:
                yield key_path((*path, key)), most
    if len((schema.instruction or "").encode()) > limits.label_bytes:
        yield "instruction", most
    for index, template in enumerate(schema.hypothesis_templates):
        if len(template.encode()) > limits.label_bytes:
            yield f"hypothesis_templates.{index}", most


def _without_label_names(problem: Problem) -> Problem:
    """Keys below `bias` are labels, and no label stands in a message."""
    if problem.path.startswith("calibration.bias."):
        return Problem("calibration.bias", problem.expected)
    return problem
