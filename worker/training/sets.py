"""The table of data sets: where each lies, what its classes mean in words, what task it is, what its licence allows."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from worker.documents import DocumentError, MisfitError, first_problem, read_document
from worker.errors import ConfigError
from worker.labels.parts import STRICT, Template, Words
from worker.labels.schema import canonical_json

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
M = TypeVar("M", bound=BaseModel)


class Licence(BaseModel):
    """What the data may be used for."""

    model_config = STRICT

    name: Words = Field(description="The licence, or that none is stated.")
    ship: Literal["yes", "no", "unchecked"] = Field(
        default="unchecked", description="Whether a model trained on it may be given away."
    )
    source: str | None = Field(default=None, description="Where the data came from.")


class ClassWords(BaseModel):
    """How one class is put into words."""

    model_config = STRICT

    words: Words | None = Field(default=None, description="Fills the templates; null: the label's own name.")
    hypothesis: Words | None = Field(default=None, description="A whole hypothesis, used instead of the templates.")
    negative: Words | None = Field(default=None, description="What is said of a text that is not of the class.")


class _Files(BaseModel):
    model_config = STRICT

    name: Name = Field(description="Unique in the table.")
    train: str | None = Field(default=None, description="A file below the data folder: .jsonl, .csv, .parquet.")
    test: str | None = Field(default=None, description="As `train`; never trained on.")
    licence: Licence = Field(description="What the data may be used for.")
    note: str | None = Field(default=None, description="What a reader of its figures has to know.")

    def is_shippable(self) -> bool:
        """Whether a model trained on it may be given away."""
        return self.licence.ship == "yes"


class ClassificationSet(_Files):
    """Texts with one label each."""

    cluster: Name = Field(description="What task it is: sets of one cluster teach each other's test.")
    columns: dict[Literal["text", "label"], str] = Field(default_factory=dict, description="Other names of columns.")
    text: Words | None = Field(
        default=None, description="How a text is put together: `{column}` stands for a column; null: the text alone."
    )
    templates: tuple[Template, ...] = Field(
        default=("This example is {}.",), min_length=1, description="Sentences with one `{}` each."
    )
    inverted: tuple[Template, ...] = Field(default=(), description="Sentences that deny the class that fills them.")
    labels: dict[str, str | ClassWords | None] = Field(
        default_factory=dict, description="Words for a class; null leaves the class out; others: their names."
    )


class NliSet(_Files):
    """Pairs with a relation each."""

    cluster: Name = Field(
        default="nli",
        description="Of pairs recast from texts with labels that task's cluster: they are held out with it.",
    )
    columns: dict[Literal["premise", "hypothesis", "label"], str] = Field(
        default_factory=dict, description="Other names of columns."
    )
    entailment: tuple[str, ...] = Field(
        default=("entailment", "0"), description="Labels that mean that the hypothesis follows."
    )


class SetTable(BaseModel):
    """All data sets that recipes and evaluations may name."""

    model_config = STRICT

    classification: tuple[ClassificationSet, ...] = Field(default=(), description="Texts with one label each.")
    nli: tuple[NliSet, ...] = Field(default=(), description="Pairs with a relation each.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        seen: set[str] = set()
        for kind, sets in (("classification", self.classification), ("nli", self.nli)):
            for index, each in enumerate(sets):
                if each.name in seen:
                    raise MisfitError((kind, index, "name"), "expected a unique name")
                seen.add(each.name)
        return self

    def clusters(self) -> tuple[str, ...]:
        """The clusters of the classification sets, in order of their first set."""
        return tuple(dict.fromkeys(each.cluster for each in self.classification))

    def shippable(self) -> "SetTable":
        """The sets whose licence lets a model be given away."""
        return SetTable(
            classification=tuple(each for each in self.classification if each.is_shippable()),
            nli=tuple(each for each in self.nli if each.is_shippable()),
        )


def read_table(path: Path) -> SetTable:
    """The table in a file.

    Raises:
        ConfigError: it is none; names the file and the key.
    """
    return read_model(path, SetTable)


def read_model(path: Path, kind: type[M]) -> M:
    """The document of a kind in a YAML or JSON file.

    Raises:
        ConfigError: it is none; names the file and the key.
    """
    try:
        return kind.model_validate_json(canonical_json(read_document(path)))
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
