"""A worker with a name, over TLS, with the least rights; and its secrets, which nothing shows."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.certificates import pem_files
from tests.support.guarded import (
    CLIENT_SECRET,
    KEY_PASSWORD,
    PASSWORD,
    USER,
    GuardedKafka,
    guarded_kafka,
    token_issuer,
)
from tests.support.worker import NOTHING, Changes, Setup, get, run_to_end, set_up, wait_ready, worker_process
from worker.kafka.embedded_storage import free_port
from worker.kafka.rights import Right, worker_rights

pytestmark = pytest.mark.kafka

LEAST = worker_rights("in", "labels")
"""All that `docs/security.md` says a worker needs for one topic."""
TOKEN = "http-token-4714"  # noqa: S105


@pytest.fixture(scope="module")
def _module_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedKafka]:
    with guarded_kafka(tmp_path_factory.mktemp("guarded")) as broker:
        broker.open.create_topics({"in": 2, "in.predictions": 2, "in.dlq": 2})
        yield broker


@pytest.fixture
def guarded(kafka: BrokerUnderTest, _module_guarded: GuardedKafka) -> Iterator[GuardedKafka]:
    """The broker, with exactly the least rights; whoever knows `kafka` can have one."""
    _module_guarded.allow(*LEAST)
    yield _module_guarded
    _module_guarded.allow(*LEAST)  # a test may have taken some away


def set_up_guarded(
    folder: Path, guarded: GuardedKafka, kafka: Mapping[str, object], changes: Changes = NOTHING
) -> Setup:
    return set_up(folder, guarded.open, ["in"], {"kafka": {"group_id": "labels", **kafka}, **changes})


def assert_predicts(guarded: GuardedKafka, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(guarded.open.read_committed("in.predictions"))
    dead = len(guarded.open.read_committed("in.dlq"))
    guarded.open.produce("in", [b'{"text": "t"}'] * 10 + [b"broken"])
    run_to_end(setup)
    assert before + 10 == len(guarded.open.read_committed("in.predictions"))
    assert dead + 1 == len(guarded.open.read_committed("in.dlq"))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_a_worker_with_a_password_over_tls_needs_the_least_rights_alone(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", PASSWORD)
    setup = set_up_guarded(tmp_path, guarded, {**guarded.scram(), "sasl_mechanism": mechanism})
    assert_predicts(guarded, setup, monkeypatch)


def test_a_worker_with_a_certificate_of_its_own_and_a_locked_key(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = pem_files(guarded.authority, "client", KEY_PASSWORD)
    guarded.allow(*LEAST, user="CN=client")
    (tmp_path / "key-password").write_text(KEY_PASSWORD + "\n")
    settings = {
        "bootstrap_servers": guarded.servers("MUTUAL"),
        "security_protocol": "ssl",
        "ssl_ca_location": str(guarded.authority.ca),
        "ssl_certificate_location": str(certificate),
        "ssl_key_location": str(key),
        "ssl_key_password_file": "key-password",
    }
    assert_predicts(guarded, set_up_guarded(tmp_path, guarded, settings), monkeypatch)


def with_tokens(guarded: GuardedKafka, issuer: str) -> dict[str, str]:
    """What the cluster's settings are where an issuer at that address gives out tokens."""
    return {
        "bootstrap_servers": guarded.servers("OAUTH"),
        "security_protocol": "sasl_ssl",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": issuer,
        "oauth_client_id": USER,
        "oauth_ca_location": str(guarded.tokens.ca),
        "ssl_ca_location": str(guarded.authority.ca),
    }


