"""The commands that measure and calibrate, on an engine without a model; those that train say what they need."""

import gzip
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.support.training_data import write_recipe, write_rows, write_world
from worker.cli.main import build_app
from worker.errors import ConfigError, SchemaError, WorkerError
from worker.types import JsonValue

SCHEMA = {"name": "reviews", "version": 3, "labels": [{"name": "good"}, {"name": "bad", "description": "crash"}]}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Data, a table, a recipe and a schema."""
    write_world(tmp_path)
    write_recipe(tmp_path)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return tmp_path


def _run(*arguments: object) -> Result:
    result = CliRunner().invoke(build_app(), [str(each) for each in arguments])
    if isinstance(result.exception, WorkerError):
        raise result.exception
    assert 0 == result.exit_code, result.output
    return result


def test_a_dry_run_shows_what_each_stage_would_see_and_what_is_held_out(world: Path) -> None:
    shown = _run(
        "train", world / "recipe.yaml", "--data", world, "--out", world / "out", "--dry-run", "--folds", "clusters:2"
    ).stdout

    assert "small (without-clusters-sentiment)" in shown
    assert "small (without-clusters-intent)" in shown
    assert "stage mix: 3 sets" in shown
    assert "films" in shown.split("without-clusters-intent")[1]
    assert "films" not in shown.split("without-clusters-intent")[0]
    assert not (world / "out").exists()


def test_a_dry_run_shows_how_each_stage_would_learn_and_which_takes_shippable_sets_alone(world: Path) -> None:
    alone: JsonValue = {"name": "mix", "only": "shippable", "classification": {}, "optimisation": {"dropout": 0.0}}
    write_recipe(world, stages=[{"name": "all", "nli": {}, "classification": {}}, alone])
    given = ("train", world / "recipe.yaml", "--data", world, "--out", world / "out", "--dry-run")

    every, mix = _run(*given).stdout.split("\nstage ")[1:]

    assert "films" in every
    assert "shippable sets alone" not in every
    assert "dropout as the model's" in every
    assert "films" not in mix
    assert "shippable sets alone\n  learning_rate 5e-05, epochs 1, batch_pairs 64, " in mix
    assert "dropout 0\n" in mix
    recipe = json.loads(_run(*given, "--json").stdout)["recipe"]
    assert [("all", None), ("shippable", 0.0)] == [
        (stage["only"], stage["optimisation"]["dropout"]) for stage in recipe["stages"]
    ]


def test_a_text_of_any_test_is_trained_on_by_no_set_and_what_is_left_out_is_counted(world: Path) -> None:
    with gzip.open(world / "films.test.jsonl.gz", "rt") as stream:
        text = json.loads(stream.readline())["text"]
    with gzip.open(world / "reviews.train.jsonl.gz", "at") as stream:
        stream.write(json.dumps({"text": f"  {text.upper()}", "label": "good"}) + "\n")

    given = ("train", world / "recipe.yaml", "--data", world, "--out", world / "out", "--dry-run")
    (_, (_, mix)) = json.loads(_run(*given, "--json").stdout)["stages"]

    assert {"reviews": (60, 1), "films": (60, 0), "tickets": (60, 0)} == {
        use["name"]: (use["rows"], use["left_out"]) for use in mix if use["kind"] == "classification"
    }
    assert "1 texts of tests left out" in _run(*given).stdout


def test_pairs_recast_from_a_task_are_held_out_with_it_and_are_no_part_of_a_stage_of_nli_alone(world: Path) -> None:
    table = yaml.safe_load((world / "sets.yaml").read_text())
    table["nli"].append({**table["nli"][0], "name": "opinions", "cluster": "sentiment"})
    (world / "sets.yaml").write_text(yaml.safe_dump(table))

    given = ("train", world / "recipe.yaml", "--data", world, "--out", world / "out", "--dry-run", "--json")
    plans = [json.loads(line) for line in _run(*given, "--folds", "clusters:2").stdout.splitlines()]

    seen = {plan["variant"]: {name: {use["name"] for use in uses} for name, uses in plan["stages"]} for plan in plans}
    assert {
        "without-clusters-sentiment": {"nli": {"pairs"}, "mix": {"pairs", "tickets"}},
        "without-clusters-intent": {"nli": {"pairs"}, "mix": {"pairs", "opinions", "reviews", "films"}},
    } == seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "recipe.yaml", "--out", "out", "--dry-run", "--folds", "sets"), "--folds"),
        (("train", "recipe.yaml", "--out", "out", "--dry-run", "--hold-out-set", "nosuch"), "nosuch"),
        (("train", "nosuch.yaml", "--out", "out", "--dry-run"), "nosuch.yaml"),
        (("evaluate",), "--sets"),
        (("evaluate", "--sets", "sets.yaml", "--data", ".", "--only", "nosuch"), "nothing to evaluate"),
        (("evaluate", "--sets", "sets.yaml", "--data", ".", "--run", "."), "no model"),
        (("calibrate", "--schema", "schema.yaml"), "--labelled"),
        (("calibrate", "--schema", "schema.yaml", "--unlabelled", "x.jsonl.gz", "--prior", "good"), "--prior"),
        (("calibrate", "--schema", "schema.yaml", "--labelled", "x.jsonl.gz", "--label-column", "n"), "label"),
        (("calibrate", "--schema", "schema.yaml", "--labelled", "x.jsonl.gz", "--label-column", "m"), "no column m"),
        (("calibrate", "--schema", "schema.yaml", "--labelled", "x.jsonl.gz", "--out", "x.jsonl.gz/y"), "--out"),
        (("clean", "x.jsonl.gz", "--out", "x.jsonl.gz"), "--out"),
        (("clean", "x.jsonl.gz", "--out", "x.csv"), "--out"),
        (("evaluate", "--sets", "sets.yaml", "--data", ".", "--out", "x.jsonl.gz"), "--out"),
        (("train", "recipe.yaml", "--out", "x.jsonl.gz"), "--out"),
        (("finetune", "--schema", "schema.yaml", "--examples", "x.jsonl.gz"), "two labels"),
        (("finetune", "--schema", "schema.yaml", "--examples", "x.jsonl.gz", "--base", "b"), "--out"),
        (("finetune", "--schema", "schema.yaml", "--examples", "x.jsonl.gz", "--k", "none"), "--k"),
        (("finetune", "--schema", "schema.yaml", "--examples", "tickets.train.jsonl.gz"), "example 1"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_that_names_the_option(
    world: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    write_rows(world / "x.jsonl.gz", [{"text": "a text", "label": "good", "n": 1}])
    monkeypatch.chdir(world)

    with pytest.raises((ConfigError, SchemaError), match=said):
        _run(*arguments)


def test_an_evaluation_prints_json_and_writes_its_report(world: Path) -> None:
    printed = _run(
        "evaluate", "--sets", world / "sets.yaml", "--data", world, "--engine", "fake", "--texts", 10, "--nli-rows", 20,
        "--out", world / "report", "--json",
    ).stdout  # fmt: skip

    found = json.loads(printed)
    assert ["reviews", "films", "tickets"] == [task["task"] for task in found["tasks"]]
    assert {"set held out"} == set(found["means"])
    assert [("pairs", 20)] == [(each["name"], each["pairs"]) for each in found["nli"]]
    assert "## NLI, accuracy in two classes" in (world / "report" / "report.md").read_text()
    assert found == json.loads((world / "report" / "report.json").read_text())


def test_two_models_of_one_name_stand_in_columns_of_their_own(world: Path) -> None:
    given = ("--sets", world / "sets.yaml", "--data", world, "--engine", "fake", "--only", "films", "--texts", 4)

    found = json.loads(_run("evaluate", *given, "--model", "bundled", "--model", "bundled", "--json").stdout)

    assert 2 == len(found["models"]) == len({task["model"] for task in found["tasks"]})
    (first, second) = found["means"]
    assert second == first.replace(": ", "-2: ")


def test_a_calibrated_schema_is_the_next_version_and_can_be_read(world: Path) -> None:
    rows = world / "reviews.train.jsonl.gz"

    shown = _run(
        "calibrate",
        "--schema",
        world / "schema.yaml",
        "--labelled",
        rows,
        "--engine",
        "fake",
        "--out",
        world / "new.yaml",
    ).stdout

    assert "reviews@4" in shown
    assert "texts that the fit did not see" in shown
    written = yaml.safe_load((world / "new.yaml").read_text())
    assert 4 == written["version"]
    assert {"model", "temperature", "bias"} == set(written["calibration"])
    _run("schemas", "validate", world / "new.yaml")


def test_several_labels_stand_in_a_cell_as_json_and_a_blank_cell_has_none(world: Path) -> None:
    (world / "schema.yaml").write_text(yaml.safe_dump({**SCHEMA, "multi_label": True}))
    rows = ['good,"[""good"", ""bad""]"', "bad,bad", "neither,"]
    (world / "rows.csv").write_text("\n".join(["text,label", *rows]))
    given = ("--schema", world / "schema.yaml", "--labelled", world / "rows.csv", "--engine", "fake", "--json")

    assert 3 == json.loads(_run("calibrate", *given).stdout)["texts"]


def test_priors_are_matched_without_a_label(world: Path) -> None:
    rows = write_rows(world / "plain.jsonl.gz", [{"text": f"text {n}"} for n in range(50)])

    given = ("--schema", world / "schema.yaml", "--unlabelled", rows, "--prior", "good=0.9", "--engine", "fake")
    found = json.loads(_run("calibrate", *given, "--json").stdout)

    assert found["before"] is None
    assert found["bias"]["good"] > 0 > found["bias"]["bad"]
    good, bad = (found["frequencies"][label] for label in ("good", "bad"))
    assert [0.9, pytest.approx(0.1)] == [good["prior"], bad["prior"]]
    assert [0.9, 0.1] == pytest.approx([good["score_after"], bad["score_after"]], abs=1e-3)
    assert good["score_before"] < 0.7
    assert good["before"] < good["after"]
    for name in ("before", "after", "score_before", "score_after"):
        assert 1.0 == pytest.approx(good[name] + bad[name])
    shown = _run("calibrate", *given).stdout
    assert f"  {'good':32}  0.900   {good['before']:6.3f} {good['after']:8.3f}" in shown


def test_the_cheap_few_shot_curve_needs_no_training(world: Path) -> None:
    printed = _run(
        "finetune", "--schema", world / "schema.yaml", "--examples", world / "reviews.train.jsonl.gz", "--k", "2,4",
        "--engine", "fake", "--json",
    ).stdout  # fmt: skip

    found = json.loads(printed)
    methods = [(point["method"], point["k"]) for point in found["points"]]
    assert ("zero-shot", 0) == methods[0]
    assert {"calibrated", "logistic", "nearest"} == {method for method, k in methods if k == 4}
    assert found["made"] is None


def test_cleaning_lists_rows_not_texts_and_leaves_the_file_alone(world: Path) -> None:
    rows = [{"text": f"{'apple pear' if n % 2 else 'hammer saw'} {n}", "label": str(n % 2)} for n in range(60)]
    rows[10]["label"] = "1"
    file = write_rows(world / "noisy.jsonl.gz", rows)
    before = file.read_bytes()

    shown = _run("clean", file, "--out", world / "kept.jsonl").stdout

    assert "     10 1 -> 0" in shown
    assert "hammer" not in shown
    assert before == file.read_bytes()
    kept = gzip.decompress(before).decode().splitlines()
    del kept[10]
    assert kept == (world / "kept.jsonl").read_text().splitlines()
    assert "hammer saw 10" in _run("clean", file, "--show-text").stdout
    with pytest.raises(ConfigError, match="new file"):
        _run("clean", file, "--out", file)


def test_cleaned_rows_come_out_as_they_came_in_and_are_called_by_their_number_in_the_file(world: Path) -> None:
    rows = [f'{n},"{"apple pear" if n % 2 else "hammer, saw"} {n}\r\nand more",{n % 2},  a note ' for n in range(60)]
    rows[10] = '10,"hammer, saw 10",1,"a ""note"""'
    rows.insert(3, "x,,1,without a text")
    rows.insert(30, "")
    file, out = world / "noisy.csv", world / "kept.csv"
    file.write_bytes("\ufeff".encode() + "\r\n".join(["id,words,class,note", *rows]).encode())

    columns = ("--text-column", "words", "--label-column", "class")
    found = json.loads(_run("clean", file, "--out", out, *columns, "--json").stdout)

    assert [11] == [suspect["row"] for suspect in found["suspects"]]
    del rows[11]
    assert "\ufeff".encode() + "\r\n".join(["id,words,class,note", *rows]).encode() == out.read_bytes()
    with pytest.raises(ConfigError, match=r"expected a new file \.csv, as noisy\.csv is"):
        _run("clean", file, "--out", world / "kept.jsonl", *columns)
