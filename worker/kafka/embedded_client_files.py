"""What a client of a guarded broker is configured with, for each kind of client. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MECHANISM = "SCRAM-SHA-512"
READER = "reader"
"""Who subscribes: in groups whose names begin so, too."""
_JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required"
_FOR_READERS = {"isolation.level": "read_committed", "auto.offset.reset": "earliest"}
_WORKER = """\
# The `kafka` section of a worker.yaml, to be taken over as it is; `worker init --kafka` does that.
kafka:
  bootstrap_servers: {servers}
  group_id: {group}
  security_protocol: sasl_ssl
  sasl_mechanism: {mechanism}
  sasl_username: {user}
  sasl_password_file: {password_file}
  ssl_ca_location: {ca}
"""


@dataclass(frozen=True, slots=True)
class Account:
    """A user, and how it comes in."""

    user: str
    password: str = field(repr=False)
    bootstrap_servers: str
    ca: Path
    folder: Path

    def librdkafka(self) -> dict[str, str]:
        """Settings of librdkafka, the password included: never to be printed."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": self.user,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.ca),
        }

    def java(self) -> dict[str, str]:
        """Settings of Java's clients, the password included: never to be printed."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.jaas.config": f'{_JAAS} username="{self.user}" password="{self.password}";',
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.ca),
        }


def client_files(account: Account, group_id: str | None) -> dict[str, str]:
    """File name -> text: with a group those of a worker in it, else those of other clients."""
    password = {f"{account.user}.password": f"{account.password}\n"}
    if group_id is not None:
        return {**password, f"{account.user}.yaml": _worker(account, group_id)}
    more = _FOR_READERS if account.user == READER else {}
    return {
        **password,
        f"{account.user}.conf": _lines({**account.librdkafka(), **more}),
        f"{account.user}.properties": _lines({**account.java(), **more}),
    }


def _worker(account: Account, group_id: str) -> str:
    # A JSON string is a YAML scalar.
    return _WORKER.format(
        servers=json.dumps(account.bootstrap_servers),
        group=json.dumps(group_id),
        mechanism=MECHANISM,
        user=json.dumps(account.user),
        password_file=json.dumps(str(account.folder / f"{account.user}.password")),
        ca=json.dumps(str(account.ca)),
    )


def _lines(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in settings.items())
