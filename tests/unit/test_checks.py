"""What `worker check` says without a cluster."""

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from tests.support.plans import write_folder
from worker import checks
from worker.app import open_worker
from worker.assembler import Assembler, engine_choice
from worker.checks import _of_schemas, _of_source, _of_tracing, _registry
from worker.clock import ManualClock
from worker.config import Config, fixed_config
from worker.engines import trt_api
from worker.engines.load import EngineChoice, load_engine
from worker.errors import SchemaError
from worker.kafka.registry_parts import RegistryParts
from worker.messages.binding import Binding
from worker.settings import Kafka
from worker.types import JsonValue


def verdicts(tracing: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    """Verdict and message of all that is found about tracing."""
    kafka: Mapping[str, JsonValue] = {"bootstrap_servers": "127.0.0.1:1", "group_id": "checked"}
    config = fixed_config({"kafka": dict(kafka), "topics": [{"input": "in"}], "tracing": dict(tracing)})
    return [(finding.verdict, finding.message) for finding in _of_tracing(Assembler(config, ManualClock()))]


def test_nothing_is_said_of_tracing_that_is_off() -> None:
    assert [] == verdicts({})


def test_a_collector_that_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert [("ok", f"spans go to {endpoint}")] == verdicts({"endpoint": endpoint})


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "https://127.0.0.1:99999", "http://nobody.invalid"])
def test_a_collector_that_does_not_answer_is_a_warning(endpoint: str) -> None:
    [(verdict, message)] = verdicts({"endpoint": endpoint})
    assert "warning" == verdict
    assert endpoint in message


def test_a_missing_extra_fails_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "worker.observability.otel", raising=False)
    [(verdict, message)] = verdicts({"endpoint": "http://127.0.0.1:1"})
    assert "failed" == verdict
    assert "nli-stream-worker[otel]" in message


FOREIGN = "sha256:" + "0" * 64
REFUSED: dict[str, dict[str, JsonValue]] = {
    "label: expected no such key; did you mean `labels`?": {"label": [{"name": "a"}]},
    "requires_model: expected the model of this worker, which is another": {"requires_model": FOREIGN},
    "needs 3 pairs, the limit `limits.pairs` is 2": {"labels": [{"name": name} for name in "abc"]},
}


def label_config(folder: Path) -> Config:
    return fixed_config(
        {
            "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"},
            "engine": "fake",
            "limits": {"pairs": 2},
            "http": {"port": 0},
            "schemas": {"directory": str(folder)},
            "topics": [{"input": "in", "label_schema": "kinds"}],
        }
    )


def of_labels(config: Config) -> list[tuple[str, str, str]]:
    model = load_engine(engine_choice(config))
    labels = _registry(config, model)
    found = [*_of_source(config, labels), *_of_schemas(config, labels, model)]
    return [(each.verdict, each.subject, each.message) for each in found]


def write(folder: Path, version: int, **more: JsonValue) -> Path:
    path = folder / f"{version}.json"
    document: dict[str, JsonValue] = {"name": "kinds", "version": version, "labels": [{"name": "a"}]}
    path.write_text(json.dumps(document | more))
    return path


@pytest.mark.parametrize("reason", REFUSED)
def test_a_file_that_a_worker_refuses_and_does_without_is_a_warning(tmp_path: Path, reason: str) -> None:
    write(tmp_path, 1)
    bad = write(tmp_path, 2, **REFUSED[reason])
    assert [
        ("warning", "label schemas", f"{bad}: {reason}; a worker refuses this file and keeps the others"),
        ("ok", "label schema kinds@1", "1 labels, 1 pairs per message"),
    ] == of_labels(label_config(tmp_path))
    with open_worker(label_config(tmp_path)) as worker:
        assert (1,) == worker.labels.versions("kinds")