def test_a_worker_with_tokens_from_an_issuer(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer speaks TLS, and neither the system nor the brokers' own authority vouches for it."""
    monkeypatch.setenv("WORKER_KAFKA__OAUTH_CLIENT_SECRET", CLIENT_SECRET)
    with token_issuer(CLIENT_SECRET, guarded.tokens) as address:
        settings = with_tokens(guarded, address)
        assert_predicts(guarded, set_up_guarded(tmp_path, guarded, settings), monkeypatch)


REFUSED: dict[str, tuple[Callable[[GuardedKafka, str], Mapping[str, object]], str]] = {
    "issuer that is not trusted": (
        lambda guarded, issuer: {**with_tokens(guarded, issuer), "oauth_ca_location": str(guarded.authority.ca)},
        "no token is had of the issuer (_AUTHENTICATION): check kafka.oauth_token_url, kafka.oauth_ca_location",
    ),
    "user": (
        lambda guarded, _: {**guarded.scram(), "sasl_username": "nobody"},
        "refuses who the worker says it is (_AUTHENTICATION): check kafka.sasl_mechanism, kafka.sasl_username and its",
    ),
    "broker that is not trusted": (
        lambda guarded, _: {**guarded.scram(), "ssl_ca_location": str(guarded.tokens.ca)},
        "(_SSL): check kafka.ssl_ca_location",
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_check_tells_a_broker_that_refuses_from_one_that_does_not_answer(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    settings, told = REFUSED[refused]
    with token_issuer(CLIENT_SECRET, guarded.tokens) as address:
        kafka = settings(guarded, address)
        secret = "OAUTH_CLIENT_SECRET" if "oauth_token_url" in kafka else "SASL_PASSWORD"
        monkeypatch.setenv(f"WORKER_KAFKA__{secret}", CLIENT_SECRET)
        ran = worker_command("check", "-c", str(set_up_guarded(tmp_path, guarded, kafka).path))
    assert 1 == ran.code, ran.output
    [failed] = [line for line in ran.output.splitlines() if line.startswith("FAILED")]
    assert told in failed
    assert_shows_no_secret(ran.output)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and all that it printed."""

    code: int
    output: str


def worker_command(*arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    return Ran(done.returncode, done.stdout + done.stderr)


TOLD = {
    LEAST[0]: ("in", "Read and Describe"),
    LEAST[1]: ("in.predictions", "Write and Describe"),
    LEAST[2]: ("in.dlq", "Write and Describe"),
    LEAST[3]: ("group labels", "grant Read and Describe on this group"),
    LEAST[4]: ("transactions", "grant Write and Describe on the transactional id labels."),
}


@pytest.mark.parametrize("missing", TOLD)
def test_check_names_each_right_that_is_missing(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: Right
) -> None:
    subject, told = TOLD[missing]
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", PASSWORD)
    setup = set_up_guarded(tmp_path, guarded, guarded.scram())
    whole = worker_command("check", "-c", str(setup.path), "--json")
    assert 0 == whole.code, whole.output
    guarded.revoke(missing)
    ran = worker_command("check", "-c", str(setup.path), "--json")
    assert 1 == ran.code
    failed = [each for each in json.JSONDecoder().raw_decode(ran.output)[0]["findings"] if each["verdict"] == "failed"]
    assert {subject} == {each["subject"] for each in failed}
    assert any(told in each["message"] for each in failed)


KEYSTORE = "keystore-4715"
REGISTRY = "registry-4716"
REGISTRY_CLIENT = "registry-client-4717"
COLLECTOR = "collector-4718"
SECRETS = (PASSWORD, KEY_PASSWORD, CLIENT_SECRET, TOKEN, KEYSTORE, REGISTRY, REGISTRY_CLIENT, COLLECTOR)
NOBODY = "http://127.0.0.1:9"
"""Where nothing answers."""
IN_ENVIRONMENT = {
    "WORKER_KAFKA__LIBRDKAFKA": json.dumps({"ssl.keystore.password": KEYSTORE}),
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{COLLECTOR},Bearer {COLLECTOR}",
}
"""The second header is none: OpenTelemetry warns of it, in words that quote it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How a worker says who it is: settings, and its secrets by the key that each would stand under."""

    kafka: Mapping[str, object]
    registry: Mapping[str, object]
    secrets: Mapping[str, str]

    def changes(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, in_files: bool) -> Changes:
        """A configuration with every secret, in files or in the environment, and what puts them to use."""
        for name, value in IN_ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        parts: dict[str, dict[str, object]] = {
            "kafka": {"group_id": "labels", **self.kafka},
            "registry": {"url": NOBODY, **self.registry},
            "http": {"port": free_port()},
        }
        for key, secret in self.secrets.items():
            part, name = key.split(".")
            if in_files:
                (folder / key).write_text(f"{secret}\n")
                parts[part][f"{name}_file"] = key
            else:
                monkeypatch.setenv(f"WORKER_{part}__{name}".upper(), secret)
        return {**parts, "log_level": "debug", "tracing": {"endpoint": NOBODY}}


@contextmanager
def identity(guarded: GuardedKafka, kind: str) -> Iterator[Identity]:
    """A worker with a password and a locked key, or with tokens, at the broker and at the registry."""
    if kind == "password":
        certificate, key = pem_files(guarded.authority, "secretive", KEY_PASSWORD)
        kafka = {"ssl_certificate_location": str(certificate), "ssl_key_location": str(key), **guarded.scram()}
        secrets = {
            "kafka.sasl_password": PASSWORD,
            "kafka.ssl_key_password": KEY_PASSWORD,
            "registry.password": REGISTRY,
            "http.token": TOKEN,
        }
        yield Identity(kafka, {"username": "labeller"}, secrets)
        return
    secrets = {
        "kafka.oauth_client_secret": CLIENT_SECRET,
        "registry.oauth_client_secret": REGISTRY_CLIENT,
        "http.token": TOKEN,
    }
    with token_issuer(CLIENT_SECRET, guarded.tokens) as address:
        kafka = with_tokens(guarded, address)
        yield Identity(kafka, {"oauth_token_url": address, "oauth_client_id": USER}, secrets)


def assert_shows_no_secret(text: str) -> None:
    assert text
    for secret in SECRETS:
        assert secret not in text


@pytest.mark.parametrize("in_files", [False, True], ids=["environment", "files"])
@pytest.mark.parametrize("kind", ["password", "tokens"])
def test_no_secret_is_shown_by_log_port_or_check(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, in_files: bool
) -> None:
    with identity(guarded, kind) as who:
        changes = who.changes(tmp_path, monkeypatch, in_files=in_files)
        setup = replace(set_up(tmp_path, guarded.open, ["in"], changes), http_port=changes["http"]["port"])
        with worker_process(setup):
            wait_ready(setup)
            for path in ("/metrics", "/schemas"):
                assert 401 == get(setup, path)[0]
                assert_shows_no_secret(get(setup, path)[1].decode())
            for path in ("/livez", "/readyz", "/metrics", "/schemas"):
                status, body = get(setup, path, TOKEN)
                assert 200 == status
                assert_shows_no_secret(body.decode())
        log = setup.path.with_suffix(".log").read_text()
        assert "worker.started" in log or "engine.loaded" in log, "a log at debug level was looked through"
        assert_shows_no_secret(log)
        for arguments in ([], ["--json"]):
            checked = worker_command("check", "-c", str(setup.path), *arguments)
            assert 0 == checked.code, checked.output
            assert_shows_no_secret(checked.output)


BROKEN: dict[str, tuple[Changes, Mapping[str, str]]] = {
    "ca": ({"kafka": {"ssl_ca_location": "worker.yaml"}}, {}),
    "user": ({"kafka": {"sasl_username": "nobody"}}, {}),
    "engine": ({"engine": "none"}, {}),
    "type": ({"delivery": 3}, {}),
    "registry": ({"binding": {"format": "avro"}}, {}),
    "secret in the file": ({"http": {"token": TOKEN}}, {}),
    "passthrough": ({}, {"WORKER_KAFKA__LIBRDKAFKA": json.dumps({"no.such.setting": KEYSTORE})}),
    "passthrough value": ({}, {"WORKER_KAFKA__LIBRDKAFKA": json.dumps({"fetch.min.bytes": KEYSTORE})}),
    "passthrough no JSON": ({}, {"WORKER_KAFKA__LIBRDKAFKA": f"ssl.keystore.password={KEYSTORE}"}),
    "key password": ({}, {"WORKER_KAFKA__SSL_KEY_PASSWORD": KEYSTORE}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_no_secret_is_shown_by_an_error(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    broken, environment = BROKEN[what]
    with identity(guarded, "password") as who:
        whole = who.changes(tmp_path, monkeypatch, in_files=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    merged = {
        key: {**whole[key], **value} if isinstance(value, dict) and key in whole else value
        for key, value in broken.items()
    }
    setup = set_up(tmp_path, guarded.open, ["in"], {**whole, **merged})
    # What a running worker waits for does not end it.
    for command in ("check",) if what in {"registry", "user"} else ("check", "run"):
        ran = worker_command(command, "-c", str(setup.path))
        assert 0 != ran.code, ran.output
        assert_shows_no_secret(ran.output)
