"""`worker train` on models of a few thousand weights: it learns, repeats, resumes to the bit, and ends in a model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("safetensors.torch")
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.support import tiny_models
from tests.support.tiny_base import write_base
from tests.support.tiny_torch import write_tiny_torch_model
from tests.support.training_data import write_recipe, write_world
from worker.cli.main import build_app
from worker.clock import ManualClock
from worker.engines.artifact import OPENVINO_FILE, SAFETENSORS_FILE, TOKENIZER_FILE, open_folder
from worker.engines.load import EngineChoice, LoadedModel, load_engine
from worker.errors import ConfigError, EngineError
from worker.training import exported as exported_module
from worker.training import finetune as loop_module
from worker.training.card import Provenance, read_provenance
from worker.training.journal import Journal
from worker.training.pairs import LabelledPair
from worker.training.prepare import HeldOut, Told
from worker.training.recipe import Optimisation, read_recipe
from worker.training.store import PairJoiner, write_store
from worker.training.train import RunOptions, Trained, train
from worker.training.weights import load_trainable, set_dropout
from worker.types import JsonValue

LONG: dict[str, JsonValue] = {"learning_rate": 0.003, "batch_pairs": 8, "epochs": 6, "accumulate": 2}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NLI model with random weights, small enough to learn from."""
    return write_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a table of it."""
    return write_world(tmp_path_factory.mktemp("world")).parent


def _options(world: Path, base: Path, out: Path) -> RunOptions:
    return RunOptions(
        world, out, str(base), device="cpu", precision="float32", threads=1, has_export=False, clock=ManualClock()
    )


def _train(recipe: Path, options: RunOptions, held_out: HeldOut | None = None) -> Trained:
    wanted, table = read_recipe(recipe)
    return train(wanted, table, held_out or HeldOut(), options)


@pytest.fixture(scope="session")
def trained(world: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The whole way, export and gate included."""
    out = tmp_path_factory.mktemp("run")
    options = replace(_options(world, base, out), has_export=True, cache_dir=out / "cache")
    return _train(write_recipe(world), options)


def test_the_loss_falls_and_pairs_that_no_step_saw_are_told_apart(base: Path, tmp_path: Path) -> None:
    pairs = (LabelledPair(f"the {'good' if n % 2 else 'late'} app {n}", "this is good", n % 2 == 1) for n in range(400))
    store = write_store(tmp_path / "pairs", pairs, PairJoiner(base / TOKENIZER_FILE, 40))
    loop = loop_module.Loop(tmp_path, Journal(tmp_path / "log"), "x", ManualClock(), device="cpu", threads=1)
    how = Optimisation(learning_rate=0.003, batch_pairs=16, epochs=3)

    learnt = loop_module.finetune(load_trainable(base, 0), store, how, loop)

    assert learnt.last_loss < learnt.first_loss / 2
    assert 20 == learnt.held_back
    assert learnt.held_back_accuracy is not None
    assert learnt.held_back_accuracy > 0.9


@pytest.mark.parametrize("family", ["bert", "roberta", "deberta-v2", "modernbert"])
def test_without_dropout_a_model_in_training_says_the_same_twice(family: str, tmp_path: Path) -> None:
    trainable = load_trainable(write_tiny_torch_model(tmp_path / family, family), 0)
    module = trainable.module.train()
    ids = torch.arange(5, 85).reshape(4, 20)

    def said() -> list[list[float]]:
        with torch.no_grad():
            found: list[list[float]] = module(input_ids=ids).logits.tolist()
        return found

    set_dropout(module, 0.3)
    assert said() != said()
    set_dropout(module, 0.0)
    assert said() == said()


def test_the_card_says_how_pairs_that_no_step_saw_were_told_apart(trained: Trained) -> None:
    learnt = trained.stages[-1].learnt

    assert learnt.held_back_accuracy is not None
    assert f"| {learnt.held_back_accuracy:.3f} | {learnt.majority:.3f} |" in (trained.model / "README.md").read_text()


def test_the_form_that_a_worker_runs_passed_its_gate(trained: Trained) -> None:
    assert trained.exported is not None
    assert trained.exported.gate is not None
    assert trained.exported.gate.passed
    assert trained.exported.weights in {"int8", "float32"}
    assert (trained.exported.folder / "golden.json").is_file()
    assert "## Data" in (trained.exported.folder / "README.md").read_text()


