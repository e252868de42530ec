"""An embedded Kafka that lets in nobody without a name and a right: passwords over TLS, rights by user."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from worker.clock import Clock, SystemClock
from worker.errors import ConfigError
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_certificates import Authority, authority, write_private
from worker.kafka.embedded_client_files import MECHANISM, READER, Account, client_files
from worker.kafka.embedded_jars import BrokerUnavailableError
from worker.kafka.embedded_java import KafkaJava
from worker.kafka.embedded_storage import EmbeddedSettings, Listeners
from worker.kafka.rights import Right, producer_rights, reader_rights, set_rules, worker_rights

AUTHORIZER = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_ADMIN, _WORKER, _PRODUCER = "admin", "worker", "producer"
_LISTENERS = Listeners(
    clients="CLIENTS",
    brokers="BROKERS",
    protocols={"CLIENTS": "SASL_SSL", "BROKERS": "SSL", "CONTROLLER": "SSL"},
)
_BROKER = "broker"
_ITERATIONS = 8192
_REQUEST_SECONDS = 30
_COME_IN_SECONDS = 60.0
_TRY_SECONDS = 3.0


def tls(signer: Authority, key_store: Path) -> dict[str, str]:
    """Properties of a server that shows the certificate in `key_store` and trusts whom the authority signed."""
    return {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(key_store),
        "ssl.keystore.password": signer.password,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(signer.ca),
    }


def set_scram(admin: AdminClient, passwords: Mapping[str, str], mechanism: str = MECHANISM) -> None:
    """Have the cluster know these users by these passwords from a moment later on. Blocks.

    Raises:
        KafkaException: the cluster refused, or did not answer.
    """
    info = ScramCredentialInfo(ScramMechanism[mechanism.replace("-", "_")], _ITERATIONS)
    wanted: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(user, info, password.encode()) for user, password in passwords.items()
    ]
    for future in admin.alter_user_scram_credentials(wanted).values():
        future.result(_REQUEST_SECONDS)


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may do what on a broker, and the folder in which each of them finds how to come in."""

    folder: Path
    signer: Authority
    topic: str
    group_id: str

    def settings(self, settings: EmbeddedSettings) -> EmbeddedSettings:
        """`settings` for a broker that is reached over TLS alone: by clients with a password, by brokers with a key.

        Raises:
            BrokerUnavailableError: no certificate can be made.
        """
        key_store = self.signer.issue(_BROKER)
        properties = {
            **tls(self.signer, key_store),
            **AUTHORIZER,
            "super.users": f"User:CN={_BROKER};User:{_ADMIN}",
            "listener.name.brokers.ssl.client.auth": "required",
            "listener.name.controller.ssl.client.auth": "required",
            "listener.name.clients.sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.clients.{MECHANISM.lower()}.sasl.jaas.config": SCRAM_LOGIN,
        }
        owner = {
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.signer.ca),
            "ssl.keystore.location": str(key_store),
            "ssl.keystore.password": self.signer.password,
        }
        return replace(settings, listeners=_LISTENERS, owner=owner, properties={**settings.properties, **properties})

    def rights(self) -> dict[str, tuple[Right, ...]]:
        """User -> all that it may do; the administrator may do everything, and is not among them."""
        return {
            _WORKER: worker_rights(self.topic, self.group_id),
            _PRODUCER: producer_rights(self.topic),
            READER: reader_rights(self.topic, READER),
        }

    def let_in(self, kafka: EmbeddedKafka, bootstrap_servers: str, clock: Clock | None = None) -> None:
        """Give a running broker its users and their rights, and each user its files. Blocks until they can come in.

        Raises:
            ConfigError: the folder cannot be written.
            BrokerUnavailableError: the broker refused, or does not let them in.
        """
        try:
            accounts = self._accounts(bootstrap_servers)
        except OSError as error:
            raise ConfigError(f"{self.folder} cannot hold the clients' files: {error.strerror}") from error
        admin, clock = kafka.admin(), clock or SystemClock()
        try:
            set_rules(admin, [right.rule(user) for user, rights in self.rights().items() for right in rights])
            set_scram(admin, {account.user: account.password for account in accounts})
        except KafkaException as error:
            raise BrokerUnavailableError(f"users cannot be made: {error.args[0].name()}") from error
        for account in accounts:
            _await_entry(account, clock)

    def _accounts(self, bootstrap_servers: str) -> list[Account]:
        """Every user, whose files are written."""
        ca = self.folder / self.signer.ca.name
        write_private(ca, self.signer.ca.read_text(encoding="utf-8"))
        users = (_ADMIN, *self.rights())
        accounts = [Account(user, self._password(user), bootstrap_servers, ca, self.folder) for user in users]
        for account in accounts:
            group_id = self.group_id if account.user == _WORKER else None
            for name, text in client_files(account, group_id).items():
                write_private(self.folder / name, text)
        return accounts

    def _password(self, user: str) -> str:
        """The one that the user has had since the first start with this folder."""
        file = self.folder / f"{user}.password"
        kept = file.read_text(encoding="utf-8").strip() if file.exists() else ""
        return kept or secrets.token_urlsafe(24)


def guard(folder: Path, java: KafkaJava, topic: str, group_id: str) -> Guard:
    """A guard whose files lie in `folder`, made, or used again, certificates and all. Blocks.

    Raises:
        ConfigError: the folder cannot be written.
        BrokerUnavailableError: no certificate can be made.
    """
    folder = folder.absolute()
    try:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True)
            (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # nobody means to commit these
    except OSError as error:
        raise ConfigError(f"{folder} cannot hold the clients' files: {error.strerror}") from error
    return Guard(folder, authority(folder / _BROKER, java), topic, group_id)


def _await_entry(account: Account, clock: Clock) -> None:
    """Until the broker knows a password that it has stored: a moment later."""
    deadline = clock.monotonic() + _COME_IN_SECONDS
    while True:
        try:
            AdminClient({**account.librdkafka(), "log_level": 0}).list_topics(timeout=_TRY_SECONDS)
        except KafkaException as error:
            if clock.monotonic() > deadline:
                raise BrokerUnavailableError(f"{account.user} is not let in: {error.args[0].name()}") from error
        else:
            return
