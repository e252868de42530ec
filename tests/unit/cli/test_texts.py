"""What is refused is told by the option that brought it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.main import build_app
from worker.cli.texts import label_schema_from
from worker.errors import ConfigError, SchemaError

ABSTAINING = {"name": "kinds", "version": 1, "labels": [{"name": "a"}, {"name": "b"}], "abstain": {"below": 0.4}}


@pytest.fixture(autouse=True)
def _log_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in this process: they must not send its log to a stream that ends with them."""
    monkeypatch.setattr("worker.observability.logging.configure_logging", lambda *_: None)


def test_a_template_is_refused_as_a_template() -> None:
    with pytest.raises(SchemaError, match=r"^--template: hypothesis_templates\.0: expected exactly one \{\}"):
        label_schema_from("a,b", None, "no place", multi_label=False)


def test_labels_are_refused_as_labels_whatever_the_template() -> None:
    with pytest.raises(SchemaError, match=r"^--labels: labels\.1\.name: expected a unique name"):
        label_schema_from("a,a", None, "no place", multi_label=False)


def test_what_only_multi_label_forbids_is_told_with_it(tmp_path: Path) -> None:
    file = tmp_path / "kinds.json"
    file.write_text(json.dumps(ABSTAINING))
    with pytest.raises(SchemaError, match=rf"^--multi-label, with {file}: abstain: expected only without"):
        label_schema_from(None, file, None, multi_label=True)


@pytest.mark.parametrize("command", ["clean", "calibrate"])
def test_a_file_that_is_not_there_is_told_without_options_of_other_commands(command: str, tmp_path: Path) -> None:
    schema = tmp_path / "kinds.json"
    schema.write_text(json.dumps(ABSTAINING))
    given = {
        "clean": ["none.csv"],
        "calibrate": ["--schema", str(schema), "--labelled", "none.csv", "--engine", "fake"],
    }
    result = CliRunner().invoke(build_app(), [command, *given[command]])
    assert isinstance(result.exception, ConfigError)
    assert "none.csv: there is no such file" == str(result.exception)


def test_a_column_that_is_missing_is_told_with_the_option_that_names_another(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("words,label\nx,a\n")
    result = CliRunner().invoke(build_app(), ["clean", str(file)])
    assert f"{file}: row 1 has no column text; see --text-column and --label-column" == str(result.exception)