def test_the_form_that_a_worker_runs_is_measured_beside_the_original(trained: Trained, world: Path) -> None:
    assert trained.exported is not None
    models = ["--model", str(trained.model), "--model", str(trained.exported.folder)]
    sets = ["--sets", str(world / "sets.yaml"), "--data", str(world), "--only", "films", "--texts", "6"]

    found = json.loads(_run("evaluate", *sets, *models, "--json"))

    assert ["small: set seen", "small-openvino: set seen"] == list(found["means"])
    assert ["small (all)", "small-openvino (all)"] == [task["model"] for task in found["tasks"]]


def test_where_8_bit_weights_change_labels_the_form_is_written_in_float32(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.model, tmp_path / "model")

    def strict(choice: EngineChoice) -> LoadedModel:
        if b"u8" in (Path(choice.model) / OPENVINO_FILE).read_bytes():
            raise EngineError("3 of 88 labels differ from float32")
        return load_engine(choice)

    monkeypatch.setattr(exported_module, "load_engine", strict)

    made = exported_module.export_bundled(tmp_path / "model", tmp_path / "cache")

    assert "float32" == made.weights
    assert made.gate is not None
    assert made.gate.passed


def test_the_card_lists_every_set_with_its_licence_and_what_must_not_be_given_away(trained: Trained) -> None:
    card = (trained.model / "README.md").read_text()

    (row,) = (line for line in card.splitlines() if line.startswith("| films | classification | sentiment | 2 | 60 |"))
    assert "| made up | no |" in row
    assert row.split(" |")[5].strip() == ""  # the stage of NLI alone
    assert row.split(" |")[6].strip() == "120"
    assert "Not to be given away" in card
    assert "Base: model, model.safetensors sha256:" in card
    assert "films" in card.split("checked:")[1].splitlines()[1]
    provenance = read_provenance(trained.model)
    assert provenance is not None
    assert {"reviews", "films", "tickets"} == provenance.trained_on("classification")


def test_the_journal_is_one_json_object_a_line_that_can_be_plotted(trained: Trained) -> None:
    (journal,) = (trained.model.parent.parent / "work").glob("mix-*/log.jsonl")

    events = [json.loads(line) for line in journal.read_text().splitlines()]

    assert "stage.started" == events[0]["event"]
    assert "stage.finished" == events[-1]["event"]
    steps = [event["step"] for event in events if event["event"] == "stage.stepped"]
    assert steps == sorted(set(steps))
    assert all(event["loss"] > 0 for event in events if event["event"] == "stage.stepped")


