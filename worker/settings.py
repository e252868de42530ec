"""The parts of the configuration: what can be set of the cluster, of limits, of batches."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from worker.credentials import Login
from worker.documents import MisfitError
from worker.messages.binding import TopicName
from worker.setting_parts import Part, Positive, all_or_problems, read_secret, readable_path
from worker.types import JsonValue


def _is_plain(value: JsonValue) -> JsonValue:
    if not isinstance(value, (str, int)):
        raise ValueError("expected a string, an integer, true or false")  # noqa: TRY004 - pydantic catches this one
    return value


LibrdkafkaSettings = dict[str, Annotated[str | int | bool, BeforeValidator(_is_plain)]]

MAX_BYTES = "message.max.bytes"
QUEUE_KILOBYTES = "queue.buffering.max.kbytes"
NUMBERS = {MAX_BYTES: "expected a number of bytes", QUEUE_KILOBYTES: "expected a number of kilobytes"}
"""Settings of the client that the worker counts with."""
OWNED_BY_THE_WORKER = {
    "allow.auto.create.topics": "topics are created by `kafka.create_topics` or not at all",
    "auto.offset.reset": "set `kafka.start`",
    "bootstrap.servers": "set `kafka.bootstrap_servers`",
    "client.id": "it is made of the group and the instance",
    "enable.auto.commit": "offsets are committed with the predictions",
    "enable.auto.offset.store": "offsets are committed with the predictions",
    "enable.idempotence": "nothing is to be published twice",
    "group.id": "set `kafka.group_id`",
    "group.instance.id": "set `kafka.instance_id` and `kafka.static_membership`",
    "group.protocol": "set `kafka.group_protocol`",
    "group.remote.assignor": "the server chooses",
    "https.ca.location": "set `kafka.oauth_ca_location`",
    "isolation.level": "events of aborted transactions are not to be predicted",
    "partition.assignment.strategy": "partitions are handed over one by one",
    "sasl.mechanism": "set `kafka.sasl_mechanism`",
    "sasl.mechanisms": "set `kafka.sasl_mechanism`",
    "sasl.oauthbearer.client.secret": "set WORKER_KAFKA__OAUTH_CLIENT_SECRET or `kafka.oauth_client_secret_file`",
    "sasl.oauthbearer.token.endpoint.url": "set `kafka.oauth_token_url`",
    "sasl.password": "set WORKER_KAFKA__SASL_PASSWORD or `kafka.sasl_password_file`",
    "sasl.username": "set `kafka.sasl_username`",
    "security.protocol": "set `kafka.security_protocol`",
    "ssl.ca.location": "set `kafka.ssl_ca_location`",
    "ssl.certificate.location": "set `kafka.ssl_certificate_location`",
    "ssl.key.location": "set `kafka.ssl_key_location`",
    "ssl.key.password": "set WORKER_KAFKA__SSL_KEY_PASSWORD or `kafka.ssl_key_password_file`",
    "transaction.timeout.ms": "set `kafka.transaction_timeout_ms`",
    "transactional.id": "it is made of the group and the instance",
}
"""Settings of the client that the promises rest on, or that have a key of their own: why, or which."""

_OAUTH = (
    "oauth_token_url",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_client_secret_file",
    "oauth_scope",
    "oauth_ca_location",
)
_SECRETS = {
    "sasl.password": "sasl_password",
    "sasl.oauthbearer.client.secret": "oauth_client_secret",
    "ssl.key.password": "ssl_key_password",
}
_FILES = {
    "ssl.ca.location": "ssl_ca_location",
    "ssl.certificate.location": "ssl_certificate_location",
    "ssl.key.location": "ssl_key_location",
    "https.ca.location": "oauth_ca_location",
}

CHECK_INSTANCE = "check"
REPLAY_INSTANCE = "dead-letters-replay"
RESERVED_INSTANCES = {CHECK_INSTANCE: "`worker check`", REPLAY_INSTANCE: "`worker dead-letters replay`"}
"""Names of commands of our own in the group: under a worker's transactional id they would shut that worker out."""


