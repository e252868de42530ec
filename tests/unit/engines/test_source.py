from pathlib import Path

import huggingface_hub
import huggingface_hub.errors
import pytest

from tests.support.tiny_openvino import write_tiny_model
from worker.engines.source import BUNDLED_FOLDER, HubModel, fetch_model, parse_source
from worker.errors import ConfigError, EngineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_bundled_is_the_folder_inside_the_package() -> None:
    assert parse_source("bundled") == BUNDLED_FOLDER


def test_a_folder_is_taken_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert parse_source("org/model") == Path("org/model")


@pytest.mark.parametrize("repository", ["org/some-model.v2", "plain-model"])
def test_a_hub_id_with_a_commit_is_a_hub_model(repository: str) -> None:
    assert parse_source(f"{repository}@{COMMIT}") == HubModel(repository, COMMIT)


@pytest.mark.parametrize("model", ["org/model", "org/model@main", "org/model@v1.0", f"org/model@{COMMIT[:12]}"])
def test_a_hub_id_without_a_pinned_commit_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="pinned revision: org/model@"):
        parse_source(model)


@pytest.mark.parametrize("model", ["/no/such/folder", "./models/none", "a/b/c", ""])
def test_a_folder_that_does_not_exist_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        parse_source(model)


def test_only_data_files_of_the_pinned_commit_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(repository: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(write_tiny_model(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)

    folder = fetch_model(f"org/model@{COMMIT}")

    assert folder.name == f"org/model@{COMMIT}"
    assert (asked["repository"], asked["revision"]) == ("org/model", COMMIT)
    patterns = asked["patterns"]
    assert isinstance(patterns, list)
    assert not [
        name for name in patterns if name.endswith((".py", ".bin", ".pt", "*")) and name != "openvino_model.bin"
    ]


@pytest.mark.parametrize(
    "error", [huggingface_hub.errors.LocalEntryNotFoundError("offline"), OSError("no route"), ValueError("odd")]
)
def test_a_hub_out_of_reach_is_a_typed_error_that_names_the_model(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(EngineError, match=f"org/model@{COMMIT} cannot be downloaded"):
        fetch_model(f"org/model@{COMMIT}")
