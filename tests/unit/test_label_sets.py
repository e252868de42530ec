"""The label schemas of a worker that starts: what is refused is told, and ends nothing that can go on."""

import json
from pathlib import Path

import pytest

from worker.app import open_worker
from worker.config import Config, fixed_config
from worker.errors import SchemaError
from worker.label_sets import LabelSets
from worker.labels.sources import DirectorySource
from worker.observability.health import Readiness
from worker.observability.metrics import Metrics
from worker.types import JsonValue

TYPO = "name: kinds\nversion: 2\nlabel: [{name: a}]\n"


def good(folder: Path, version: int, name: str = "kinds") -> None:
    document = {"name": name, "version": version, "labels": [{"name": "a"}]}
    (folder / f"{name}-{version}.json").write_text(json.dumps(document), encoding="utf-8")


def config(folder: Path, label_schema: str = "kinds", **schemas: JsonValue) -> Config:
    return fixed_config(
        {
            "kafka": {"bootstrap_servers": "localhost:1", "group_id": "g"},
            "engine": "fake",
            "http": {"port": 0},
            "schemas": {"directory": str(folder), **schemas},
            "topics": [{"input": "in", "label_schema": label_schema}],
        }
    )


def loaded(made: Config, folder: Path) -> LabelSets:
    labels = LabelSets(made, Metrics(), Readiness())
    labels.load_files(DirectorySource(folder))
    return labels


def test_a_file_that_is_refused_keeps_no_worker_from_starting(tmp_path: Path) -> None:
    good(tmp_path, 1)
    (tmp_path / "bad.yaml").write_text(TYPO, encoding="utf-8")
    labels = loaded(config(tmp_path), tmp_path)
    assert (1,) == labels.registry.versions("kinds")
    assert [str(tmp_path / "bad.yaml")] == [refusal.origin for refusal in labels.registry.refusals()]


def test_a_typo_in_the_only_file_of_a_binding_is_told_at_once(tmp_path: Path) -> None:
    good(tmp_path, 1, "other")
    (tmp_path / "a.yaml").write_text("]", encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(TYPO, encoding="utf-8")
    with pytest.raises(SchemaError) as caught, open_worker(config(tmp_path)):
        pass
    assert str(caught.value).startswith(f"{tmp_path / 'bad.yaml'}: label: ")


def test_a_file_that_is_refused_is_not_blamed_for_another_label_schema_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(TYPO, encoding="utf-8")
    assert not loaded(config(tmp_path, "others"), tmp_path).has_own("in", "others")


def test_where_a_label_topic_may_bring_the_schema_a_refused_file_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(TYPO, encoding="utf-8")
    assert not loaded(config(tmp_path, topic="labels"), tmp_path).has_own("in", "kinds")