def test_the_same_recipe_gives_the_same_weights(world: Path, base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(world)

    first, again = (_train(recipe, _options(world, base, tmp_path / name)) for name in ("a", "b"))

    assert _weights(first) == _weights(again)


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    world: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CHECKPOINT_EVERY_STEPS", 5)
    recipe = write_recipe(world, stages=[{"name": "one", "nli": {}, "classification": {}, "optimisation": LONG}])
    whole = _train(recipe, _options(world, base, tmp_path / "whole"))

    class KilledError(Exception):
        pass

    def until(last: int) -> loop_module.Progress:
        def told(step: int, steps: int, loss: float) -> None:
            if step == last:
                raise KilledError

        return told

    options = _options(world, base, tmp_path / "killed")
    for last in (3, 4, 38, 59):  # before the first checkpoint, then in the middle of epochs
        with pytest.raises(KilledError):
            _train(recipe, replace(options, progress=lambda stage, last=last: until(last)))  # type: ignore[misc]  # bound
    resumed = _train(recipe, options)

    assert _weights(whole) == _weights(resumed)
    assert _journal(whole) == _journal(resumed)


def test_a_run_that_is_asked_for_again_does_not_train_again(world: Path, base: Path, tmp_path: Path) -> None:
    recipe = write_recipe(world)
    options = _options(world, base, tmp_path)
    _train(recipe, options)
    told: list[str] = []

    def recorded(stage: str) -> loop_module.Progress:
        told.append(stage)
        return lambda step, steps, loss: None

    _train(recipe, replace(options, progress=recorded))

    assert [] == told


def test_data_that_changed_are_trained_on_and_those_before_are_kept(base: Path, tmp_path: Path) -> None:
    table = write_world(tmp_path / "world")
    recipe = write_recipe(table.parent)
    options = _options(table.parent, base, tmp_path / "out")
    first = _weights(_train(recipe, options))
    told: list[str] = []

    def recorded(stage: str) -> loop_module.Progress:
        told.append(stage)
        return lambda step, steps, loss: None

    files = {file: file.read_bytes() for file in table.parent.glob("*.gz")}
    write_world(table.parent, texts=20)
    changed = _weights(_train(recipe, replace(options, progress=recorded)))
    assert (["nli", "mix"], True) == (told, changed != first)

    for file, content in files.items():
        file.write_bytes(content)
    assert first == _weights(_train(recipe, replace(options, progress=recorded)))
    assert ["nli", "mix"] == told


def test_what_comes_before_the_steps_is_told_too(world: Path, base: Path, tmp_path: Path) -> None:
    told: dict[str, tuple[int, int]] = {}

    def recorded(name: str) -> Told:
        return lambda done, of: told.update({name: (done, of)})

    made = _train(write_recipe(world), replace(_options(world, base, tmp_path), reading=recorded))

    pairs = [sum(use.pairs for use in stage.uses) for stage in made.stages]
    expected = {"nli: files read": (1, 1), "nli: pairs made": (pairs[0], pairs[0])}
    assert {**expected, "mix: files read": (4, 4), "mix: pairs made": (pairs[1], pairs[1])} == told


def test_no_more_threads_than_cores_that_the_process_may_use(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.setattr(loop_module, "usable_cores", lambda: 1)
    pairs = (LabelledPair(f"the good app {n}", "this is good", n % 2 == 1) for n in range(8))
    store = write_store(tmp_path / "pairs", pairs, PairJoiner(base / TOKENIZER_FILE, 40))
    loop = loop_module.Loop(tmp_path, Journal(tmp_path / "log"), "x", ManualClock(), device="cpu")

    try:
        loop_module.finetune(load_trainable(base, 0), store, Optimisation(), loop)
        assert 1 == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_what_is_held_out_is_not_trained_on_and_the_nli_stage_is_shared(
    world: Path, base: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(world)
    options = _options(world, base, tmp_path)

    by_cluster = _train(recipe, options, HeldOut(clusters=("sentiment",)))
    by_set = _train(recipe, options, HeldOut(sets=("reviews",)))

    seen = [read_provenance(made.model) for made in (by_cluster, by_set)]
    assert [{"tickets"}, {"films", "tickets"}] == [set(each.trained_on("classification")) for each in seen if each]
    assert 1 == len(list((tmp_path / "work").glob("nli-*")))
    nli_only = read_provenance(tmp_path / "nli-only" / "model")
    assert nli_only is not None
    assert set() == nli_only.trained_on("classification")


def test_only_sets_that_may_be_shipped_are_used_where_the_recipe_says_so(world: Path) -> None:
    _, table = read_recipe(write_recipe(world, only="shippable"))

    assert ["reviews", "tickets"] == [each.name for each in table.classification]


def test_a_three_class_model_gets_a_new_head_and_a_reversed_one_keeps_its_order(world: Path, tmp_path: Path) -> None:
    stages: JsonValue = [{"name": "one", "nli": {}, "optimisation": {"learning_rate": 0.003, "batch_pairs": 8}}]
    recipe = write_recipe(world, stages=stages)
    heads = []
    for name, classes in (
        ("three", ("contradiction", "neutral", "entailment")),
        ("reversed", ("not_entailment", "entailment")),
    ):
        source = tiny_models.build(tmp_path / name, tiny_models.bert(), classes)
        made = _train(recipe, _options(world, source, tmp_path / f"out-{name}"))
        heads.append(open_folder(made.model).head.entailment)
        assert 2 == open_folder(made.model).head.classes

    assert [0, 1] == heads


@pytest.mark.parametrize("name", ["cluster", "set"])
def test_holding_out_something_unknown_is_refused(world: Path, base: Path, tmp_path: Path, name: str) -> None:
    held = HeldOut(sets=("nosuch",)) if name == "set" else HeldOut(clusters=("nosuch",))

    with pytest.raises(ConfigError, match="nosuch"):
        _train(write_recipe(world), _options(world, base, tmp_path), held)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "tpu"}, "--device tpu: expected auto, cpu, cuda"),
        ({"device": "cuda"}, "--device cuda: torch finds no GPU"),
        ({"precision": "float8"}, "--precision float8: expected auto, bfloat16, float32"),
    ],
)
def test_a_machine_that_is_not_there_is_refused_before_anything_is_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = write_recipe(write_world(tmp_path / "world").parent)
    (tmp_path / "world" / "pairs.jsonl.gz").unlink()

    with pytest.raises(ConfigError, match=said):
        _train(recipe, replace(_options(tmp_path / "world", base, tmp_path / "out"), **change))  # type: ignore[arg-type]  # strings all


