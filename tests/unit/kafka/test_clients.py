"""What is told of a cluster that does not answer, and of settings that the client refuses."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from worker.clock import ManualClock
from worker.errors import ConfigError, RetryableError
from worker.kafka.clients import answer_settings, reader_settings
from worker.kafka.compacted import CompactedReader
from worker.kafka.label_status import StatusWriter
from worker.kafka.label_writer import LabelDesk
from worker.kafka.sample import latest_records
from worker.kafka.topics import TopicDirectory
from worker.settings import Kafka, Schemas


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ("localhost:1", "localhost:1"),
        ("localhost:1, 127.0.0.1:2", "localhost:1, 127.0.0.1:2"),
        ("user:zq-marker-7f3@localhost:1", "localhost:1"),
        ("localhost:1,user:one,zq-marker-7f3@localhost:2", "localhost:2"),
    ],
)
def test_a_broker_that_does_not_answer_is_named_without_credentials(servers: str, told: str) -> None:
    directory = TopicDirectory({"bootstrap.servers": servers, "log_level": 0}, timeout_seconds=0.1)
    with pytest.raises(RetryableError) as caught:
        directory.refresh(())
    assert str(caught.value).startswith(f"no broker answers at {told} (")
    assert "zq-marker" not in str(caught.value)


MARKER = "zq-marker-7f3"


def cluster(**more: object) -> Kafka:
    return Kafka.model_validate({"bootstrap_servers": "127.0.0.1:1", "group_id": "g", **more})


def refusal(kafka: Kafka) -> str:
    with pytest.raises(ConfigError) as caught:
        TopicDirectory({**kafka.connection(), "log_level": 0})
    return str(caught.value)


def test_a_file_that_holds_no_certificates_is_told_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(MARKER)
    said = refusal(cluster(security_protocol="ssl", ssl_ca_location=tmp_path / "ca.pem"))
    assert said.startswith("kafka.ssl_ca_location: expected certificates, in PEM (")
    assert MARKER not in said


@pytest.mark.parametrize("password", [None, MARKER])
def test_a_key_that_is_not_opened_is_told_by_its_key_and_where_its_password_belongs(
    tmp_path: Path, password: str | None
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-x509", "-newkey", "rsa:2048", "-passout", "pass:right", "-subj", "/CN=c", "-days", "1"]
    command = ["openssl", "req", *subject, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    kafka = cluster(
        security_protocol="ssl",
        ssl_certificate_location=certificate,
        ssl_key_location=key,
        ssl_key_password=None if password is None else SecretStr(password),
    )
    said = refusal(kafka)
    assert said.startswith("kafka.ssl_key_location: expected the certificate's key")
    assert "WORKER_KAFKA__SSL_KEY_PASSWORD" in said
    assert MARKER not in said


def test_a_value_that_is_refused_is_not_quoted() -> None:
    said = refusal(cluster(librdkafka={"ssl.endpoint.identification.algorithm": MARKER}))
    assert 'Invalid value for configuration property "ssl.endpoint.identification.algorithm"' in said
    assert MARKER not in said


CLIENTS: dict[str, Callable[[Kafka], object]] = {
    "sample": lambda kafka: latest_records(reader_settings(kafka, "i"), "t", 1, ManualClock()),
    "compacted": lambda kafka: CompactedReader(reader_settings(kafka, "i"), "t"),
    "status": lambda kafka: StatusWriter(answer_settings(kafka, "i"), "t", "i", ManualClock()),
    "desk": lambda kafka: LabelDesk(kafka, Schemas(topic="t"), ManualClock()),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_says_which_section_its_settings_are_in(client: str) -> None:
    with pytest.raises(ConfigError, match=r"^kafka: the client refuses its settings \(No such configuration property"):
        CLIENTS[client](cluster(librdkafka={"no.such": 1}))
