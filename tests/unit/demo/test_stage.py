"""What a demo runs on."""

from pathlib import Path

import pytest

from worker.demo.stage import Broker, LabelFolder, demo_config, label_folder
from worker.errors import ConfigError
from worker.labels.registry import LabelRegistry
from worker.labels.sources import DirectorySource

BROKER = Broker("kafka", "a broker", "127.0.0.1:9092", "exactly_once")


def test_the_folder_first_holds_one_version_of_each_label_schema_and_then_the_changed_one(tmp_path: Path) -> None:
    folder, registry = LabelFolder(tmp_path), LabelRegistry()
    source = DirectorySource(folder.path)

    source.load_or_raise(registry)
    before = {name: registry.versions(name) for name in registry.names()}
    folder.put("support-intent.v2.yaml")
    source.refresh(registry)

    assert {"post-tags": (1,), "support-intent": (1,)} == before
    assert (1, 2) == registry.versions("support-intent")
    assert () == registry.refusals()


def test_the_folder_goes_with_the_demo() -> None:
    with label_folder() as folder:
        path = folder.path

    assert not path.exists()


def test_the_environment_of_another_worker_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_DELIVERY", "at_least_once")
    monkeypatch.setenv("WORKER_KAFKA__SECURITY_PROTOCOL", "ssl")
    monkeypatch.setenv("WORKER_HTTP__PORT", "1")

    config = demo_config(BROKER, Path("labels"), "fake")

    assert ("exactly_once", "plaintext", 0) == (config.delivery, config.kafka.security_protocol, config.http.port)


def test_both_topics_have_the_outputs_they_would_have_by_default() -> None:
    config = demo_config(BROKER, Path("labels"), "auto")

    assert [
        ("support", "support.predictions", "support.dlq", "support-intent"),
        ("posts", "posts.predictions", "posts.dlq", "post-tags"),
    ] == [(each.input, each.output_topic, each.dead_letter_topic, each.label_schema) for each in config.topics]


def test_an_unknown_engine_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^engine: "):
        demo_config(BROKER, Path("labels"), "abacus")
