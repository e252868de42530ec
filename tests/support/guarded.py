"""Brokers with rights.

One lets nobody in without a name and a right: passwords, tokens or certificates over TLS, and ACLs. The other one is
open but for what a test takes away.
"""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.broker import BrokerUnderTest
from tests.support.certificates import pem_files
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_certificates import Authority, authority
from worker.kafka.embedded_guard import AUTHORIZER, SCRAM_LOGIN, set_scram, tls
from worker.kafka.embedded_java import kafka_java
from worker.kafka.embedded_storage import EmbeddedSettings
from worker.kafka.rights import Right, forget_rules, set_rules

USER = "labeller"
PASSWORD = "sc-ram-secret-4711"  # noqa: S105
KEY_PASSWORD = "key-secret-4712"  # noqa: S105
CLIENT_SECRET = "oauth-secret-4713"  # noqa: S105
_MODULE = "org.apache.kafka.common.security"


@dataclass(frozen=True, slots=True)
class GuardedKafka:
    """The broker, as its owner reaches it (`open`, all rights) and as the worker's user has to."""

    open: BrokerUnderTest
    authority: Authority
    embedded: EmbeddedKafka
    tokens: Authority
    """Who vouches for those who give out tokens: another one than for the brokers."""

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
        assert len(rights) == forget_rules(self.open.admin(), [right.rule(USER) for right in rights])


def allow(kafka: BrokerUnderTest, *rights: Right, user: str) -> None:
    """Give rights to a user, and on a broker that is open else, with that to nobody else on the same things."""
    set_rules(kafka.admin(), [right.rule(user) for right in rights])


@contextmanager
def without(kafka: BrokerUnderTest, right: Right) -> Iterator[None]:
    """Everybody may do everything with one thing but what `right` says; inside the block, on a broker open else."""
    rules = [replace(right, operation="ALL").rule("*"), right.rule("*", "DENY")]
    set_rules(kafka.admin(), rules)
    try:
        yield
    finally:
        assert len(rules) == forget_rules(kafka.admin(), rules)


@contextmanager
def open_kafka() -> Iterator[BrokerUnderTest]:
    """A broker with an authorizer where whoever comes may do what no rule is about."""
    properties = {**AUTHORIZER, "allow.everyone.if.no.acl.found": "true"}
    with EmbeddedKafka(EmbeddedSettings(properties=properties)) as embedded:
        yield BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)


@contextmanager
def guarded_kafka(folder: Path) -> Iterator[GuardedKafka]:
    """Such a broker, with its files in `folder`."""
    signer = authority(folder, kafka_java())
    unsecured = f"{_MODULE}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    properties = {
        **tls(signer, signer.issue("server")),
        **AUTHORIZER,
        "super.users": "User:ANONYMOUS",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": SCRAM_LOGIN,
        "listener.name.scram.scram-sha-256.sasl.jaas.config": SCRAM_LOGIN,
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
    )
    tokens = authority(folder / "tokens", kafka_java())
    with EmbeddedKafka(settings) as embedded:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            set_scram(embedded.admin(), {USER: PASSWORD}, mechanism)
        yield GuardedKafka(
            BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded), signer, embedded, tokens
        )


@contextmanager
def token_issuer(expected: str, authority: Authority) -> Iterator[str]:
    """The address of a service that gives whoever shows the `expected` secret a token for `USER`.

    It speaks TLS, and only `authority` vouches for it.
    """

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

    certificate, key = pem_files(authority, "issuer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = _QuietServer(("127.0.0.1", 0), Issuer)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/token"
    finally:
        server.shutdown()
        server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client that does not trust it hangs up in the handshake."""


def _part(claims: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
