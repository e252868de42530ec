"""A card tells what each stage saw, and by which recipe."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from worker.training.card import Provenance, StageFacts, read_provenance, write_card, write_provenance
from worker.training.finetune import Learnt
from worker.training.prepare import HeldOut, SetUse
from worker.training.recipe import ClassificationPart, NliPart, Optimisation, Recipe, Stage

LEARNT = Learnt(1, 1, 1.0, 1.0, 0, None, None, 1.0)
MANY = SetUse("mnli", "nli", "nli", "OANC", "yes", 45_000, 2, 45_000)
FEW = replace(MANY, rows=30_000, pairs=900)
FILMS = SetUse("films", "classification", "sentiment", "none stated", "no", 60, 2, 120)
STAGES = (StageFacts("nli", (MANY,), LEARNT, 0), StageFacts("mix", (FEW, FILMS), LEARNT, 0))
RECIPE = Recipe(
    name="small",
    sets="sets.yaml",
    base="/some/folder",
    stages=(
        Stage(name="nli", only="shippable", nli=NliPart(), optimisation=Optimisation(dropout=0.0)),
        Stage(name="mix", nli=NliPart(), classification=ClassificationPart()),
    ),
)


@pytest.fixture
def provenance() -> Provenance:
    return Provenance.of(RECIPE, "all", HeldOut(), STAGES, ("MiniLM", "worker train small.yaml"))


def test_a_set_has_a_column_for_each_stage_and_the_most_rows_that_one_took(
    provenance: Provenance, tmp_path: Path
) -> None:
    write_card(tmp_path, provenance, ("more",))

    card = (tmp_path / "README.md").read_text().splitlines()
    assert "| set | kind | cluster | classes | rows | pairs in nli | pairs in mix | licence | may be shipped |" in card
    assert "| mnli | nli | nli | 2 | 45000 | 45000 | 900 | OANC | yes |" in card
    assert "| films | classification | sentiment | 2 | 60 | | 120 | none stated | no |" in card
    assert "more" == card[-1]


def test_the_recipe_stands_in_the_card_as_far_as_it_was_carried_out_and_names_no_folder(
    provenance: Provenance, tmp_path: Path
) -> None:
    write_card(tmp_path, replace(provenance, stages=STAGES[:1]))

    _, text, _ = (tmp_path / "README.md").read_text().split("```")
    recipe = yaml.safe_load(text.removeprefix("yaml"))
    assert {"name", "sets", "stages"} == set(recipe)
    assert [("nli", "shippable", {"dropout": 0.0})] == [
        (stage["name"], stage["only"], stage["optimisation"]) for stage in recipe["stages"]
    ]


def test_a_model_without_a_recipe_has_a_card_without_one(provenance: Provenance, tmp_path: Path) -> None:
    write_card(tmp_path, replace(provenance, recipe=""))

    assert "## Recipe" not in (tmp_path / "README.md").read_text()


def test_what_is_written_for_programs_is_read_again(provenance: Provenance, tmp_path: Path) -> None:
    write_provenance(tmp_path, provenance)

    assert provenance == read_provenance(tmp_path)