class Kafka(Part):
    """The cluster, and how the worker takes part in it."""

    bootstrap_servers: Annotated[str, Field(min_length=1)] = Field(description="host:port, several with commas.")
    group_id: Annotated[str, Field(min_length=1)] = Field(description="Consumer group that the workers share.")
    instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] | None = Field(
        default=None, description="Name of this process that outlives it, as a pod's; null: a random one per start."
    )
    static_membership: bool = Field(default=False, description="True: `instance_id` is also the group.instance.id.")
    group_protocol: Literal["classic", "consumer"] = Field(default="classic", description="Rebalance protocol.")
    start: Literal["earliest", "latest", "error"] = Field(
        default="earliest", description="Where to begin in a partition for which the group has committed nothing."
    )
    create_topics: bool = Field(default=False, description="True: create missing output and dead letter topics.")
    security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="How to connect."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"] | None = Field(
        default=None, description="How the worker proves who it is; with `sasl_ssl` or `sasl_plaintext`."
    )
    sasl_username: str | None = Field(default=None, description="User of the SASL mechanism.")
    sasl_password: SecretStr | None = Field(default=None, description="Its password; from the environment only.")
    sasl_password_file: Path | None = Field(default=None, description="File that holds the password.")
    oauth_token_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] | None = Field(
        default=None, description="OAUTHBEARER: where tokens are issued for client credentials (OIDC)."
    )
    oauth_client_id: str | None = Field(default=None, description="OAUTHBEARER: the client.")
    oauth_client_secret: SecretStr | None = Field(
        default=None, description="OAUTHBEARER: the client's secret; from the environment only."
    )
    oauth_client_secret_file: Path | None = Field(default=None, description="File that holds the client's secret.")
    oauth_scope: str | None = Field(default=None, description="OAUTHBEARER: scope that is asked for.")
    oauth_ca_location: Path | None = Field(
        default=None,
        description="OAUTHBEARER: file of the certificates to trust at `oauth_token_url`, which are not those of the "
        "brokers; null: the system's.",
    )
    ssl_ca_location: Path | None = Field(default=None, description="File of the certificates to trust.")
    ssl_certificate_location: Path | None = Field(default=None, description="File of the client's certificate.")
    ssl_key_location: Path | None = Field(default=None, description="File of the client's key.")
    ssl_key_password: SecretStr | None = Field(default=None, description="The key's; from the environment only.")
    ssl_key_password_file: Path | None = Field(default=None, description="File that holds the key's password.")
    transaction_timeout_ms: Annotated[int, Field(ge=1000)] = Field(
        default=30_000, description="After which the broker aborts a transaction that its worker left behind."
    )
    # Neither shown nor dumped: any of them may be a secret.
    librdkafka: LibrdkafkaSettings = Field(
        default_factory=dict,
        repr=False,
        exclude=True,
        description="Further settings of the client, passed on as they are.",
    )

    def connection(self) -> LibrdkafkaSettings:
        """Settings of librdkafka for reaching the cluster, secrets included: never to be printed. Reads files.

        Raises:
            ConfigError: a file is not there or cannot be read, or what the way to connect needs is missing.
        """
        given: dict[str, str | None] = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanisms": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.oauthbearer.method": None if self.oauth_token_url is None else "oidc",
            "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
            "sasl.oauthbearer.client.id": self.oauth_client_id,
            "sasl.oauthbearer.scope": self.oauth_scope,
        }
        settings = {**self.librdkafka, **{name: value for name, value in given.items() if value is not None}}
        keys = frozenset(key for key, value in self if value is not None and value != "")
        missing = Login(self.sasl_mechanism, keys, self.librdkafka).missing()
        return {**settings, **all_or_problems(self._readers(), missing)}

    def _readers(self) -> dict[str, Callable[[], str | None]]:
        """Settings of librdkafka that are in files, or may be."""
        readers: dict[str, Callable[[], str | None]] = {}
        for name, key in _SECRETS.items():
            value, file = getattr(self, key), getattr(self, f"{key}_file")
            may_be_empty = key == "ssl_key_password"  # of a key that is not locked
            readers[name] = partial(read_secret, value, file, f"kafka.{key}", may_be_empty=may_be_empty)
        for name, key in _FILES.items():
            may_be_folder = key.endswith("ca_location")  # of certificates under their hashes
            readers[name] = partial(readable_path, getattr(self, key), f"kafka.{key}", may_be_folder=may_be_folder)
        return readers

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if self.instance_id in RESERVED_INSTANCES:
            raise MisfitError(("instance_id",), f"expected another name: {RESERVED_INSTANCES[self.instance_id]} has it")
        return self

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.static_membership and self.instance_id is None:
            raise MisfitError(("static_membership",), "expected `kafka.instance_id` beside it")
        is_oauth = self.sasl_mechanism == "OAUTHBEARER"
        for key in _OAUTH:
            if getattr(self, key) is not None and not is_oauth:
                raise MisfitError((key,), "expected only with `sasl_mechanism: OAUTHBEARER`")
        if (self.sasl_mechanism is not None) != self.security_protocol.startswith("sasl"):
            expected = "expected a mechanism with `sasl_ssl` and `sasl_plaintext`, and none with the other protocols"
            raise MisfitError(("sasl_mechanism",), expected)
        for key in ("sasl_password", "ssl_key_password", "oauth_client_secret"):
            if getattr(self, key) is not None and getattr(self, f"{key}_file") is not None:
                raise MisfitError((f"{key}_file",), "expected either the file or the environment variable, not both")
        for name, value in self.librdkafka.items():
            if name in OWNED_BY_THE_WORKER:
                raise MisfitError(("librdkafka", name), f"expected not to be set here: {OWNED_BY_THE_WORKER[name]}")
            if name in NUMBERS and not str(value).isdecimal():
                raise MisfitError(("librdkafka", name), NUMBERS[name])
        return self


