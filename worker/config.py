"""The configuration: one tree; the command line goes before the environment, that before the file and its defaults."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from worker.documents import DocumentError, MisfitError, all_problems, key_path, read_document
from worker.engine_settings import PyTorch, TensorRt
from worker.errors import ConfigError
from worker.messages.binding import REGISTRY_FORMATS, Binding
from worker.messages.bindings import Bindings
from worker.messages.outbound import MAX_RECORD_BYTES
from worker.registry_settings import Registry
from worker.setting_parts import ENV_DELIMITER, ENV_PREFIX, variable_of
from worker.settings import (
    MAX_BYTES,
    OWNED_BY_THE_WORKER,
    QUEUE_KILOBYTES,
    Batching,
    Http,
    Kafka,
    Limits,
    Schemas,
)
from worker.tracing_settings import TracingSettings
from worker.types import JsonValue

__all__ = ["Batching", "Binding", "Config", "Http", "Kafka", "Limits", "Registry", "Schemas", "load_config"]

Engine = Literal["auto", "tensorrt", "pytorch", "openvino", "t5_rank", "gliclass", "fake"]
Precision = Literal["auto", "float32", "float16", "bfloat16", "int8", "float8"]


_Source = PydanticBaseSettingsSource
SECRET_KEYS: Final = (
    ("registry", "password"),
    ("registry", "oauth_client_secret"),
    ("http", "token"),
    ("kafka", "sasl_password"),
    ("kafka", "ssl_key_password"),
    ("kafka", "oauth_client_secret"),
)
"""What no file may hold: the environment does, or a file of its own. The Helm chart refuses the same."""
SECRET_SETTING: Final = re.compile(r"passphrase|password|secret|\.pem$|jaas", re.IGNORECASE)
"""The same among the settings of librdkafka, by name."""
_RELATIVE_TO_FILE = (
    ("schemas", "directory"),
    ("cache_dir",),
    ("http", "token_file"),
    ("kafka", "oauth_ca_location"),
    ("kafka", "oauth_client_secret_file"),
    ("kafka", "sasl_password_file"),
    ("kafka", "ssl_key_password_file"),
    ("kafka", "ssl_ca_location"),
    ("kafka", "ssl_certificate_location"),
    ("kafka", "ssl_key_location"),
    ("registry", "oauth_client_secret_file"),
    ("registry", "password_file"),
    ("registry", "ssl_ca_location"),
    ("registry", "ssl_certificate_location"),
    ("registry", "ssl_key_location"),
)


class Config(BaseSettings):
    """Everything that can be set. `kafka.bootstrap_servers`, `kafka.group_id` and `topics` have no default."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    kafka: Kafka = Field(description="The cluster, and the group.")
    registry: Registry | None = Field(
        default=None, description="The schema registry; for the formats `json_schema`, `avro` and `protobuf`."
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        default="exactly_once", description="`at_least_once` has lower latency, and may publish twice after a crash."
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="bundled", description="`bundled`, a folder, or a Hugging Face id@revision."
    )
    engine: Engine = Field(default="auto", description="What runs the model; `auto` chooses and says why.")
    precision: Precision = Field(default="auto", description="What the model computes in.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Threads of the engine; null: every core this process may use."
    )
    strict: bool = Field(default=False, description="True: never fall back to another engine.")
    cache_dir: Path | None = Field(default=None, description="For built engines; null: the user's cache folder.")
    tensorrt: TensorRt = Field(
        default=TensorRt(), description="Which plan runs on a GPU; built otherwise it is another one, and not found."
    )
    pytorch: PyTorch = Field(default=PyTorch(), description="How the `pytorch` engine computes.")
    limits: Limits = Field(default=Limits(), description="What one message may ask for, and what may be in flight.")
    schemas: Schemas = Field(default=Schemas(), description="Where label schemas come from.")
    batching: Batching = Field(default=Batching(), description="How pairs are put together for the engine.")
    http: Http = Field(default=Http(), description="Health and metrics.")
    tracing: TracingSettings = Field(default=TracingSettings(), description="Spans of records and batches.")
    drain_seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        default=30.0, description="How long to finish what was read when told to stop."
    )
    engine_retry_seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        default=60.0, description="How long an engine that fails for everything is tried again before the worker ends."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least that is logged.")
    topics: Annotated[tuple[Binding, ...], Field(min_length=1)] = Field(description="What to read, and how.")

    def bindings(self) -> Bindings:
        """The bindings by topic."""
        label_topics = (self.schemas.topic, self.schemas.answers_topic)
        return Bindings(self.topics, frozenset(topic for topic in label_topics if topic is not None))

    @property
    def max_record_bytes(self) -> int:
        """The largest record that the client will send: for what is larger than its queue there is never room."""
        given = self.kafka.librdkafka
        most = int(given.get(MAX_BYTES, MAX_RECORD_BYTES))
        return most if QUEUE_KILOBYTES not in given else min(most, int(given[QUEUE_KILOBYTES]) * 1024)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for path, expected in _contradictions(self):
            raise MisfitError(path, expected)
        return self


def load_config(path: Path, overrides: Mapping[str, JsonValue] | None = None) -> Config:
    """The configuration that the file at `path` gives, with the environment and then `overrides` going before it.

    Paths in the file are relative to its folder. Blocks.

    Raises:
        ConfigError: it cannot be used; names the file (or the variable), the key and what was expected.
    """
    document = _read(path)
    given = dict(overrides or {})

    layered = _config_from(
        lambda cls, environment: (InitSettingsSource(cls, given), environment, InitSettingsSource(cls, document))
    )
    try:
        _refuse_secrets(document)
        _refuse_secrets(given)
        config = layered()  # type: ignore[call-arg]  # the sources bring them
        _require_files(config)
    except ValidationError as error:
        problems = all_problems(error, Config)
        raise ConfigError(*(f"{_origin(each.path, given) or path}: {each}" for each in problems)) from None
    except SettingsError as error:
        raise ConfigError(f"environment: expected JSON; {error}") from None
    except ConfigError as error:
        named = ((each.partition(":")[0], each) for each in error.problems)
        raise ConfigError(*(f"{_origin(key, given) or path}: {told}" for key, told in named)) from None
    return config