@pytest.mark.parametrize("reason", REFUSED)
def test_a_file_without_which_a_worker_ends_at_once_is_a_failure(tmp_path: Path, reason: str) -> None:
    bad = write(tmp_path, 2, **REFUSED[reason])
    found = of_labels(label_config(tmp_path))
    assert ["warning", "failed"] == [verdict for verdict, _, _ in found]
    assert ("failed", "in", f"its label schema kinds is not there: {bad}: {reason}") == found[1]
    with pytest.raises(SchemaError) as caught, open_worker(label_config(tmp_path)):
        pass
    assert f"{bad}: {reason}" == str(caught.value)


def test_a_folder_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    config = label_config(tmp_path / "none")
    assert ("failed", "label schemas") == of_labels(config)[0][:2]
    with pytest.raises(SchemaError), open_worker(config):
        pass


LACK = 'tensorrt is not installed: pip install "nli-stream-worker[tensorrt]"'


@pytest.mark.parametrize(
    ("model", "engine", "lack", "said"),
    [
        ("some/folder", "auto", LACK, [("ok", "tensorrt", f"not used: {LACK}")]),
        ("some/folder", "auto", None, []),
        ("some/folder", "openvino", LACK, []),
        ("bundled", "auto", LACK, []),
    ],
)
def test_what_tensorrt_lacks_is_said_where_it_might_have_been_chosen(
    monkeypatch: pytest.MonkeyPatch, model: str, engine: str, lack: str | None, said: list[tuple[str, str, str]]
) -> None:
    monkeypatch.setattr(checks, "tensorrt_absence", lambda: lack)
    found = checks._of_gpu(EngineChoice(model, engine))
    assert said == [(each.verdict, each.subject, each.message) for each in found]


def test_a_missing_tensorrt_that_is_asked_for_fails_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_api, "_MODULES", ("no_such_module",))
    document: dict[str, JsonValue] = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"},
        "model": str(write_folder(tmp_path / "model").path),
        "engine": "tensorrt",
        "cache_dir": str(tmp_path),
        "topics": [{"input": "in"}],
    }
    found = next(iter(checks.findings(Assembler(fixed_config(document), ManualClock()))))
    assert ("failed", "model") == (found.verdict, found.subject)
    assert "nli-stream-worker[tensorrt]" in found.message


@pytest.mark.parametrize(
    ("kafka", "told"),
    [
        ({"security_protocol": "ssl", "ssl_ca_location": "{folder}/no.pem"}, "kafka.ssl_ca_location: expected certifi"),
        ({"librdkafka": {"no.such": 1}}, 'kafka: the client refuses its settings (No such configuration property: "no'),
    ],
)
def test_settings_that_the_client_refuses_are_a_finding_and_the_rest_is_looked_at(
    tmp_path: Path, kafka: dict[str, JsonValue], told: str
) -> None:
    write(tmp_path, 1)
    (tmp_path / "no.pem").write_text("nothing of the kind")
    values = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in kafka.items()}
    known = label_config(tmp_path)
    config = known.model_copy(update={"kafka": Kafka.model_validate({**known.kafka.model_dump(), **values})})
    [refused, *others] = checks.look(config, ManualClock())
    assert ("failed", "configuration") == (refused.verdict, refused.subject)
    assert refused.message.startswith(told)
    assert ["model", "label schema kinds@1"] == [each.subject for each in others]


class RuledRegistry:
    """Has our schema, under a rule that no later one can follow."""

    def look_up(self, binding: Binding) -> Iterator[tuple[str, None]]:
        yield f"subject {binding.output_topic}-value", None

    def doubts(self, binding: Binding) -> Iterator[tuple[str, str]]:
        yield f"subject {binding.output_topic}-value", "set it to BACKWARD"


def test_a_rule_that_will_stop_an_upgrade_is_a_warning(tmp_path: Path) -> None:
    make = Assembler(label_config(tmp_path), ManualClock())
    make.registry = cast("RegistryParts", RuledRegistry())
    subject = "subject in.predictions-value"
    assert [("ok", subject, "the schema registry has it"), ("warning", subject, "set it to BACKWARD")] == [
        (each.verdict, each.subject, each.message) for each in checks._of_registered(make, make.config.topics[0])
    ]
