"""A worker with a name, over TLS, with the least rights; and its secrets, which nothing shows."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.broker import BrokerUnderTest
from tests.support.guarded import (
    CLIENT_SECRET,
    KEY_PASSWORD,
    PASSWORD,
    USER,
    GuardedKafka,
    Right,
    guarded_kafka,
    token_issuer,
)
from tests.support.wait import wait_until
from tests.support.worker import NOTHING, Changes, Setup, get, run_to_end, set_up, worker_process

pytestmark = pytest.mark.kafka

LEAST = (
    Right("TOPIC", "in", "READ"),
    Right("TOPIC", "in.predictions", "WRITE"),
    Right("TOPIC", "in.dlq", "WRITE"),
    Right("GROUP", "labels", "READ"),
    Right("TRANSACTIONAL_ID", "labels.", "WRITE", is_prefix=True),
)
"""All that `docs/security.md` says a worker needs for one topic."""
TOKEN = "http-token-4714"  # noqa: S105
SECRETS = (PASSWORD, KEY_PASSWORD, CLIENT_SECRET, TOKEN)


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


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_worker_with_a_password_over_tls_needs_the_least_rights_alone(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", PASSWORD)
    setup = set_up_guarded(tmp_path, guarded, {**guarded.scram(), "sasl_mechanism": mechanism})
    assert_predicts(guarded, setup, monkeypatch)


def test_a_worker_with_a_certificate_of_its_own_and_a_locked_key(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key, _ = guarded.authority.issue("client", KEY_PASSWORD)
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


def test_a_worker_with_tokens_from_an_issuer(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__OAUTH_CLIENT_SECRET", CLIENT_SECRET)
    with token_issuer(CLIENT_SECRET) as address:
        settings = {
            "bootstrap_servers": guarded.servers("OAUTH"),
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_url": address,
            "oauth_client_id": USER,
            "ssl_ca_location": str(guarded.authority.ca),
        }
        assert_predicts(guarded, set_up_guarded(tmp_path, guarded, settings), monkeypatch)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and all that it printed."""

    code: int
    output: str


def worker_command(*arguments: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "worker", *arguments], capture_output=True, text=True, timeout=120, check=False
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


def test_no_secret_is_shown_by_log_port_check_or_error(
    guarded: GuardedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKER_KAFKA__SASL_PASSWORD", PASSWORD)
    monkeypatch.setenv("WORKER_HTTP__TOKEN", TOKEN)
    setup = set_up_guarded(tmp_path, guarded, guarded.scram(), {"log_level": "debug"})
    seen = []
    with worker_process(setup):
        wait_until(lambda: get(setup, "/readyz")[0] == 200, 120)
        seen += [get(setup, path)[1].decode() for path in ("/livez", "/readyz", "/metrics", "/schemas")]
    seen.append(setup.path.with_suffix(".log").read_text())
    seen.append(worker_command("check", "-c", str(setup.path)).output)
    wrong = {**guarded.scram(), "ssl_ca_location": str(setup.path), "sasl_username": "nobody"}
    (tmp_path / "wrong").mkdir()
    for changes in ({"kafka": {"group_id": "labels", **wrong}}, {"engine": "none"}, {"delivery": 3}):
        broken = set_up(tmp_path / "wrong", guarded.open, ["in"], changes)
        for command in ("check", "run"):
            ran = worker_command(command, "-c", str(broken.path))
            assert 0 != ran.code
            seen.append(ran.output)
    for text in seen:
        assert text
        for secret in SECRETS:
            assert secret not in text
    assert "worker.started" in seen[4] or "engine.loaded" in seen[4], "a log at debug level was looked through"