def fixed_config(values: Mapping[str, JsonValue]) -> Config:
    """The configuration that `values` alone give, whatever the environment says.

    Raises:
        ConfigError: it cannot be used; names the key and what was expected.
    """
    fixed = _config_from(lambda cls, _environment: (InitSettingsSource(cls, dict(values)),))

    try:
        return fixed()  # type: ignore[call-arg]  # as above
    except ValidationError as error:
        raise ConfigError(*map(str, all_problems(error, Config))) from None


def _config_from(choose: Callable[[type[BaseSettings], _Source], tuple[_Source, ...]]) -> type[Config]:
    """A configuration read from the sources that `choose` makes, the environment at hand; the first of them wins."""

    class Layered(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: _Source,
            env_settings: _Source,
            dotenv_settings: _Source,
            file_secret_settings: _Source,
        ) -> tuple[_Source, ...]:
            del init_settings, dotenv_settings, file_secret_settings
            return choose(settings_cls, env_settings)

    return Layered


def _read(path: Path) -> dict[str, JsonValue]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file; `worker init` writes a first one, -c names another")
    try:
        document = read_document(path)
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping with kafka and topics")
    folder = path.absolute().parent
    for *parents, key in _RELATIVE_TO_FILE:
        part: JsonValue = document
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        value = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict) and isinstance(value, str):
            part[key] = str(folder / value)
    model = document.get("model")
    if isinstance(model, str) and (model.startswith((".", "/")) or (model != "bundled" and (folder / model).is_dir())):
        document["model"] = str(folder / model)
    return document


def _require_files(config: Config) -> None:
    """That everything is there which the clients of a worker are made of, and which needs no answer from anybody.

    Raises:
        ConfigError: something is not; one problem for each.
    """
    readers: list[Callable[[], object]] = [config.kafka.connection, config.http.expected_token]
    if config.registry is not None:
        readers.append(config.registry.connection)
    problems: list[str] = []
    for read in readers:
        try:
            read()
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(*problems)


def _refuse_secrets(document: Mapping[str, JsonValue]) -> None:
    for part, key in SECRET_KEYS:
        values = document.get(part)
        if isinstance(values, dict) and key in values:
            variable = variable_of(f"{part}.{key}")
            raise ConfigError(f"{part}.{key}: expected in the environment ({variable}) or in `{part}.{key}_file`")
    kafka = document.get("kafka")
    if not isinstance(kafka, dict):
        return
    passed_on = kafka.get("librdkafka")
    for key in passed_on if isinstance(passed_on, dict) else ():
        if SECRET_SETTING.search(key) and key not in OWNED_BY_THE_WORKER:
            variable = variable_of("kafka.librdkafka")
            raise ConfigError(f"kafka.librdkafka.{key_path([key])}: expected in the environment ({variable}, as JSON)")


def _origin(path: str, given: Mapping[str, JsonValue]) -> str | None:
    """Where the value at `path` was set, if not in the file."""
    parts = path.split(".")
    value: JsonValue = dict(given)
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else value
    if value is not None:
        return "command line"
    names = {name.upper() for name in os.environ}
    variables = (variable_of(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    return next((f"environment, {variable}" for variable in variables if variable in names), None)


def _contradictions(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Keys that are each well formed, and do not go together."""
    if config.model == "bundled" and config.engine not in {"auto", "openvino", "fake"}:
        yield ("engine",), "expected 'auto' or 'openvino' with `model: bundled`"
    yield from _formats_without_registry(config)
    inputs: dict[str, int] = {}
    for index, binding in enumerate(config.topics):
        first = inputs.setdefault(binding.input, index)
        if first != index:
            yield ("topics", index, "input"), f"expected a topic of its own; it is that of topics.{first}"
    for index, binding in enumerate(config.topics):
        routes = (("routes", topic) for topic in binding.routes.values())
        for key, topic in (("output", binding.output_topic), ("dead_letter", binding.dead_letter_topic), *routes):
            if topic in inputs:
                yield ("topics", index, key), f"expected a topic that is not read; topics.{inputs[topic]} reads it"
    bindings = config.bindings()
    for topic, index in inputs.items():
        for writer in bindings.writers(topic):
            told = f"expected a topic that is not written; topics.{inputs[writer.input]} would write it"
            yield ("topics", index, "input"), told
    yield from _taken_label_topics(config, inputs)


def _formats_without_registry(config: Config) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for index, binding in enumerate(config.topics):
        for key in ("format", "output_format"):
            if config.registry is None and getattr(binding, key) in REGISTRY_FORMATS:
                yield ("topics", index, key), "expected only with `registry.url`, the schema registry's address"


def _taken_label_topics(config: Config, inputs: Mapping[str, int]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    written = {topic for binding in config.topics for topic in (binding.output_topic, binding.dead_letter_topic)}
    label_topics = (("topic", config.schemas.topic), ("status_topic", config.schemas.answers_topic))
    for key, topic in label_topics:
        if topic in inputs or topic in written or (topic and any(config.bindings().writers(topic))):
            yield ("schemas", key), "expected a topic of its own; a binding reads or writes it"
