"""The recipes in the tree can be read, and what may not be given away is not in the mix of the shipped model."""

from pathlib import Path

import pytest
import yaml

from worker.errors import ConfigError
from worker.training.prepare import stage_table
from worker.training.recipe import read_recipe
from worker.training.sets import read_table

RECIPES = Path(__file__).parents[3] / "recipes"


def test_the_shipped_recipe_holds_only_sets_whose_licence_allows_it() -> None:
    _, everything = read_recipe(RECIPES / "universal.yaml")
    _, shipped = read_recipe(RECIPES / "universal-shipped.yaml")

    assert 30 == len(everything.classification)
    sets = (*shipped.classification, *shipped.nli)
    assert 0 < len(shipped.classification) < 30
    assert {"yes"} == {each.licence.ship for each in sets}
    forbidding = ("BY-NC", "non-commercial", "research use", "research only", "academic")
    assert not [each.name for each in sets if any(words in each.licence.name for words in forbidding)]


def test_the_list_of_licences_decides_as_the_table_of_sets_does() -> None:
    table = read_table(RECIPES / "universal-sets.yaml")
    rows = [line.split(" | ") for line in (RECIPES / "licences.md").read_text().splitlines() if line.startswith("| `")]

    assert {5} == {len(row) for row in rows}
    listed = {row[0].strip("|` "): (row[1].replace('"', ""), row[3]) for row in rows}
    sets = [*table.classification, *table.nli]
    assert {each.name: (each.licence.name, each.licence.ship) for each in sets} == listed


def test_no_test_file_is_trained_on() -> None:
    table = read_table(RECIPES / "universal-sets.yaml")

    sets = [*table.classification, *table.nli]
    assert not {each.train for each in sets if each.train} & {each.test for each in sets if each.test}


def test_the_shipped_recipe_is_the_other_without_the_stage_for_sets_that_may_not_be_given_away() -> None:
    everything, shipped = (read_recipe(RECIPES / f"universal{name}.yaml")[0] for name in ("", "-shipped"))

    assert "shippable" == everything.stages[0].only
    assert (everything.stages[0], *everything.stages[2:]) == shipped.stages
    assert everything.seed == shipped.seed


def test_the_stage_that_both_recipes_have_sees_the_same_sets() -> None:
    seen = []
    for name in ("", "-shipped"):
        recipe, table = read_recipe(RECIPES / f"universal{name}.yaml")
        seen.append(stage_table(recipe.stages[0], table, table))

    assert seen[0] == seen[1]
    assert {"yes"} == {each.licence.ship for each in seen[0].nli}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stages": []}, "stages"),
        ({"stages": [{"name": "x"}]}, "stages.0.nli"),
        ({"stages": [{"name": "x", "nli": {}}, {"name": "x", "nli": {}}]}, "stages.1.name"),
        ({"stages": [{"name": "x", "nli": {"share": 0.7}, "classification": {"share": 0.7}}]}, "share"),
        ({"stages": [{"name": "x", "nli": {"share": 0.3}, "classification": {}}]}, "stages.0.pairs"),
        ({"sed": 1}, "sed"),
        ({"sets": "nosuch.yaml"}, "nosuch.yaml"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_is_refused_by_its_key(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    (tmp_path / "sets.yaml").write_text("{}")
    recipe = {"name": "x", "sets": "sets.yaml", "stages": [{"name": "x", "nli": {}}], **change}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    with pytest.raises(ConfigError, match=said):
        read_recipe(tmp_path / "recipe.yaml")


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    entry = {"name": "x", "licence": {"name": "y"}}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump({"nli": [entry, entry]}))

    with pytest.raises(ConfigError, match=r"nli\.1\.name"):
        read_table(tmp_path / "sets.yaml")
