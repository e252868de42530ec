"""The configuration: its order, its checks, and what is said of it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from worker.config import Config, load_config
from worker.documents import inner_model
from worker.errors import ConfigError
from worker.messages.inbound import InputFields
from worker.messages.outbound import OutputShape

SECRET = "zq-secret-7f3"  # noqa: S105 - nobody's
OAUTH = {"oauth_token_url": "https://t", "oauth_client_id": "c"}
MINIMAL: dict[str, Any] = {"kafka": {"bootstrap_servers": "b:9092", "group_id": "g"}, "topics": [{"input": "in"}]}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("WORKER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "worker.yaml"


def load(file: Path, document: object, overrides: dict[str, Any] | None = None) -> Config:
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return load_config(file, overrides)


def refusal(file: Path, document: object, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, document, overrides)
    return str(caught.value)


def with_kafka(**more: object) -> dict[str, Any]:
    return {**MINIMAL, "kafka": {**MINIMAL["kafka"], **more}}


def with_topic(**more: object) -> dict[str, Any]:
    return {**MINIMAL, "topics": [{"input": "in", **more}]}


def test_servers_group_and_one_topic_are_enough(file: Path) -> None:
    config = load(file, MINIMAL)
    assert ("in.predictions", "in.dlq") == (config.topics[0].output_topic, config.topics[0].dead_letter_topic)
    assert ("exactly_once", "bundled", "auto", None) == (
        config.delivery,
        config.model,
        config.engine,
        config.schemas.directory,
    )
    assert InputFields() == config.topics[0].input_fields
    assert OutputShape("in.predictions", max_bytes=5) == config.topics[0].output_shape(5)
    assert {"bootstrap.servers": "b:9092", "security.protocol": "plaintext"} == config.kafka.connection()
    assert 1_000_000 == config.max_record_bytes


def test_command_line_goes_before_environment_and_that_before_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_HTTP__PORT", "2")
    monkeypatch.setenv("WORKER_LIMITS__PAIRS", "2")
    monkeypatch.setenv("WORKER_KAFKA__LIBRDKAFKA", '{"linger.ms": 7}')
    document = {
        **with_kafka(librdkafka={"linger.ms": 5, "fetch.min.bytes": 9}),
        "http": {"port": 1, "host": "h"},
        "limits": {"pairs": 1, "labels": 1},
    }
    config = load(file, document, {"http": {"port": 3}})
    assert (3, "h", 2, 1) == (config.http.port, config.http.host, config.limits.pairs, config.limits.labels)
    assert {"linger.ms": 7, "fetch.min.bytes": 9} == config.kafka.librdkafka


def test_a_list_is_taken_from_the_environment_as_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TOPICS", '[{"input": "other"}]')
    assert ["other"] == [binding.input for binding in load(file, MINIMAL).topics]
    monkeypatch.setenv("WORKER_TOPICS", "[" + SECRET)
    message = refusal(file, MINIMAL)
    assert message.startswith("environment: expected JSON")
    assert "topics" in message
    assert SECRET not in message


def test_paths_in_the_file_are_relative_to_its_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "models").mkdir()
    document = {**MINIMAL, "schemas": {"directory": "s"}, "cache_dir": "/c", "model": "models", "engine": "openvino"}
    config = load(file, document)
    assert (file.parent / "s", Path("/c"), str(file.parent / "models")) == (
        config.schemas.directory,
        config.cache_dir,
        config.model,
    )
    monkeypatch.setenv("WORKER_SCHEMAS__DIRECTORY", "elsewhere")
    assert Path("elsewhere") == load(file, document).schemas.directory
    assert "org/name@rev" == load(file, {**MINIMAL, "model": "org/name@rev"}).model


REFUSED: list[tuple[object, str]] = [
    ("a: [", "expected YAML"),
    ("a: 1\na: 2\n", "a: expected each key once (line 2, column 1)"),
    ("- a", "expected a mapping with kafka and topics"),
    ("", "expected a mapping with kafka and topics"),
    ({"kafka": None, "topics": []}, "kafka: expected a mapping"),
    ({"topics": [{"input": "in"}]}, "kafka: expected a value; the key is missing"),
    ({"kafka": MINIMAL["kafka"]}, "topics: expected a value; the key is missing"),
    ({**MINIMAL, "topics": []}, "topics: expected at least 1, not 0"),
    ({**MINIMAL, "topic": []}, "topic: expected no such key"),
    ({**MINIMAL, "engine": "onnx"}, "engine: expected 'auto', 'tensorrt'"),
    ({**MINIMAL, "engine": "tensorrt"}, "engine: expected 'auto' or 'openvino' with `model: bundled`"),
    ({**MINIMAL, "pytorch": {"compiled": True}}, "pytorch.compiled: expected only with `pytorch.layout: padded`"),
    ({**MINIMAL, "http": {"port": 70000}}, "http.port: expected a number of at most 65535"),
    ({**MINIMAL, "limits": {"labels": 0}}, "limits.labels: expected a number above 0"),
    ({**MINIMAL, "drain_seconds": -1}, "drain_seconds: expected a number of at least 0"),
    ({**MINIMAL, "schemas": {"topic": "a b"}}, "schemas.topic: expected"),
    ({**MINIMAL, "schemas": {"create": True}}, "schemas.create: expected `schemas.topic` beside it"),
    ({**MINIMAL, "schemas": {"status_topic": "t"}}, "schemas.status_topic: expected `schemas.topic` beside it"),
    (
        {**MINIMAL, "schemas": {"topic": "t", "status_topic": "t"}},
        "schemas.status_topic: expected another topic than `schemas.topic`",
    ),
    (
        {**MINIMAL, "schemas": {"topic": MINIMAL["topics"][0]["input"]}},
        "schemas.topic: expected a topic of its own; a binding reads or writes it",
    ),
    (with_kafka(group_id=""), "kafka.group_id: expected a string that is not empty"),
    (with_kafka(group_ip="g"), "kafka.group_ip: expected no such key; did you mean `group_id`?"),
    (with_kafka(fruit="g"), "kafka.fruit: expected no such key; it is not known"),
    (
        {"kafka": {"bootstrap_server": "h:1", "group_id": "g"}, "topics": [{"input": "in"}]},
        "kafka.bootstrap_server: expected no such key; did you mean `bootstrap_servers`?",
    ),
    ({"kafka": MINIMAL["kafka"], "topic": []}, "topic: expected no such key; did you mean `topics`?"),
    (
        {"kafka": {"fruit": 1, "group_id": "g"}, "topics": [{"input": "in"}]},
        "kafka.bootstrap_servers: expected a value",
    ),
    (
        {**MINIMAL, "topics": [{"input": "in", "label_schemas": "x"}]},
        "topics.0.label_schemas: expected no such key; did you mean `label_schema`?",
    ),
    ({**MINIMAL, "registry": {"user": "x", "urls": "x"}}, "registry.urls: expected no such key; did you mean `url`?"),
    (with_kafka(static_membership=True), "kafka.static_membership: expected `kafka.instance_id` beside it"),
    (with_kafka(instance_id="check"), "kafka.instance_id: expected another name: `worker check` has it"),
    (
        with_kafka(instance_id="dead-letters-replay"),
        "kafka.instance_id: expected another name: `worker dead-letters replay` has it",
    ),
    (with_kafka(librdkafka={"linger.ms": [1]}), "kafka.librdkafka.linger.ms: expected a string, an integer, true or"),
    (with_kafka(librdkafka={"message.max.bytes": "x"}), "kafka.librdkafka.message.max.bytes: expected a number"),
    (
        with_kafka(librdkafka={"queue.buffering.max.kbytes": "-1"}),
        "kafka.librdkafka.queue.buffering.max.kbytes: expected a number of kilobytes",
    ),
    (with_kafka(librdkafka={"ssl.key.pem": SECRET}), "kafka.librdkafka.ssl.key.pem: expected in the environment"),
    (with_kafka(sasl_password=SECRET), "kafka.sasl_password: expected in the environment (WORKER_KAFKA__SASL_PASSWORD"),
    (
        with_kafka(sasl_password_file="none"),  # noqa: S106 - a path
        "kafka.sasl_password_file: expected a file that can be read; there is no such file",
    ),
    (
        with_topic(input="^in(.*"),
        "topics.0.input: expected a regular expression after ^, in the syntax of Python",
    ),
    (with_topic(output="^out"), "topics.0.output: expected a topic's name; only `input` may be a regular expression"),
    (
        with_topic(input="^in", output="out"),
        "topics.0.output: expected {topic} in it, since `input` is a regular expression",
    ),
    (with_topic(input="^in", output="{topic}"), "topics.0.output: expected another topic than the input"),
    (
        {**MINIMAL, "topics": [{"input": "^in"}, {"input": "in.dlq"}]},
        "topics.1.input: expected a topic that is not written; topics.0 would write it",
    ),
    (
        {**MINIMAL, "topics": [{"input": "^in"}, {"input": "^in"}]},
        "topics.1.input: expected a topic of its own; it is that of topics.0",
    ),
    (
        {**with_topic(input="^in"), "schemas": {"topic": "in.predictions"}},
        "schemas.topic: expected a topic of its own; a binding reads or writes it",
    ),
    (with_topic(input="a b"), "topics.0.input: expected a topic's name"),
    (with_topic(input=".."), "topics.0.input: expected a topic's name"),
    (with_topic(output="{topik}"), "topics.0.output: expected a topic's name"),
    (with_topic(input="a" * 249), "topics.0.output: expected a topic's name"),
    (with_topic(output="x", dead_letter="x"), "topics.0.dead_letter: expected a topic other than `output`"),
    (with_topic(output="in"), "topics.0.output: expected a topic that is not read; topics.0 reads it"),
    (with_topic(label_schema="a@b"), "topics.0.label_schema: expected a label schema as name or name@version"),
    (with_topic(label_schema="inline"), "topics.0.label_schema: expected a label schema as name or name@version"),
    (with_topic(format="avro"), "topics.0.format: expected only with `registry.url`, the schema registry's address"),
    (with_topic(output_format="avro"), "topics.0.output_format: expected only with `registry.url`"),
    (with_topic(format="cloudevents", emit="merge"), "topics.0.emit: expected 'envelope' or 'prediction'; only JSON"),
    (with_topic(output_format="avro", emit="merge"), "topics.0.output_format: expected 'json' with `emit: merge`"),
    (with_topic(format="cloudevents", output_format="avro"), "topics.0.output_format: expected 'json' with `format:"),
    (with_topic(format="xml"), "topics.0.format: expected 'json', 'text', 'json_schema', 'avro', 'protobuf' or"),
    (with_kafka(oauth_client_id="c"), "kafka.oauth_client_id: expected only with `sasl_mechanism: OAUTHBEARER`"),
    (with_kafka(sasl_mechanism="PLAIN"), "kafka.sasl_mechanism: expected a mechanism with `sasl_ssl`"),
    (with_kafka(security_protocol="sasl_ssl"), "kafka.sasl_mechanism: expected a mechanism with `sasl_ssl`"),
    (with_kafka(oauth_client_secret="s"), "kafka.oauth_client_secret: expected in the environment"),  # noqa: S106
    ({**MINIMAL, "http": {"token": "t"}}, "http.token: expected in the environment (WORKER_HTTP__TOKEN)"),
    (
        {**MINIMAL, "registry": {"url": "http://r", "password": "p"}},
        "registry.password: expected in the environment (WORKER_REGISTRY__PASSWORD) or in `registry.password_file`",
    ),
    ({**MINIMAL, "registry": {"url": "http://user:secret@r"}}, "registry.url: expected"),
    (
        {**MINIMAL, "registry": {"url": "http://r", "oauth_client_secret": "s"}},
        "registry.oauth_client_secret: expected in the environment (WORKER_REGISTRY__OAUTH_CLIENT_SECRET)",
    ),
    (
        {**MINIMAL, "registry": {"url": "http://r", "oauth_client_id": "c"}},
        "registry.oauth_token_url: expected it beside the other keys of OAuth",
    ),
    (
        {**MINIMAL, "registry": {"url": "http://r", "oauth_token_url": "http://t"}},
        "registry.oauth_client_id: expected it and the client's secret",
    ),
    (
        {**MINIMAL, "registry": {"url": "http://r", "oauth_token_url": "http://t", "username": "u"}},
        "registry.username: expected either basic authentication or OAuth",
    ),
    (with_topic(text="body"), "topics.0.text.0: expected a JSON Pointer, which starts with /"),
    (with_topic(text=[]), "topics.0.text: expected at least 1, not 0"),
    (with_topic(id="/a~2"), "topics.0.id: expected a JSON Pointer"),
    (with_topic(format="text", text="/a"), "topics.0.text: expected only with `format: json`"),
    (with_topic(format="text", emit="merge"), "topics.0.emit: expected 'envelope' or 'prediction'"),
    (with_topic(emit="all"), "topics.0.emit: expected 'envelope', 'merge' or 'prediction'"),
    (with_topic(merge_field=" "), "topics.0.merge_field: expected a name that is not blank"),
    (with_topic(routes={"a": "in"}), "topics.0.routes: expected a topic that is not read; topics.0 reads it"),
    (with_topic(routes={"a": "in.dlq"}), "topics.0.routes: expected topics other than `output` and `dead_letter`"),
    (with_topic(routes={"a": "in.predictions"}), "topics.0.routes: expected topics other than `output`"),
    (with_topic(routes={"a": "b c"}), "topics.0.routes.a: expected a topic's name"),
    (with_topic(routes=["b"]), "topics.0.routes: expected a mapping"),
    (with_topic(max_age_seconds=0), "topics.0.max_age_seconds: expected a number above 0"),
    (with_topic(max_age_seconds=".inf"), "topics.0.max_age_seconds: expected a number"),
    (with_topic(late="mark"), "topics.0.late: expected only with `max_age_seconds`"),
    (with_topic(max_age_seconds=5, late="drop"), "topics.0.late: expected 'predict', 'mark' or 'dead_letter'"),
    (with_topic(overrides={"labels": "maybe"}), "topics.0.overrides.labels: expected 'allow' or 'forbid'"),
    (
        {**MINIMAL, "topics": [{"input": "in"}, {"input": "in"}]},
        "topics.1.input: expected a topic of its own; it is that of topics.0",
    ),
    (
        {**MINIMAL, "topics": [{"input": "in"}, {"input": "in.dlq"}]},
        "topics.0.dead_letter: expected a topic that is not read; topics.1 reads it",
    ),
]


@pytest.mark.parametrize(("document", "expected"), REFUSED)
def test_a_refusal_names_file_key_and_what_was_expected(file: Path, document: object, expected: str) -> None:
    message = refusal(file, document)
    assert message.startswith(f"{file}: {expected}")
    assert SECRET not in message


@pytest.mark.parametrize(
    "key",
    [
        *(f"kafka.{name}_location" for name in ("ssl_ca", "ssl_certificate", "ssl_key", "oauth_ca")),
        *(f"registry.{name}_location" for name in ("ssl_ca", "ssl_certificate", "ssl_key")),
    ],
)
def test_a_file_that_a_key_names_has_to_be_there(file: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    part, _, name = key.partition(".")
    # What each of them wants beside it.
    for beside in ("certificate", "key", "ca"):
        (file.parent / beside).touch()
    pair = {"ssl_certificate_location": "certificate", "ssl_key_location": "key", "ssl_ca_location": "ca"}
    basis = {"kafka": {**MINIMAL["kafka"], "security_protocol": "ssl"}, "registry": {"url": "https://r"}}
    if name == "oauth_ca_location":
        more = {**OAUTH, "oauth_client_secret_file": "secret"}
        basis["kafka"] |= {"security_protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER", **more}
        (file.parent / "secret").write_text(SECRET)
    document = {**MINIMAL, **basis, part: {**basis[part], **pair, name: "none.pem"}}
    told = f"{key}: expected a file that can be read; there is no such file"
    assert refusal(file, document).startswith(f"{file}: {told}")
    (file.parent / "none.pem").touch()
    assert load(file, document).kafka.group_id
    monkeypatch.setenv(variable := f"WORKER_{key.upper().replace('.', '__')}", str(file.parent / SECRET))
    message = refusal(file, document)
    assert message.startswith(f"environment, {variable}: {told}")
    assert SECRET not in message, "somebody may have taken the key for that of the secret"
    if not name.endswith("_ca_location"):
        monkeypatch.setenv(variable, str(file.parent))
        assert f"{key}: expected a file that can be read; it is a folder" in refusal(file, document)


NO_LOGIN = (
    "kafka.sasl_password: expected the user's password in the environment (WORKER_KAFKA__SASL_PASSWORD) or in a file "
    "that `kafka.sasl_password_file` names"
)
LOGINS: list[tuple[dict[str, Any], list[str]]] = [
    ({"sasl_mechanism": "SCRAM-SHA-512", "sasl_username": "u"}, [NO_LOGIN]),
    (
        {"sasl_mechanism": "PLAIN"},
        ["kafka.sasl_username: expected the user, with `sasl_mechanism: PLAIN`", NO_LOGIN],
    ),
    (
        {"sasl_mechanism": "OAUTHBEARER"},
        [
            "kafka.oauth_token_url: expected where tokens are issued, with `sasl_mechanism: OAUTHBEARER`",
            "kafka.oauth_client_id: expected the client, with `sasl_mechanism: OAUTHBEARER`",
            (
                "kafka.oauth_client_secret: expected the client's secret in the environment "
                "(WORKER_KAFKA__OAUTH_CLIENT_SECRET) or in a file that `kafka.oauth_client_secret_file` names"
            ),
        ],
    ),
    (
        {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "u", "sasl_password_file": "empty"},
        ["kafka.sasl_password_file: expected a secret that is not empty"],
    ),
    (
        {"security_protocol": "ssl", "ssl_key_location": "empty"},
        ["kafka.ssl_certificate_location: expected the certificate of the key, beside `kafka.ssl_key_location`"],
    ),
    (
        {"security_protocol": "ssl", "ssl_certificate_location": "empty"},
        ["kafka.ssl_key_location: expected the certificate's key, beside `kafka.ssl_certificate_location`"],
    ),
]


@pytest.mark.parametrize(("login", "problems"), LOGINS)
def test_what_a_way_to_connect_lacks_is_named_before_any_broker_is_asked(
    file: Path, login: dict[str, Any], problems: list[str]
) -> None:
    (file.parent / "empty").touch()
    said = refusal(file, with_kafka(**{"security_protocol": "sasl_ssl", **login}))
    assert [f"{file}: {problem}" for problem in problems] == said.splitlines()


@pytest.mark.parametrize(
    ("login", "by_hand"),
    [
        ({"sasl_mechanism": "OAUTHBEARER"}, {"enable.sasl.oauthbearer.unsecure.jwt": True}),
        ({"sasl_mechanism": "OAUTHBEARER"}, {"sasl.oauthbearer.metadata.authentication.type": "azure_imds"}),
        ({"security_protocol": "ssl", "ssl_certificate_location": "there"}, {"ssl.keystore.location": "s"}),
        ({"sasl_mechanism": "GSSAPI"}, {}),
    ],
)
def test_what_librdkafka_is_given_by_hand_is_not_asked_for(
    file: Path, login: dict[str, Any], by_hand: dict[str, Any]
) -> None:
    (file.parent / "there").touch()
    load(file, with_kafka(**{"security_protocol": "sasl_ssl", **login}, librdkafka=by_hand))


def test_an_empty_token_does_not_open_the_port(file: Path) -> None:
    (file.parent / "token").write_text("\n")
    assert f"{file}: http.token_file: expected a secret that is not empty" == refusal(
        file, {**MINIMAL, "http": {"token_file": "token"}}
    )


def test_everything_that_is_wrong_is_told_each_on_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_HTTP__PORT", SECRET)
    document = {
        **with_topic(emit="all", format="xml", output="a b", label_schemas="x"),
        "engine": "onnx",
        "limits": {"labels": 0},
    }
    said = refusal(file, document)
    assert [
        f"{file}: engine: expected",
        f"{file}: limits.labels: expected",
        "environment, WORKER_HTTP__PORT: http.port: expected",
        f"{file}: topics.0.output: expected",
        f"{file}: topics.0.format: expected",
        f"{file}: topics.0.emit: expected",
        f"{file}: topics.0.label_schemas: expected",
    ] == [line[: line.index("expected") + len("expected")] for line in said.splitlines()]
    assert SECRET not in said


def test_a_misspelt_key_is_one_problem(file: Path) -> None:
    document = {"kafka": {"bootstrap_server": "h:1", "group_id": "g"}, "topics": [{"input": "in", "emit": "all"}]}
    assert 2 == len(refusal(file, document).splitlines())


OWNED = [
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "isolation.level",
    "transactional.id",
    "group.id",
    "group.instance.id",
    "allow.auto.create.topics",
    "partition.assignment.strategy",
    "sasl.password",
]


def test_the_reserved_keys_may_stand_in_the_file_without_a_value(file: Path) -> None:
    document = {
        **with_topic(routes=None, max_age_seconds=None),
        "schemas": {"directory": None, "topic": None, "status_topic": None, "create": False},
    }
    assert load(file, MINIMAL).model_dump() == load(file, document).model_dump()


@pytest.mark.parametrize("name", OWNED)
def test_a_setting_that_the_worker_owns_is_refused_with_its_reason(file: Path, name: str) -> None:
    message = refusal(file, with_kafka(librdkafka={name: SECRET}))
    assert message.startswith(f"{file}: kafka.librdkafka.{name}: expected not to be set here: ")
    assert SECRET not in message


def test_a_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    told = "there is no such file; `worker init` writes a first one, -c names another"
    assert f"{file}: {told}" == str(caught.value)


def test_a_refusal_names_the_variable_or_the_command_line_where_the_value_stands_there(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "command line: http.port: expected an integer" == refusal(file, MINIMAL, {"http": {"port": "x"}})
    monkeypatch.setenv("WORKER_HTTP__PORT", SECRET)
    assert "environment, WORKER_HTTP__PORT: http.port: expected an integer" == refusal(file, MINIMAL)


def test_a_password_comes_from_the_environment_and_is_never_shown(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", SECRET)
    monkeypatch.setenv("WORKER_KAFKA__LIBRDKAFKA", '{"ssl.keystore.password": "' + SECRET + '"}')
    config = load(file, with_kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN", sasl_username="u"))
    assert {
        "bootstrap.servers": "b:9092",
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "u",
        "sasl.password": SECRET,
        "ssl.keystore.password": SECRET,
    } == config.kafka.connection()
    assert SECRET not in repr(config)
    assert SECRET not in str(config.kafka)
    message = refusal(file, with_kafka(sasl_password_file="f"))  # noqa: S106 - a path
    assert "expected either the file or the environment variable, not both" in message
    assert SECRET not in message


SECRETS: dict[str, dict[str, Any]] = {
    "kafka.sasl_password": with_kafka(security_protocol="sasl_ssl", sasl_mechanism="PLAIN", sasl_username="u"),
    "kafka.oauth_client_secret": with_kafka(security_protocol="sasl_ssl", sasl_mechanism="OAUTHBEARER", **OAUTH),
    "kafka.ssl_key_password": with_kafka(security_protocol="ssl"),
    "registry.password": {**MINIMAL, "registry": {"url": "https://r", "username": "u"}},
    "registry.oauth_client_secret": {**MINIMAL, "registry": {"url": "https://r", **OAUTH}},
    "http.token": MINIMAL,
}
"""Every key that holds a secret, and a configuration that has a use for it."""


def secret_keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        if inner is not None:
            found |= secret_keys(inner, f"{prefix}{name}.")
        elif "SecretStr" in str(field.annotation):
            found.add(f"{prefix}{name}")
    return found


def assert_shown_nowhere(config: Config) -> None:
    part = (config.kafka, config.registry, config.http)
    shown = (repr(config), str(config), str(part), repr(part), repr(config.model_dump()), config.model_dump_json())
    assert [] == [text for text in shown if SECRET in text]


def test_every_key_that_holds_a_secret_is_looked_at_below() -> None:
    assert set(SECRETS) == secret_keys(Config)


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_comes_from_the_environment_and_is_shown_nowhere(
    file: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv(f"WORKER_{key.upper().replace('.', '__')}", SECRET)
    config = load(file, SECRETS[key])
    part, _, name = key.partition(".")
    assert SECRET == getattr(getattr(config, part), name).get_secret_value()
    assert_shown_nowhere(config)


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_in_the_file_is_refused_with_where_it_belongs(file: Path, key: str) -> None:
    part, _, name = key.partition(".")
    document = {**SECRETS[key], part: {**SECRETS[key].get(part, {}), name: SECRET}}
    message = refusal(file, document)
    assert f"{key}: expected in the environment (WORKER_{part.upper()}__{name.upper()}) or in `{key}_file`" in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "name", ["ssl.key.pem", "ssl.keystore.password", "sasl.oauthbearer.assertion.private.key.passphrase"]
)
def test_a_secret_that_is_passed_on_to_the_client_is_shown_nowhere(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    message = refusal(file, with_kafka(librdkafka={name: SECRET}))
    assert f"kafka.librdkafka.{name}: expected in the environment (WORKER_KAFKA__LIBRDKAFKA, as JSON)" in message
    assert SECRET not in message
    monkeypatch.setenv("WORKER_KAFKA__LIBRDKAFKA", json.dumps({name: SECRET}))
    config = load(file, MINIMAL)
    assert SECRET == config.kafka.connection()[name]
    assert_shown_nowhere(config)


def test_a_password_can_stand_in_a_file_beside_the_configuration(file: Path) -> None:
    (file.parent / "password").write_text(SECRET + "\n", encoding="utf-8")
    config = load(file, with_kafka(sasl_password_file="password"))  # noqa: S106 - a path
    assert SECRET == config.kafka.connection()["sasl.password"]


def test_what_is_not_bound_is_not_read_where_the_text_is(file: Path) -> None:
    binding = load(
        file, with_topic(text="/a/0", labels="/l", multi_label_from="/m", overrides={"labels": "forbid"})
    ).topics[0]
    assert (
        InputFields(
            text=(("a", "0"),),
            id=None,
            labels=("l",),
            label_schema=None,
            hypothesis_template=None,
            multi_label=("m",),
            allowed=frozenset({"label_schema", "hypothesis_template", "multi_label"}),
        )
        == binding.input_fields
    )


def test_the_largest_record_is_the_client_s(file: Path) -> None:
    assert 5000 == load(file, with_kafka(librdkafka={"message.max.bytes": "5000"})).max_record_bytes


def test_a_record_that_would_never_find_room_in_the_client_s_queue_is_too_large(file: Path) -> None:
    queue = {"queue.buffering.max.kbytes": "4"}
    assert 4096 == load(file, with_kafka(librdkafka=queue)).max_record_bytes
    assert 3000 == load(file, with_kafka(librdkafka={"message.max.bytes": 3000, **queue})).max_record_bytes


def _fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str | None]]:
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field.description
        annotations = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in annotations:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part, f"{path}{name}.")


@pytest.mark.parametrize(("name", "description"), list(_fields(Config)))
def test_every_key_is_described(name: str, description: str | None) -> None:
    assert description, name


def test_a_configuration_does_not_change(file: Path) -> None:
    config = load(file, MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        config.model = "x"


def test_the_status_topic_is_named_after_the_label_topic_unless_it_is_set(file: Path) -> None:
    assert load(file, MINIMAL).schemas.answers_topic is None
    assert "labels.status" == load(file, {**MINIMAL, "schemas": {"topic": "labels"}}).schemas.answers_topic
    named = {**MINIMAL, "schemas": {"topic": "labels", "status_topic": "answers"}}
    assert "answers" == load(file, named).schemas.answers_topic


def test_nothing_is_traced_unless_an_endpoint_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(file, MINIMAL).tracing.endpoint is None
    monkeypatch.setenv("WORKER_TRACING__ENDPOINT", "http://collector:4318")
    tracing = load(file, MINIMAL).tracing
    assert ("http://collector:4318", "http/protobuf", 1.0) == (tracing.endpoint, tracing.protocol, tracing.sample_ratio)


@pytest.mark.parametrize(
    "tracing",
    [
        {"endpoint": f"http://user:{SECRET}@collector:4318"},
        {"endpoint": f"https://collector/v1/traces?key={SECRET}"},
        {"endpoint": SECRET},
        {"protocol": SECRET},
        {"sample_ratio": 1.5},
        {"headers": {"authorization": SECRET}},
    ],
)
def test_tracing_that_cannot_be_used_is_refused_and_not_quoted(file: Path, tracing: dict[str, Any]) -> None:
    said = refusal(file, {**MINIMAL, "tracing": tracing})
    assert f"tracing.{next(iter(tracing))}" in said
    assert SECRET not in said