class Limits(Part):
    """What one message may ask for, and what may be in flight."""

    text_bytes: Positive = Field(default=262_144, description="Most UTF-8 bytes of a text.")
    labels: Positive = Field(default=1000, description="Most labels of one set.")
    label_bytes: Positive = Field(default=1024, description="Most UTF-8 bytes of a label, hypothesis or template.")
    pairs: Positive = Field(default=4096, description="Most pairs of text and hypothesis for one message.")
    in_flight_records: Positive = Field(default=4000, description="Records read and not yet published, at most.")
    in_flight_bytes: Positive = Field(default=64 * 1024 * 1024, description="Their bytes, at most.")


class Schemas(Part):
    """Where label schemas come from."""

    directory: Path | None = Field(default=None, description="Folder of .yaml, .yml and .json documents, watched.")
    topic: TopicName | None = Field(
        default=None, description="Compacted topic of one partition with documents and pointers; wins over the folder."
    )
    status_topic: TopicName | None = Field(
        default=None, description="Compacted topic in which workers answer; null: `<topic>.status`."
    )
    create: bool = Field(default=False, description="True: create these topics where they are missing.")

    @property
    def answers_topic(self) -> str | None:
        """The status topic; None without a label topic."""
        return None if self.topic is None else self.status_topic or f"{self.topic}.status"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.topic is None:
            for key in ("status_topic", "create"):
                if getattr(self, key):
                    raise MisfitError((key,), "expected `schemas.topic` beside it")
        elif self.topic == self.answers_topic:
            raise MisfitError(("status_topic",), "expected another topic than `schemas.topic`")
        return self


class Batching(Part):
    """How pairs are put together for the engine."""

    max_tokens: Positive | None = Field(default=None, description="Padded tokens per batch; null: the engine's best.")
    latency_target_ms: Positive = Field(default=200, description="How long a record may wait for others.")
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=67_108_864, description="Memory for the scores of pairs, in case the same text comes again; 0: none."
    )
    shortlist_audit_every: Annotated[int, Field(ge=0)] = Field(
        default=500,
        description="One message in so many is scored with all its labels, to see what a shortlist misses; 0: none.",
    )


class Http(Part):
    """Health, metrics and the label schemas in force."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8080, description="Port; 0: any free one.")
    token: Annotated[SecretStr, Field(min_length=1)] | None = Field(
        default=None,
        description="What `/metrics` and `/schemas` want to see (`Authorization: Bearer …`); from the environment.",
    )
    token_file: Path | None = Field(default=None, description="File that holds the token.")

    def expected_token(self) -> str | None:
        """The token, where there is one: never to be printed. Reads a file.

        Raises:
            ConfigError: the file cannot be read, or is empty.
        """
        return read_secret(self.token, self.token_file, "http.token")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise MisfitError(("token_file",), "expected either the file or the environment variable, not both")
        return self
