"""What a client is given is what it is configured with."""

from pathlib import Path

from worker.documents import parse_yaml
from worker.kafka.embedded_client_files import READER, Account, client_files
from worker.settings import Kafka

PASSWORD = "secret-4711"  # noqa: S105


def account(user: str, folder: Path) -> Account:
    return Account(user, PASSWORD, "127.0.0.1:9092", folder / "ca.pem", folder)


def test_a_worker_finds_its_password_in_a_file_and_not_in_its_configuration(tmp_path: Path) -> None:
    files = client_files(account("worker", tmp_path), "labels")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "ca.pem").touch()
    document = parse_yaml(files["worker.yaml"])
    assert isinstance(document, dict)
    kafka = Kafka.model_validate(document["kafka"])

    assert PASSWORD not in files["worker.yaml"]
    assert "labels" == kafka.group_id
    found = kafka.connection()
    assert ("sasl_ssl", "SCRAM-SHA-512", "worker", PASSWORD) == (
        found["security.protocol"],
        found["sasl.mechanisms"],
        found["sasl.username"],
        found["sasl.password"],
    )


def test_the_others_have_a_file_for_each_kind_of_client(tmp_path: Path) -> None:
    files = client_files(account("producer", tmp_path), None)

    assert {"producer.password", "producer.conf", "producer.properties"} == set(files)
    lines = dict(line.split("=", 1) for line in files["producer.conf"].splitlines())
    assert account("producer", tmp_path).librdkafka() == lines
    assert f'username="producer" password="{PASSWORD}";' in files["producer.properties"]


def test_only_a_reader_is_told_to_read_what_is_committed(tmp_path: Path) -> None:
    told = {
        user: "read_committed" in client_files(account(user, tmp_path), None)[f"{user}.conf"] for user in ("a", READER)
    }

    assert {"a": False, READER: True} == told


def test_no_password_is_shown_by_an_account(tmp_path: Path) -> None:
    assert PASSWORD not in repr(account("worker", tmp_path))
