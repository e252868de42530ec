"""The parts of a label schema document: what may stand below its top level."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from worker.documents import MisfitError

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False)
DEFAULT_OVERLAP_TOKENS = 32
DEFAULT_OPEN_ABOVE = 0.2


def is_template(text: str) -> bool:
    """True for exactly one `{}` and no other brace."""
    return text.count("{}") == 1 and text.count("{") == 1 and text.count("}") == 1


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a string that is not blank")
    return text


def _is_template(text: str) -> str:
    if not is_template(text):
        raise ValueError("expected exactly one {} and no other brace")
    return text


Words = Annotated[str, AfterValidator(_not_blank), WithJsonSchema({"type": "string", "pattern": r"\S"})]
Template = Annotated[
    str, AfterValidator(_is_template), WithJsonSchema({"type": "string", "pattern": r"^[^{}]*\{\}[^{}]*$"})
]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Label(BaseModel):
    """One label, and how it is put to the model."""

    model_config = STRICT

    name: Words = Field(description="What predictions call it; unique in its schema.")
    description: Words | None = Field(default=None, description="Fills the template instead of the name.")
    hypothesis: Words | None = Field(default=None, description="A whole hypothesis, used instead of the templates.")
    negative: Words | None = Field(default=None, description="The opposite hypothesis; only with `multi_label`.")
    threshold: Probability | None = Field(
        default=None, description="Least score at which it is selected; null: 0.5 with `multi_label`, else none."
    )
    children: tuple["Label", ...] = Field(
        default=(),
        description="What it divides into: more labels, 16 levels at most.",
        json_schema_extra={"uniqueItems": True},
    )


class Abstain(BaseModel):
    """When a single-label prediction selects nothing."""

    model_config = STRICT

    below: Probability | None = Field(default=None, description="Abstain where the best score is lower.")
    margin: Probability | None = Field(default=None, description="Abstain where the best two are closer than this.")
    label: Words | None = Field(default=None, description="What `label` says then; never scored, never selected.")


class Calibration(BaseModel):
    """Corrections of the scores under one model, written by a command and not by hand."""

    model_config = STRICT

    model: Digest = Field(description="Digest of the model that they hold for; ignored under any other.")
    temperature: Annotated[float, Field(gt=0.0)] = Field(default=1.0, description="Divides every logit.")
    bias: dict[str, float] = Field(default_factory=dict, description="Added to the logit of a label, by its name.")


class LongText(BaseModel):
    """What happens to a text that is longer than the model takes."""

    model_config = STRICT

    strategy: Literal["truncate", "windows"] = Field(
        default="truncate", description="`truncate` cuts the text at its end. `windows` scores it piece by piece."
    )
    overlap_tokens: Annotated[int, Field(ge=0)] = Field(
        default=DEFAULT_OVERLAP_TOKENS, description="Tokens that neighbouring windows share."
    )
    aggregate: Literal["max", "mean"] = Field(
        default="max", description="What a label is given of its windows: the best, or their average."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.strategy != "windows":
            for key in sorted(self.model_fields_set - {"strategy"}):
                raise MisfitError((key,), "expected only with `strategy: windows`")
        return self


class ShortlistRule(BaseModel):
    """How many labels are scored for a text, of a set that is too large to score whole."""

    model_config = STRICT

    top_k: Annotated[int, Field(ge=1)] = Field(
        description="Score only so many labels, the likest to the text; in a hierarchy so many of each set of siblings."
    )


class Hierarchy(BaseModel):
    """How far down a tree of labels a decision goes; used without `multi_label`."""

    model_config = STRICT

    open_above: Probability = Field(
        default=DEFAULT_OPEN_ABOVE,
        description="Go down to the best of siblings only where its share among them is at least this.",
    )