def test_a_loss_that_is_no_number_ends_the_run_before_it_ends_in_a_model(
    world: Path, base: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = load_file(broken / SAFETENSORS_FILE)
    weights["classifier.bias"].fill_(float("inf"))
    save_file(weights, broken / SAFETENSORS_FILE, {"format": "pt"})

    with pytest.raises(EngineError, match="stage nli: the loss is no number at step 1: take a lower learning_rate"):
        _train(write_recipe(world), _options(world, broken, tmp_path / "out"))

    assert not list((tmp_path / "out").rglob("model.safetensors"))


def test_the_bundled_model_cannot_be_trained_and_the_error_says_what_can(
    world: Path, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="safetensors"):
        _train(write_recipe(world), replace(_options(world, base, tmp_path), base="bundled"))


def test_a_base_without_its_encoder_is_refused(world: Path, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = load_file(broken / SAFETENSORS_FILE)
    save_file(
        {name: each for name, each in weights.items() if "layer.1" not in name},
        broken / SAFETENSORS_FILE,
        {"format": "pt"},
    )

    with pytest.raises(EngineError, match="missing"):
        _train(write_recipe(world), _options(world, broken, tmp_path / "out"))


def test_the_command_trains_measures_and_puts_the_figures_into_the_card(
    world: Path, base: Path, tmp_path: Path
) -> None:
    stages: JsonValue = [{"name": "one", "nli": {}, "optimisation": {"batch_pairs": 8}}]
    recipe = write_recipe(world, stages=stages)
    given = ["--data", str(world), "--out", str(tmp_path), "--base", str(base), "--device", "cpu", "--threads", "1"]
    made = _run("train", str(recipe), *given, "--no-export", "--json")
    assert "nli-only" == json.loads(made)["variant"]

    sets = ["--sets", str(world / "sets.yaml"), "--data", str(world), "--run", str(tmp_path), "--engine", "pytorch"]
    found = json.loads(_run("evaluate", *sets, "--texts", "6", "--nli-rows", "6", "--card", "--json"))

    assert {"NLI only"} == set(found["means"])
    card = (tmp_path / "nli-only" / "model" / "README.md").read_text()
    assert "## Figures" in card
    assert "| **mean of 3** |" in card


def test_a_few_examples_become_a_model_that_a_worker_can_be_started_with(
    world: Path, base: Path, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    labels: JsonValue = [{"name": "good"}, {"name": "bad"}]
    schema.write_text(json.dumps({"name": "reviews", "version": 1, "labels": labels}))
    given = ["--schema", str(schema), "--examples", str(world / "reviews.train.jsonl.gz"), "--base", str(base)]

    made = json.loads(
        _run("finetune", *given, "--out", str(tmp_path / "out"), "--k", "2,4", "--threads", "1", "--json")
    )

    assert [2, 4] == [point["k"] for point in made["points"] if point["method"] == "fine-tuned"]
    loaded = load_engine(EngineChoice(made["made"]["model"]))
    assert made["made"]["digest"] == loaded.engine.info.stamp.digest
    loaded.engine.close()
    assert ("exported", 4, 8) == tuple(made["points"][-1][key] for key in ("method", "k", "texts"))
    assert {"examples of reviews"} == {use.name for use in _provenance(tmp_path / "out" / "k4" / "model").uses}


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), arguments)
    assert 0 == result.exit_code, result.output
    return result.stdout


def _provenance(folder: Path) -> Provenance:
    found = read_provenance(folder)
    assert found is not None
    return found


def _weights(made: Trained) -> bytes:
    return (made.model / SAFETENSORS_FILE).read_bytes()


def _journal(made: Trained) -> list[str]:
    (journal,) = (made.model.parent.parent / "work").glob("one-*/log.jsonl")
    return journal.read_text().splitlines()
