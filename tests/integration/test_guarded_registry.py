"""A real schema registry behind TLS, a password and certificates."""

from pathlib import Path

import pytest

from tests.support.certificates import pem_files
from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers, ticket
from tests.support.tls_door import tls_door
from tests.support.worker import NOTHING, Changes
from worker.errors import RetryableError
from worker.kafka.embedded_certificates import Authority, authority
from worker.kafka.embedded_java import kafka_java
from worker.kafka.schema_registry import RegistryClient
from worker.registry_settings import Registry

PASSWORD = "registry-secret-4719"  # noqa: S105


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"), kafka_java())


def settings(signer: Authority, folder: Path, url: str, more: Changes = NOTHING, password: str = PASSWORD) -> Registry:
    """A configuration with the password in a file, as it is documented."""
    (folder / "password").write_text(f"{password}\n")
    given = {"url": url, "username": "labeller", "password_file": folder / "password", "ssl_ca_location": signer.ca}
    return Registry.model_validate({**given, **more})


def schema_type(registry: RegistryUnderTest, asked: Registry) -> str:
    """What the client learns of a schema that the reference serializer has registered."""
    value = Serializers(registry.url).write("avro", "guarded", ticket(7, "x"))
    client = RegistryClient(asked)
    try:
        return client.fetch(int.from_bytes(value[1:5], "big")).type
    finally:
        client.close()


def test_a_password_from_a_file_opens_a_registry_behind_tls(
    registry: RegistryUnderTest, signer: Authority, tmp_path: Path
) -> None:
    with tls_door(signer, registry.url, PASSWORD) as url:
        assert "AVRO" == schema_type(registry, settings(signer, tmp_path, url))
        client = RegistryClient(settings(signer, tmp_path, url))
        number = client.register("guarded-output-value", '"string"', "AVRO", create=True)
        assert number == client.register("guarded-output-value", '"string"', "AVRO", create=False)
        client.close()


def test_a_wrong_password_is_told_by_its_status_and_quoted_nowhere(
    registry: RegistryUnderTest, signer: Authority, tmp_path: Path
) -> None:
    with (
        tls_door(signer, registry.url, PASSWORD) as url,
        pytest.raises(RetryableError, match="the schema registry refuses a request") as caught,
    ):
        schema_type(registry, settings(signer, tmp_path, url, NOTHING, "guessed-4720"))
    assert "HTTP 401" in str(caught.value)
    assert "guessed" not in str(caught.value)


def test_a_registry_that_somebody_else_signed_is_not_told_the_password(
    registry: RegistryUnderTest, signer: Authority, tmp_path: Path
) -> None:
    other = authority(tmp_path / "other", kafka_java())
    with (
        tls_door(signer, registry.url, PASSWORD) as url,
        pytest.raises(RetryableError, match="does not answer"),
    ):
        schema_type(registry, settings(signer, tmp_path, url, {"ssl_ca_location": other.ca}))


def test_a_registry_that_asks_for_a_certificate_is_shown_it(
    registry: RegistryUnderTest, signer: Authority, tmp_path: Path
) -> None:
    certificate, key = pem_files(signer, "client")
    own = {"ssl_certificate_location": certificate, "ssl_key_location": key}
    with tls_door(signer, registry.url, PASSWORD, asks_for_certificate=True) as url:
        assert "AVRO" == schema_type(registry, settings(signer, tmp_path, url, own))
        with pytest.raises(RetryableError, match="does not answer"):
            schema_type(registry, settings(signer, tmp_path, url))
