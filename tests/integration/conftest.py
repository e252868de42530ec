"""What integration tests may ask for beside a broker: a real schema registry, and what writes by it in Java."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.java_serializer import JavaSerializer
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
        _miss(_session_registry)
    else:
        yield _session_registry
    Serializers.close_all()


@pytest.fixture
def java_serializer(tmp_path: Path) -> JavaSerializer:
    """A program with the registry's own serializer: a failure in CI where its jars cannot be had, a skip at home."""
    try:
        return JavaSerializer(tmp_path / "classes")
    except BrokerUnavailableError as error:
        _miss(str(error))


def _miss(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
