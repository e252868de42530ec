"""A real schema registry behind TLS and a password: who has them gets in, who has not is told what to look at."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.support.certificates import Authority
from tests.support.guarded_registry import PASSWORD, USER, guarded
from tests.support.schema_registry import RegistryUnderTest
from worker.errors import RetryableError
from worker.kafka.schema_registry import RegistryClient
from worker.registry_settings import Registry


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path)


def asked(settings: Registry) -> str:
    """What comes back of a schema that is registered and fetched with `settings`."""
    client = RegistryClient(settings)
    try:
        return client.fetch(client.register("guarded-value", '"string"', "AVRO", create=True)).text
    finally:
        client.close()


@pytest.mark.parametrize("from_file", [False, True])
def test_with_authority_and_password_schemas_are_written_and_read(
    registry: RegistryUnderTest, authority: Authority, tmp_path: Path, *, from_file: bool
) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    with guarded(registry, authority) as url:
        settings = Registry(
            url=url,
            username=USER,
            password=None if from_file else SecretStr(PASSWORD),
            password_file=tmp_path / "password" if from_file else None,
            ssl_ca_location=authority.ca,
        )
        assert '"string"' == asked(settings)


def test_a_wrong_password_may_be_mended_and_is_told_to_nobody(
    registry: RegistryUnderTest, authority: Authority
) -> None:
    with guarded(registry, authority) as url:
        settings = Registry(url=url, username=USER, password=SecretStr("not-it-at-all"), ssl_ca_location=authority.ca)
        with pytest.raises(RetryableError, match=r"HTTP 401\): check the credentials in registry") as refused:
            asked(settings)
    assert "not-it-at-all" not in f"{refused.value}{refused.value.__context__}{settings!r}"


def test_a_registry_that_an_unknown_authority_vouches_for_is_not_talked_to(
    registry: RegistryUnderTest, authority: Authority
) -> None:
    with guarded(registry, authority) as url, pytest.raises(RetryableError, match=r"registry\.ssl_ca_location"):
        asked(Registry(url=url, username=USER, password=SecretStr(PASSWORD)))


def test_where_a_certificate_is_wanted_only_who_shows_one_gets_in(
    registry: RegistryUnderTest, authority: Authority
) -> None:
    certificate, key, _ = authority.issue("worker")
    with guarded(registry, authority, wants_certificate=True) as url:
        without = Registry(url=url, username=USER, password=SecretStr(PASSWORD), ssl_ca_location=authority.ca)
        with pytest.raises(RetryableError, match="does not answer"):
            asked(without)
        shown = {"ssl_certificate_location": certificate, "ssl_key_location": key}
        assert '"string"' == asked(without.model_copy(update=shown))
