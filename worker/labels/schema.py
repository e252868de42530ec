"""What a label schema is: the document, its checks, its digest. Pure."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from worker.documents import MisfitError, Problem, first_problem
from worker.errors import SchemaError
from worker.messages.reference import INLINE, SCHEMA_NAME
from worker.types import JsonValue

DEFAULT_TEMPLATE = "This example is {}."
MULTI_LABEL_THRESHOLD = 0.5
_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)
_NOT_BUILT = ("hierarchy", "shortlist")


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


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a string that is not blank")
    return text


def _is_template(text: str) -> str:
    if not is_template(text):
        raise ValueError("expected exactly one {} and no other brace")
    return text


Words = Annotated[str, AfterValidator(_not_blank)]
Template = Annotated[str, AfterValidator(_is_template)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Label(BaseModel):
    """One label, and how it is put to the model."""

    model_config = _STRICT

    name: Words = Field(description="What predictions call it; unique in its schema.")
    description: Words | None = Field(default=None, description="Fills the template instead of the name.")
    hypothesis: Words | None = Field(default=None, description="A whole hypothesis, used instead of the templates.")
    negative: Words | None = Field(default=None, description="The opposite hypothesis; only with `multi_label`.")
    threshold: Probability | None = Field(
        default=None, description="Least score at which it is selected; null: 0.5 with `multi_label`, else none."
    )


class Abstain(BaseModel):
    """When a single-label prediction selects nothing."""

    model_config = _STRICT

    below: Probability | None = Field(default=None, description="Abstain where the best score is lower.")
    margin: Probability | None = Field(default=None, description="Abstain where the best two are closer than this.")
    label: Words | None = Field(default=None, description="What `label` says then; never scored, never selected.")


class Calibration(BaseModel):
    """Corrections of the scores under one model, written by a command and not by hand."""

    model_config = _STRICT

    model: Digest = Field(description="Digest of the model that they hold for; ignored under any other.")
    temperature: Annotated[float, Field(gt=0.0)] = Field(default=1.0, description="Divides every logit.")
    bias: dict[str, float] = Field(default_factory=dict, description="Added to the logit of a label, by its name.")


class LongText(BaseModel):
    """What happens to a text that is longer than the model takes."""

    model_config = _STRICT

    strategy: Literal["truncate"] = Field(default="truncate", description="`truncate` cuts the text, never the label.")


class LabelSchema(BaseModel):
    """A set of labels and how they are decided, under one name and version."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=SCHEMA_NAME)] = Field(description="What bindings and messages call it.")
    version: Annotated[int, Field(ge=0)] = Field(description="Rises with every change; stamped into predictions.")
    description: str | None = Field(default=None, description="For people.")
    multi_label: bool = Field(default=False, description="True: each label is decided by itself.")
    hypothesis_templates: tuple[Template, ...] = Field(
        default=(DEFAULT_TEMPLATE,), min_length=1, description="Sentences with one `{}` each; logits are averaged."
    )
    labels: tuple[Label, ...] = Field(min_length=1, description="In order of preference: ties go to the first.")
    abstain: Abstain | None = Field(default=None, description="Only without `multi_label`.")
    top_k: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Most scores to list; null: all.")
    calibration: Calibration | None = Field(default=None, description="Written by `worker calibrate`.")
    long_text: LongText | None = Field(default=None, description="Null: truncate.")
    requires_model: Digest | None = Field(default=None, description="Refuse this schema under any other model.")

    _digest: str = PrivateAttr(default="")

    @property
    def digest(self) -> str:
        """`sha256:…` of the document as given: as JSON, keys sorted, no white space, no defaults filled in."""
        return self._digest or digest_of(canonical_json(self.document()))

    @property
    def reference(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @classmethod
    def from_canonical(cls, canonical: bytes) -> Self:
        """The schema that a document in `canonical_json` describes.

        Raises:
            pydantic.ValidationError: it describes none.
        """
        schema = cls.model_validate_json(canonical)
        schema._digest = digest_of(canonical)  # noqa: SLF001 - of this very class
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
    for path in _not_built_yet(document):
        raise SchemaError(f"{origin}: {path}: this version of the worker does not have it; remove the key")
    try:
        schema = LabelSchema.from_canonical(canonical_json(document))
    except ValidationError as error:
        raise SchemaError(f"{origin}: {_without_label_names(first_problem(error))}") from None
    except (ValueError, TypeError, RecursionError):
        raise SchemaError(f"{origin}: expected strings, finite numbers, booleans, lists and mappings") from None
    if schema.name == INLINE:
        raise SchemaError(f"{origin}: name: expected another name; `{INLINE}` is reserved for label sets in messages")
    for path, expected in _excesses(schema, limits or DefaultLimits()):
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


def is_template(text: str) -> bool:
    """True for exactly one `{}` and no other brace."""
    return text.count("{}") == 1 and text.count("{") == 1 and text.count("}") == 1


def fill_template(template: str, words: str) -> str:
    """The hypothesis that `template` makes of a label's words, by replacement: braces in `words` stay as they are."""
    return template.replace("{}", words)


def _not_built_yet(document: Mapping[str, JsonValue]) -> Iterator[str]:
    yield from (key for key in _NOT_BUILT if key in document)
    labels = document.get("labels")
    for index, label in enumerate(labels if isinstance(labels, list) else ()):
        if isinstance(label, dict) and "children" in label:
            yield f"labels.{index}.children"
    long_text = document.get("long_text")
    if isinstance(long_text, dict) and long_text.get("strategy", "truncate") == "windows":
        yield "long_text.strategy: windows"


def _contradictions(schema: LabelSchema) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Keys that are each well formed, and do not go together."""
    names: dict[str, int] = {}
    for index, label in enumerate(schema.labels):
        first = names.setdefault(label.name, index)
        if first != index:
            yield ("labels", index, "name"), f"expected a unique name; it is that of labels.{first}"
        if label.negative is not None and not schema.multi_label:
            yield ("labels", index, "negative"), "expected only with `multi_label: true`"
    if schema.abstain is not None:
        if schema.multi_label:
            yield ("abstain",), "expected only without `multi_label`"
        if schema.abstain.label in names:
            yield ("abstain", "label"), "expected a name that is not one of the labels"
    if schema.calibration is not None and not schema.calibration.bias.keys() <= names.keys():
        yield ("calibration", "bias"), "expected only names of labels that the schema has"


def _excesses(schema: LabelSchema, limits: LabelLimits) -> Iterator[tuple[str, str]]:
    if len(schema.labels) > limits.labels:
        yield "labels", f"expected at most {limits.labels} labels, not {len(schema.labels)}"
    most = f"expected at most {limits.label_bytes} bytes"
    for index, label in enumerate(schema.labels):
        for key in ("name", "description", "hypothesis", "negative"):
            if len((getattr(label, key) or "").encode()) > limits.label_bytes:
                yield f"labels.{index}.{key}", most
    for index, template in enumerate(schema.hypothesis_templates):
        if len(template.encode()) > limits.label_bytes:
            yield f"hypothesis_templates.{index}", most


def _without_label_names(problem: Problem) -> Problem:
    """Keys below `bias` are labels, and no label stands in a message."""
    if problem.path.startswith("calibration.bias."):
        return Problem("calibration.bias", problem.expected)
    return problem
