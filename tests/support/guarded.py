"""Brokers with rights.

One lets nobody in without a name and a right: passwords, tokens or certificates over TLS, and ACLs. The other one is
open but for what a test takes away.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from tests.support.broker import BrokerUnderTest
from tests.support.certificates import Authority
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_storage import EmbeddedSettings

USER = "labeller"
PASSWORD = "sc-ram-secret-4711"  # noqa: S105
KEY_PASSWORD = "key-secret-4712"  # noqa: S105
CLIENT_SECRET = "oauth-secret-4713"  # noqa: S105
REQUEST_SECONDS = 30
_AUTHORIZER = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}
_MODULE = "org.apache.kafka.common.security"


class Right(NamedTuple):
    """One right: an operation on one thing, or on all whose names begin so."""

    kind: str
    name: str
    operation: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class GuardedKafka:
    """The broker, as its owner reaches it (`open`, all rights) and as the worker's user has to."""

    open: BrokerUnderTest
    authority: Authority
    embedded: EmbeddedKafka

    def servers(self, listener: str) -> str:
        """Where a listener is: `SCRAM`, `OAUTH` or `MUTUAL`."""
        return f"127.0.0.1:{self.embedded.listener_port(listener)}"

    def scram(self) -> dict[str, str]:
        """What a worker's configuration says; its password is to come from the environment or a file."""
        return {
            "bootstrap_servers": self.servers("SCRAM"),
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER,
            "ssl_ca_location": str(self.authority.ca),
        }

    def allow(self, *rights: Right, user: str = USER) -> None:
        """Give rights to a user."""
        allow(self.open, *rights, user=user)

    def revoke(self, *rights: Right) -> None:
        """Take rights away."""
        _forget(self.open, [_rule(right, USER, AclPermissionType.ALLOW) for right in rights])


def allow(kafka: BrokerUnderTest, *rights: Right, user: str) -> None:
    """Give rights to a user, and on a broker that is open else, with that to nobody else on the same things."""
    _set(kafka, [_rule(right, user, AclPermissionType.ALLOW) for right in rights])


@contextmanager
def without(kafka: BrokerUnderTest, right: Right) -> Iterator[None]:
    """Everybody may do everything with one thing but what `right` says; inside the block, on a broker open else."""
    everything = _rule(right._replace(operation="ALL"), "*", AclPermissionType.ALLOW)
    rules = [everything, _rule(right, "*", AclPermissionType.DENY)]
    _set(kafka, rules)
    try:
        yield
    finally:
        _forget(kafka, rules)


@contextmanager
def open_kafka() -> Iterator[BrokerUnderTest]:
    """A broker with an authorizer where whoever comes may do what no rule is about."""
    properties = {**_AUTHORIZER, "allow.everyone.if.no.acl.found": "true"}
    with EmbeddedKafka(EmbeddedSettings(properties=properties)) as embedded:
        yield BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)


@contextmanager
def guarded_kafka(folder: Path) -> Iterator[GuardedKafka]:
    """Such a broker, with its files in `folder`."""
    authority = Authority.create(folder)
    _, _, server = authority.issue("server")
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(server),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.ca),
    }
    unsecured = f"{_MODULE}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    properties = {
        **tls,
        **_AUTHORIZER,
        "super.users": "User:ANONYMOUS",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
        "listener.name.scram.scram-sha-256.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
        "listener.name.scram.plain.sasl.jaas.config": (
            f'{_MODULE}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": (
            f'{_MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="server";'
        ),
        "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": unsecured,
    }
    settings = EmbeddedSettings(
        properties=properties,
        extra_listeners={"SCRAM": "SASL_SSL", "OAUTH": "SASL_SSL", "MUTUAL": "SSL"},
        format_arguments=[
            part
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ],
    )
    with EmbeddedKafka(settings) as embedded:
        yield GuardedKafka(
            BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded), authority, embedded
        )


@contextmanager
def token_issuer(expected: str) -> Iterator[str]:
    """The address of a service that gives whoever shows the `expected` secret a token for `USER`."""

    class Issuer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            shown = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic "))
            allowed = shown.decode().endswith(f":{expected}")
            now = int(time.time())
            token = ".".join([_part({"alg": "none"}), _part({"sub": USER, "iat": now, "exp": now + 600}), ""])
            body = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 600}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        server.server_close()


def _part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def _rule(right: Right, user: str, permission: AclPermissionType) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL
    kind, operation = ResourceType[right.kind], AclOperation[right.operation]
    return AclBinding(kind, right.name, pattern, f"User:{user}", "*", operation, permission)


def _set(kafka: BrokerUnderTest, rules: Sequence[AclBinding]) -> None:
    admin = kafka.admin()  # alive until its futures are done
    for future in admin.create_acls(list(rules)).values():
        future.result(REQUEST_SECONDS)


def _forget(kafka: BrokerUnderTest, rules: Sequence[AclBinding]) -> None:
    admin = kafka.admin()
    for rule in rules:
        wanted = AclBindingFilter(
            rule.restype,
            rule.name,
            rule.resource_pattern_type,
            rule.principal,
            rule.host,
            rule.operation,
            rule.permission_type,
        )
        for future in admin.delete_acls([wanted]).values():
            assert 1 == len(future.result(REQUEST_SECONDS))
