"""A node finds on its disk what the settings say."""

import socket
from pathlib import Path

import pytest

from worker.errors import ConfigError
from worker.kafka.embedded_storage import (
    HOST,
    EmbeddedSettings,
    Listeners,
    Place,
    choose_ports,
    free_port,
    stored_cluster_id,
    write_properties,
)


def _written(path: Path, settings: EmbeddedSettings, ports: dict[str, int]) -> dict[str, str]:
    write_properties(path / "server.properties", path / "records", ports, settings)
    lines = (path / "server.properties").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_properties_of_the_settings_win_over_the_defaults(tmp_path: Path) -> None:
    settings = EmbeddedSettings(properties={"num.partitions": "7", "message.max.bytes": "2048"})

    found = _written(tmp_path, settings, {"PLAINTEXT": 20_001, "CONTROLLER": 20_002})

    assert ("7", "2048", "false") == (
        found["num.partitions"],
        found["message.max.bytes"],
        found["auto.create.topics.enable"],
    )


def test_every_listener_but_the_controllers_is_advertised(tmp_path: Path) -> None:
    settings = EmbeddedSettings(extra_listeners={"SCRAM": "SASL_PLAINTEXT"})

    found = _written(tmp_path, settings, {"PLAINTEXT": 20_001, "CONTROLLER": 20_002, "SCRAM": 20_003})

    assert "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:20002,SCRAM://127.0.0.1:20003" == found["listeners"]
    assert "PLAINTEXT://127.0.0.1:20001,SCRAM://127.0.0.1:20003" == found["advertised.listeners"]
    assert "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_PLAINTEXT" == found["listener.security.protocol.map"]


def test_a_port_that_is_told_to_clients_can_be_anothers(tmp_path: Path) -> None:
    settings = EmbeddedSettings(extra_listeners={"FAR": "PLAINTEXT"}, advertised_ports={"FAR": 20_009})

    found = _written(tmp_path, settings, {"PLAINTEXT": 20_001, "CONTROLLER": 20_002, "FAR": 20_003})

    assert "PLAINTEXT://127.0.0.1:20001,FAR://127.0.0.1:20009" == found["advertised.listeners"]
    assert found["listeners"].endswith("FAR://127.0.0.1:20003")


def test_nothing_listens_in_the_clear_where_no_listener_does(tmp_path: Path) -> None:
    guarded = Listeners("CLIENTS", "BROKERS", {"CLIENTS": "SASL_SSL", "BROKERS": "SSL", "CONTROLLER": "SSL"})
    settings = EmbeddedSettings(port=free_port(), listeners=guarded)

    ports = choose_ports(settings)
    found = _written(tmp_path, settings, ports)

    assert settings.port == ports["CLIENTS"]
    assert "BROKERS" == found["inter.broker.listener.name"]
    assert "CLIENTS:SASL_SSL,BROKERS:SSL,CONTROLLER:SSL" == found["listener.security.protocol.map"]
    assert 0o600 == (tmp_path / "server.properties").stat().st_mode & 0o777


@pytest.mark.parametrize(("nodes", "copies"), [(1, "1"), (2, "1"), (3, "3")])
def test_from_three_nodes_on_everything_outlives_one_of_them(tmp_path: Path, nodes: int, copies: str) -> None:
    place = Place(2, None, {}, {number: 20_010 + number for number in range(1, nodes + 1)})

    found = _written(tmp_path, EmbeddedSettings(place=place), {"PLAINTEXT": 20_001, "CONTROLLER": 20_002})

    assert "2" == found["node.id"]
    assert nodes == len(found["controller.quorum.voters"].split(","))
    assert {copies} == {found[f"{log}.replication.factor"] for log in ("offsets.topic", "transaction.state.log")}
    assert ("2" if nodes == 3 else "1") == found["transaction.state.log.min.isr"]


def test_every_listener_has_a_port_of_its_own() -> None:
    port = free_port()

    found = choose_ports(EmbeddedSettings(port=port, extra_listeners={"SECOND": "PLAINTEXT"}))

    assert port == found["PLAINTEXT"]
    assert 3 == len(set(found.values()))


def test_a_taken_port_is_refused_with_its_number() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken"):
            choose_ports(EmbeddedSettings(port=port))


def test_storage_that_was_never_formatted_has_no_cluster_id(tmp_path: Path) -> None:
    assert None is stored_cluster_id(tmp_path)

    (tmp_path / "meta.properties").write_text("version=1\ncluster.id=abc\n", encoding="utf-8")

    assert "abc" == stored_cluster_id(tmp_path)
