"""`worker broker` is what a newcomer starts first."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without saying so
from confluent_kafka.cimpl import NewTopic

from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from worker.kafka.embedded_java import kafka_java

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("kafka")]


def test_it_runs_until_it_is_asked_to_stop_and_then_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worker", "broker", "--port", "0", "--json", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        client = BrokerUnderTest(ready["bootstrap_servers"], ready["cluster_id"])
        client.produce("made-by-writing-to-it", [b"first"])

        read = [message.value() for message in client.read_committed("made-by-writing-to-it")]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)

    assert [b"first"] == read
    assert (0, b"") == (process.returncode, errors)


def test_three_nodes_keep_every_record_three_times() -> None:
    command = [sys.executable, "-m", "worker", "broker", "--port", "0", "--nodes", "3", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        client = BrokerUnderTest(ready["bootstrap_servers"], ready["cluster_id"])
        client.produce("on-three-nodes", [b"first"])
        found = client.admin().list_topics("on-three-nodes", timeout=30).topics["on-three-nodes"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=180)

    assert 3 == len(ready["bootstrap_servers"].split(","))
    assert {3} == {len(partition.replicas) for partition in found.partitions.values()}
    assert (0, b"") == (process.returncode, errors)


@contextmanager
def secured(folder: Path, *arguments: str) -> Iterator[Path]:
    """A secure broker in `folder`, and the folder of its clients' files; stopped at the end."""
    command = [sys.executable, "-m", "worker", "broker", "--secure", "--port", "0", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=180)
            yield Path(json.loads(line)["credentials"])
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=300)
    assert (0, b"") == (process.returncode, errors)


Settings = dict[str, str | int | float | bool]


def settings_of(credentials: Path, user: str) -> Settings:
    lines = (credentials / f"{user}.conf").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return {name: value for name, value in found.items() if name not in {"isolation.level", "auto.offset.reset"}}


def create(credentials: Path, *topics: str) -> None:
    admin = AdminClient(settings_of(credentials, "admin"))
    for future in admin.create_topics([NewTopic(topic, 1) for topic in topics]).values():
        future.result(REQUEST_SECONDS)


def refusal(credentials: Path, user: str, topic: str) -> int | None:
    """The code with which a record is refused that this user writes; None where it is stored."""
    producer = Producer(settings_of(credentials, user))
    codes: list[int | None] = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: codes.append(None if error is None else error.code()))
    assert 0 == producer.flush(REQUEST_SECONDS)
    return codes[0]


def test_a_secure_one_lets_each_in_with_its_own_rights_and_nobody_else(tmp_path: Path) -> None:
    with secured(tmp_path, "--topic", "in", "--group", "labels") as credentials:
        create(credentials, "in", "in.predictions", "in.dlq", "elsewhere")
        assert None is refusal(credentials, "producer", "in")
        for user, topic in (("producer", "in.predictions"), ("producer", "elsewhere"), ("reader", "in")):
            assert KafkaError.TOPIC_AUTHORIZATION_FAILED == refusal(credentials, user, topic), (user, topic)

        servers = settings_of(credentials, "admin")["bootstrap.servers"]
        strangers: list[Settings] = [
            {},
            {"security.protocol": "ssl", "ssl.ca.location": str(credentials / "ca.pem")},
            {**settings_of(credentials, "reader"), "sasl.password": "guessed"},
            {**settings_of(credentials, "reader"), "ssl.ca.location": ""},
        ]
        for stranger in strangers:
            with pytest.raises(KafkaException):
                AdminClient({**stranger, "bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=5)

        for file in (each for each in credentials.rglob("*") if each.is_file() and each.suffix not in {".pem", ""}):
            assert 0o600 == stat.S_IMODE(file.stat().st_mode), file
        assert 0o700 == stat.S_IMODE(credentials.stat().st_mode)


def test_a_secure_one_that_starts_again_knows_its_users_and_its_records(tmp_path: Path) -> None:
    kept = ("--data", str(tmp_path / "data"), "--topic", "in")
    with secured(tmp_path, *kept) as credentials:
        create(credentials, "in")
        assert None is refusal(credentials, "producer", "in")
        before = {
            file.name: file.read_bytes() for file in credentials.iterdir() if file.suffix in {".password", ".pem"}
        }

    with secured(tmp_path, *kept) as credentials:
        assert before == {file.name: file.read_bytes() for file in credentials.iterdir() if file.name in before}
        assert None is refusal(credentials, "producer", "in")
        admin = AdminClient(settings_of(credentials, "admin"))
        place, latest = TopicPartition("in", 0), OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no types
        found = admin.list_offsets({place: latest})[place].result(REQUEST_SECONDS)
    assert 2 == found.offset


def test_three_secure_nodes_speak_to_each_other_and_to_javas_tools(tmp_path: Path) -> None:
    with secured(tmp_path, "--nodes", "3", "--topic", "in") as credentials:
        servers = str(settings_of(credentials, "admin")["bootstrap.servers"])
        tool = ["--bootstrap-server", servers, "--command-config", str(credentials / "admin.properties")]
        made = kafka_java().run_tool("org.apache.kafka.tools.TopicCommand", [*tool, "--create", "--topic", "in"])
        listed = kafka_java().run_tool("org.apache.kafka.tools.AclCommand", [*tool, "--list", "--topic", "in"])
        assert None is refusal(credentials, "producer", "in")

    assert 0 == made.returncode, made.stderr.decode()
    assert b"principal=User:worker" in listed.stdout
    assert 3 == len(servers.split(","))


def test_a_folder_that_cannot_hold_what_clients_need_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "worker", "broker", "--secure", "--port", "0", "--credentials", "file/folder"]
    result = subprocess.run(command, capture_output=True, check=False, timeout=120, cwd=tmp_path)

    assert 2 == result.returncode
    assert [f"worker: {tmp_path}/file/folder cannot hold the clients' files: Not a directory"] == (
        result.stderr.decode().splitlines()
    )


def test_a_taken_port_is_said_in_one_line(kafka: BrokerUnderTest) -> None:
    port = kafka.bootstrap_servers.rpartition(":")[2]

    result = subprocess.run(
        [sys.executable, "-m", "worker", "broker", "--port", port], capture_output=True, check=False, timeout=60
    )

    assert 2 == result.returncode
    assert b"" == result.stdout
    assert [f"worker: port {port} of 127.0.0.1 is taken: name another one, or let a free one be chosen"] == (
        result.stderr.decode().splitlines()
    )
