"""Label schemas in a folder, and following it."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker.errors import SchemaError
from worker.labels.registry import LabelRegistry, RegistryChange
from worker.labels.sources import DirectorySource

DEADLINE_SECONDS = 30.0


def write(path: Path, version: int, name: str = "support") -> None:
    path.write_text(json.dumps({"name": name, "version": version, "labels": [{"name": "a"}]}), encoding="utf-8")


class Changes:
    """Waits for the registry to say what it did."""

    def __init__(self, registry: LabelRegistry) -> None:
        self._heard: list[RegistryChange] = []
        self._more = threading.Condition()
        registry.subscribe(self._hear)

    def _hear(self, change: RegistryChange) -> None:
        with self._more:
            self._heard.append(change)
            self._more.notify_all()

    def wait_for_version(self, version: int) -> None:
        self._wait(lambda: any(schema.version == version for change in self._heard for schema in change.now_in_force))

    def wait_for_refusal(self) -> None:
        self._wait(lambda: any(change.refused for change in self._heard))

    def _wait(self, predicate: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(predicate, DEADLINE_SECONDS)


@contextmanager
def watching(source: DirectorySource, registry: LabelRegistry) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=source.watch, args=(registry, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


def test_every_document_of_the_folder_is_loaded_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "b.json", 2)
    (tmp_path / "a.yaml").write_text("name: news\nversion: 1\nlabels: [{name: yes it is}]\n", encoding="utf-8")
    (tmp_path / "c.yml").write_text("name: reviews\nversion: 1\nlabels: [{name: 2024-01-01}]\n", encoding="utf-8")
    (tmp_path / ".hidden.yaml").write_text("]", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("]", encoding="utf-8")
    (tmp_path / "messages.json").mkdir()
    registry = LabelRegistry()
    DirectorySource(tmp_path).load_or_raise(registry)
    assert ("news", "reviews", "support") == registry.names()
    assert [str(tmp_path / name) for name in ("a.yaml", "b.json", "c.yml")] == list(
        DirectorySource(tmp_path).read().documents
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [", "expected YAML"),
        ("name: a\nname: b", "name: expected each key once (line 2, column 1)"),
        ("name: a\nversion: 1\nlabels: [{name: on}]", "labels.0.name: expected a string"),
        ("name: a", "version: expected a value; the key is missing"),
        ("- a", "expected a mapping with name, version and labels"),
        ("\udcff", "expected UTF-8; byte 0 is not"),
    ],
)
def test_a_broken_file_is_named_with_key_and_what_was_expected(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SchemaError) as caught:
        DirectorySource(tmp_path).load_or_raise(LabelRegistry())
    assert str(caught.value).startswith(f"{file}: {expected}")


def test_a_registry_that_saw_every_change_and_one_that_starts_on_the_folder_agree(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1)
    old, young = LabelRegistry(model_digest="sha256:ours"), LabelRegistry(model_digest="sha256:ours")
    source = DirectorySource(tmp_path)
    source.load(old)
    foreign = {"name": "support", "version": 2, "labels": [{"name": "a"}], "requires_model": "sha256:" + "0" * 64}
    (tmp_path / "b.json").write_text(json.dumps(foreign), encoding="utf-8")
    (tmp_path / "c.yaml").write_text("name: [", encoding="utf-8")
    source.refresh(old)
    DirectorySource(tmp_path).load(young)
    assert [str(tmp_path / name) for name in ("c.yaml", "b.json")] == [each.origin for each in young.refusals()]
    assert (old.refusals(), old.versions("support")) == (young.refusals(), young.versions("support"))
    assert old.current("support") == young.current("support") is not None


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="none: expected a folder that can be read"):
        DirectorySource(tmp_path / "none").load(LabelRegistry())


def test_a_change_in_the_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1)
    registry = LabelRegistry()
    changes = Changes(registry)
    source = DirectorySource(tmp_path)
    source.load_or_raise(registry)
    with watching(source, registry):
        write(tmp_path / "a.json", 2)
        changes.wait_for_version(2)
        (tmp_path / "a.json").write_text("{", encoding="utf-8")
        changes.wait_for_refusal()
        assert (1, 2) == registry.versions("support")
        write(tmp_path / "a.json", 3)
        changes.wait_for_version(3)
        assert () == registry.refusals()


def test_a_mounted_config_map_is_followed(tmp_path: Path) -> None:
    for version in (1, 2):
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        write(folder / "a.json", version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.json").symlink_to("..data/a.json")
    registry = LabelRegistry()
    changes = Changes(registry)
    source = DirectorySource(tmp_path)
    source.load_or_raise(registry)
    assert (1,) == registry.versions("support")
    with watching(source, registry):
        (tmp_path / "..data_tmp").symlink_to("..2")
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")  # noqa: PTH105 - as the kubelet does it
        changes.wait_for_version(2)


def test_a_folder_that_goes_and_comes_back_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    registry = LabelRegistry()
    changes = Changes(registry)
    source = DirectorySource(folder, poll_seconds=0.05)
    with watching(source, registry):
        changes.wait_for_refusal()
        folder.mkdir()
        write(folder / "a.json", 5)
        changes.wait_for_version(5)


def test_a_folder_that_did_not_change_is_not_loaded_again(tmp_path: Path) -> None:
    write(tmp_path / "a.json", 1)
    registry = LabelRegistry()
    source = DirectorySource(tmp_path)
    source.load_or_raise(registry)
    fresh = LabelRegistry()
    source.refresh(fresh)
    assert () == fresh.names()
    write(tmp_path / "b.json", 1, "other")
    source.refresh(fresh)
    assert ("other", "support") == fresh.names()
