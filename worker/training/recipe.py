"""What `worker train` is asked to do: a document that says everything but where the files lie."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from worker.documents import MisfitError
from worker.labels.parts import STRICT, Probability
from worker.training.sets import Name, SetTable, read_model, read_table

Count = Annotated[int, Field(ge=1)]


class NliPart(BaseModel):
    """What a stage takes of the NLI sets."""

    model_config = STRICT

    max_per_set: Count | None = Field(default=30_000, description="Pairs of one set that are read at most.")
    share: Probability | None = Field(default=None, description="Share of the stage's `pairs`; null: by size.")


class ClassificationPart(BaseModel):
    """What a stage takes of the classification sets, and how texts become pairs."""

    model_config = STRICT

    max_per_class: Count | None = Field(default=500, description="Texts of one class at most.")
    max_per_set: Count | None = Field(default=5_000, description="Texts of one set at most.")
    negatives: Annotated[float, Field(gt=0.0, le=20.0)] = Field(
        default=1.0, description="False hypotheses per true one; 1 balances them."
    )
    hard_negatives: Probability = Field(
        default=0.0, description="Share of the false ones that take the text of a class with similar texts."
    )
    inverted: Probability = Field(
        default=0.0, description="Share of pairs whose hypothesis denies the class, where the set has such sentences."
    )
    share: Probability | None = Field(default=None, description="Share of the stage's `pairs`; null: by size.")


class Optimisation(BaseModel):
    """How a stage learns."""

    model_config = STRICT

    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = Field(default=5e-5, description="The highest, of AdamW.")
    epochs: Count = Field(default=1, description="How often each pair is seen.")
    batch_pairs: Count = Field(default=64, description="Pairs of one forward pass.")
    accumulate: Count = Field(default=1, description="Forward passes of one step.")
    warmup: Probability = Field(default=0.06, description="Share of the steps in which the rate rises.")
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(default=0.01, description="Of AdamW.")
    max_gradient_norm: Annotated[float, Field(gt=0.0)] = Field(default=1.0, description="Longer gradients are cut.")
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(default=0.0, description="Of the loss.")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = Field(
        default=None,
        description="Of every layer; null: the model's own. Drawing it costs a CPU a sixth of the time.",
    )


Only = Literal["all", "shippable"]


class Stage(BaseModel):
    """One stage of training: what it sees, and how it learns."""

    model_config = STRICT

    name: Name = Field(description="Names its folder.")
    only: Only = Field(default="all", description="As the recipe's, for this stage alone.")
    nli: NliPart | None = Field(default=None, description="Null: no NLI sets.")
    classification: ClassificationPart | None = Field(default=None, description="Null: no classification sets.")
    pairs: Count | None = Field(default=None, description="Pairs in all; null: what the sets give.")
    rate_max: Count | None = Field(default=3_000, description="A set counts with so many pairs at most when mixing.")
    optimisation: Optimisation = Field(default_factory=Optimisation, description="How it learns.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        parts = [part for part in (self.nli, self.classification) if part is not None]
        if not parts:
            raise MisfitError(("nli",), "expected `nli`, `classification` or both")
        if sum(part.share or 0.0 for part in parts) > 1.0:
            raise MisfitError(("nli", "share"), "expected shares that sum to at most 1")
        if self.pairs is None and any(part.share is not None for part in parts):
            raise MisfitError(("pairs",), "expected a number: `share` is a share of it")
        return self


class Recipe(BaseModel):
    """A whole training."""

    model_config = STRICT

    name: Name = Field(description="What the model is called.")
    sets: str = Field(description="The table of data sets, a file beside the recipe.")
    only: Only = Field(default="all", description="`shippable`: only sets whose licence lets a model be given away.")
    base: str | None = Field(default=None, description="A folder or a Hugging Face id@commit; --base names another.")
    seed: Annotated[int, Field(ge=0)] = Field(default=42, description="Of every draw.")
    max_pair_tokens: Annotated[int, Field(ge=16)] = Field(default=104, description="Longer texts are cut.")
    stages: tuple[Stage, ...] = Field(min_length=1, description="One after the other, each from the one before.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = [stage.name for stage in self.stages]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise MisfitError(("stages", index, "name"), "expected a unique name")
        return self


def read_recipe(path: Path) -> tuple[Recipe, SetTable]:
    """A recipe, and the table it names; with `only: shippable` the table holds no other sets.

    Raises:
        ConfigError: one of them cannot be used; names the file and the key.
    """
    recipe = read_model(path, Recipe)
    table = read_table(path.parent / recipe.sets)
    return recipe, table.shippable() if recipe.only == "shippable" else table
