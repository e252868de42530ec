"""`worker schemas` without a broker: documents and folders."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from worker.cli.main import build_app
from worker.config import fixed_config
from worker.errors import ConfigError, SchemaError
from worker.kafka.sample import MissingTopicError
from worker.trials import sample_of
from worker.types import JsonValue, Record

DOCUMENT = {"name": "kinds", "version": 1, "labels": [{"name": "billing"}, {"name": "bug"}]}

FOREIGN = "sha256:" + "0" * 64
"""No model of ours."""

KAFKA: dict[str, JsonValue] = {"bootstrap_servers": "localhost:1", "group_id": "g"}


@pytest.fixture(autouse=True)
def _log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process: they must not send its log to a stream that ends with them."""
    monkeypatch.setattr("worker.observability.logging.configure_logging", lambda *_: None)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "kinds.json").write_text(json.dumps(DOCUMENT))
    path = tmp_path / "worker.yaml"
    document = {
        "kafka": {"bootstrap_servers": "localhost:1", "group_id": "g"},
        "engine": "fake",
        "schemas": {"directory": "schemas"},
        "topics": [{"input": "in", "label_schema": "kinds"}],
    }
    path.write_text(json.dumps(document))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(), ["schemas", *map(str, arguments)])


def proposed(config: Path, **more: object) -> Path:
    path = config.parent / "proposed.json"
    path.write_text(json.dumps({**DOCUMENT, "version": 2, **more}))
    return path


def test_validate_needs_no_configuration_and_exits_1_where_a_document_is_refused(config: Path) -> None:
    good, bad = config.parent / "schemas" / "kinds.json", config.parent / "bad.yaml"
    bad.write_text("name: bad\nversion: 1\nlabels: []\n")
    assert 0 == run("validate", good).exit_code
    assert 1 == run("validate", good, bad).exit_code
    result = run("validate", good, bad, config.parent / "none.yaml", "--json")
    assert 2 == result.exit_code, "a file that is not there is a mistake of the call"
    files = json.loads(result.output)["files"]
    assert [True, False, False] == [each["valid"] for each in files]
    assert "labels: expected at least 1, not 0" == files[1]["reason"]


def test_validate_counts_the_labels_of_the_whole_tree(config: Path) -> None:
    file = proposed(config, labels=[{"name": "a", "children": [{"name": "b"}, {"name": "c"}]}, {"name": "d"}])
    assert f"ok       {file}: kinds@2, 4 labels\n" == run("validate", file).output


def test_a_sample_does_without_the_topics_that_are_not_there_and_says_so(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def latest(_settings: object, topic: str, _count: int, _clock: object) -> list[Record]:
        if topic == "missing":
            raise MissingTopicError(topic)
        return [Record(topic, 0, 0, 0, None, b'{"text": "x"}')]

    monkeypatch.setattr("worker.trials.latest_records", latest)
    topics: list[JsonValue] = [{"input": name, "label_schema": "kinds"} for name in ("there", "missing")]
    found = sample_of(fixed_config({"kafka": KAFKA, "topics": topics}), "kinds", 10)
    assert (("missing",), ["there"]) == (found.missing, [record.topic for record in found.records])
    with pytest.raises(ConfigError, match=r"none of its topics is there yet \(missing\): create them, or give a"):
        sample_of(fixed_config({"kafka": KAFKA, "topics": topics[1:]}), "kinds", 10)


def test_list_show_and_diff_read_the_folder(config: Path) -> None:
    assert "kinds  version 1  directory\n" == run("list", "-c", config).output
    assert DOCUMENT == json.loads(run("show", "kinds@1", "-c", config, "--json").output)
    assert "name: kinds\nversion: 1\n" in run("show", "kinds", "-c", config).output
    file = proposed(config, labels=[{"name": "billing", "threshold": 0.6}])
    told = run("diff", "kinds", file, "-c", config).output
    assert "  - label bug\n  ~ threshold of label billing: none -> 0.6\n" == told
    assert isinstance(run("show", "others", "-c", config).exception, ConfigError)


@pytest.mark.parametrize("command", ["apply", "rollback", "delete", "history"])
def test_changing_without_a_label_topic_is_an_error_that_names_the_key(config: Path, command: str) -> None:
    error = run(command, "kinds", "-c", config).exception
    assert isinstance(error, ConfigError)
    assert f"{config}: schemas.topic: expected a topic; `worker schemas {command}` works on one" == str(error)


def test_dry_run_tells_what_would_flip_and_shows_texts_only_when_asked(config: Path) -> None:
    sample = config.parent / "sample.jsonl"
    sample.write_text("".join(json.dumps({"id": f"id-{n}", "text": f"secret {n}"}) + "\n" for n in range(20)))
    file = proposed(config, labels=[{"name": "praise"}])
    result = run("dry-run", file, "-c", config, "--file", sample, "--json")
    found = json.loads(result.output)
    assert (20, 20) == (found["messages"], found["flips"])
    assert ({"praise"}, 20) == ({move["after"] for move in found["moves"]}, sum(m["messages"] for m in found["moves"]))
    assert (2.0, 1.0) == (found["before"]["pairs_per_message"], found["after"]["pairs_per_message"])
    assert "id-0" == found["examples"][0]["id"]
    assert "secret" not in result.output
    assert "secret" not in run("dry-run", file, "-c", config, "--file", sample).output
    assert "secret 0" in run("dry-run", file, "-c", config, "--file", sample, "--show-text").output


def test_dry_run_compares_with_the_version_that_this_model_uses(config: Path) -> None:
    """The folder holds a higher one, made for another model: no worker with this one uses it."""
    foreign = {**DOCUMENT, "version": 2, "labels": [{"name": "x"}], "requires_model": FOREIGN}
    (config.parent / "schemas" / "foreign.json").write_text(json.dumps(foreign))
    sample = config.parent / "sample.jsonl"
    sample.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": "a", "label_schema": "kinds@1"}) + "\n")
    file = proposed(config, version=3, labels=[{"name": "praise"}, {"name": "blame"}])
    result = run("dry-run", file, "-c", config, "--file", sample, "--json")
    assert 0 == result.exit_code, result.exception
    found = json.loads(result.output)
    assert ("kinds@1", "kinds@3", 1) == (found["before"]["reference"], found["after"]["reference"], found["flips"])
    assert {} == found["before"]["refused"] == found["after"]["refused"]


def test_lint_gives_advice_and_refuses_what_cannot_be_used(config: Path) -> None:
    result = run("lint", proposed(config), "-c", config, "--json")
    assert 0 == result.exit_code, result.exception
    assert isinstance(json.loads(result.output)["advice"], list)
    unusable = proposed(config, requires_model=FOREIGN)
    assert isinstance(run("lint", unusable, "-c", config).exception, SchemaError)
