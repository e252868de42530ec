"""What integration tests may ask for beside a broker: a real schema registry."""

import os
from collections.abc import Iterator

import pytest

from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers
from worker.kafka.embedded_jars import BrokerUnavailableError


@pytest.fixture(scope="session")
def _session_registry() -> Iterator[RegistryUnderTest | str]:
    try:
        registry = RegistryUnderTest()
    except BrokerUnavailableError as error:
        yield str(error)
        return
    try:
        registry.start()
        yield registry
    finally:
        registry.close()


@pytest.fixture
def registry(_session_registry: RegistryUnderTest | str) -> Iterator[RegistryUnderTest]:
    """The session's registry: a failure in CI where there is none, a skip at home."""
    if isinstance(_session_registry, str):
        if os.environ.get("CI"):
            pytest.fail(_session_registry, pytrace=False)
        pytest.skip(_session_registry)
    yield _session_registry
    Serializers.close_all()
