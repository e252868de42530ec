"""What a stage of training saw is told wherever it is used again: in another run, or by what starts from its model."""

import gzip
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("safetensors.torch")

from tests.support.tiny_base import write_base
from tests.support.training_data import write_recipe, write_rows, write_world
from worker.clock import ManualClock
from worker.engines.artifact import SAFETENSORS_FILE
from worker.errors import ConfigError
from worker.training.card import Provenance, read_provenance
from worker.training.evaluate import Column, column_of
from worker.training.finetune import Progress
from worker.training.prepare import HeldOut
from worker.training.recipe import read_recipe
from worker.training.train import RunOptions, Trained, train
from worker.types import JsonValue

QUICK: JsonValue = {"learning_rate": 0.003, "batch_pairs": 8, "dropout": 0.0}
ALIKE: JsonValue = {"name": "nli-shippable", "only": "shippable", "nli": {}, "optimisation": QUICK}
NLI: JsonValue = {"name": "nli", "nli": {}, "optimisation": QUICK}
MIX: JsonValue = {"name": "mix", "nli": {}, "classification": {}, "pairs": 60, "optimisation": QUICK}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NLI model that nobody says anything of."""
    return write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with a set of pairs that may not be given away."""
    folder = tmp_path_factory.mktemp("world")
    table = yaml.safe_load(write_world(folder, texts=10).read_text())
    rows = [{"premise": f"{n} late", "hypothesis": "this is late", "label": "entailment"} for n in range(40)]
    write_rows(folder / "closed.jsonl.gz", rows)
    table["nli"].append({"name": "closed", "train": "closed.jsonl.gz", "licence": {"name": "z", "ship": "no"}})
    (folder / "sets.yaml").write_text(yaml.safe_dump(table))
    return folder


@pytest.fixture(scope="session")
def shipped(world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on shippable sets alone."""
    out = tmp_path_factory.mktemp("shipped")
    recipe = write_recipe(world, name="shipped", only="shippable", stages=[ALIKE, MIX])
    _train(recipe, _options(world, base, out))
    return out


def test_a_stage_copied_from_another_run_is_not_trained_again_and_stands_in_the_card(
    world: Path, base: Path, shipped: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(world, stages=[ALIKE, NLI, MIX])
    afresh, _ = _train(recipe, _options(world, base, tmp_path / "afresh"))
    for folder in (shipped / "work").glob("nli-shippable-*"):
        shutil.copytree(folder, tmp_path / "out" / "work" / folder.name)

    made, trained = _train(recipe, _options(world, base, tmp_path / "out"))

    assert ["nli", "mix"] == trained
    assert (afresh.model / SAFETENSORS_FILE).read_bytes() == (made.model / SAFETENSORS_FILE).read_bytes()
    seen = _provenance(made.model)
    assert ["nli-shippable", "nli", "mix"] == [stage.name for stage in seen.stages]
    assert _provenance(shipped / "all" / "model").stages[0] == seen.stages[0]
    assert [{"pairs"}, {"pairs", "closed"}] == [{use.name for use in stage.uses} for stage in seen.stages[:2]]
    card = (made.model / "README.md").read_text()
    rows = {line.split(" | ")[0].strip("| "): line.split("|") for line in card.splitlines() if "| nli | nli |" in line}
    assert ["", "40"] == [cell.strip() for cell in rows["closed"][6:8]]
    assert ["80", "80"] == [cell.strip() for cell in rows["pairs"][6:8]]
    assert "only: shippable" in card
    assert "dropout: 0.0" in card


def test_a_stage_of_other_settings_or_sets_is_not_taken_for_the_one_that_was_copied(
    world: Path, base: Path, shipped: Path, tmp_path: Path
) -> None:
    for folder in (shipped / "work").glob("nli-shippable-*"):
        shutil.copytree(folder, tmp_path / "work" / folder.name)
    other: JsonValue = {"name": "nli-shippable", "nli": {}, "optimisation": QUICK}

    _, trained = _train(write_recipe(world, stages=[other]), _options(world, base, tmp_path))

    assert ["nli-shippable"] == trained


def test_what_a_base_had_seen_is_seen_by_the_model_that_started_from_it(
    world: Path, shipped: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(world, stages=[NLI])

    made, _ = _train(recipe, _options(world, shipped / "all" / "model", tmp_path))

    seen = _provenance(made.model)
    assert ["nli-shippable", "mix", "nli"] == [stage.name for stage in seen.stages]
    assert Column.ALL == column_of(seen, "tickets", "intent")
    assert "which started from model, model.safetensors sha256:" in seen.base
    assert "all" == made.variant
    assert "| tickets | classification |" in (made.model / "README.md").read_text()


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (HeldOut(sets=("tickets",)), "held out: the base was trained on tickets"),
        (HeldOut(clusters=("sentiment",)), "held out: the base was trained on reviews"),
    ],
)
def test_what_a_base_had_seen_cannot_be_held_out(
    world: Path, shipped: Path, tmp_path: Path, held_out: HeldOut, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _train(write_recipe(world, stages=[MIX]), _options(world, shipped / "all" / "model", tmp_path), held_out)


def test_a_base_that_may_not_be_given_away_is_refused_where_only_shippable_sets_are_asked_for(
    world: Path, base: Path, tmp_path: Path
) -> None:
    seen, _ = _train(write_recipe(world, stages=[MIX]), _options(world, base, tmp_path / "seen"))
    recipe = write_recipe(world, only="shippable", stages=[MIX])

    with pytest.raises(ConfigError, match="may not be given away: closed, films"):
        _train(recipe, _options(world, seen.model, tmp_path / "out"))


def test_a_run_that_would_write_over_its_own_base_is_refused(world: Path, base: Path, tmp_path: Path) -> None:
    first, _ = _train(write_recipe(world, stages=[NLI]), _options(world, base, tmp_path))

    with pytest.raises(ConfigError, match="would write there"):
        _train(write_recipe(world, stages=[NLI, MIX]), _options(world, first.model, tmp_path))

    assert (first.model / SAFETENSORS_FILE).is_file()


def test_where_a_test_file_changes_stages_that_kept_its_texts_out_are_trained_again(base: Path, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world", texts=10).parent
    options = _options(world, base, tmp_path / "out")
    recipe = write_recipe(world, stages=[NLI, MIX])
    _train(recipe, options)
    with gzip.open(world / "films.train.jsonl.gz", "rt") as stream:
        text = json.loads(stream.readline())["text"]
    with gzip.open(world / "tickets.test.jsonl.gz", "at") as stream:
        stream.write(json.dumps({"text": text, "label": "late"}) + "\n")

    made, trained = _train(recipe, options)

    assert ["mix"] == trained
    assert {"films": 1} == {use.name: use.left_out for use in made.stages[1].uses if use.left_out}
    assert [] == _train(recipe, options)[1]


def _options(world: Path, base: Path, out: Path) -> RunOptions:
    return RunOptions(
        world, out, str(base), device="cpu", precision="float32", threads=1, has_export=False, clock=ManualClock()
    )


def _train(recipe: Path, options: RunOptions, held_out: HeldOut | None = None) -> tuple[Trained, Sequence[str]]:
    """What came out, and the stages that were trained for it."""
    trained: list[str] = []

    def told(stage: str) -> Progress:
        trained.append(stage)
        return lambda step, steps, loss: None

    wanted, table = read_recipe(recipe)
    return train(wanted, table, held_out or HeldOut(), replace(options, progress=told)), trained


def _provenance(model: Path) -> Provenance:
    found = read_provenance(model)
    assert found is not None
    return found
