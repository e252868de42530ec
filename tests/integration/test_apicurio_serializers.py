"""Events that serializers of Java wrote: those of Apicurio Registry, as Confluent's do and in their own ways."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.java_serializer import JavaSerializer, Place
from tests.support.schema_registry import RegistryUnderTest
from tests.support.serialized import Serializers
from tests.support.worker import run_to_end, set_up
from worker.messages.binding import REGISTRY_FORMATS

pytestmark = pytest.mark.kafka

HEADERS = "apicurio.registry.headers.enabled=true"
BODIES = ("short", "a longer text of several words")


@dataclass(frozen=True, slots=True)
class Shop:
    """Where Java writes tickets and the worker reads them."""

    kafka: BrokerUnderTest
    registry: RegistryUnderTest
    topics: TopicsFactory
    serializer: JavaSerializer
    folder: Path

    def written(self, kind: str, *settings: str) -> str:
        """A topic with a ticket for each of `BODIES`, in the format `kind`."""
        (topic,) = self.topics("java", partitions=1)
        self.serializer.write(Place(self.kafka.bootstrap_servers, self.registry, topic), kind, BODIES, *settings)
        return topic

    def classify(self, kind: str, *topics: str) -> None:
        """Have the worker read `topics` to their end."""
        binding = {"text": "/content/body", "id": "/number", "format": kind}
        setup = set_up(self.folder, self.kafka, topics, {"registry": {"url": self.registry.url}, "binding": binding})
        self.kafka.create_topics(dict.fromkeys(setup.outputs, 1))
        run_to_end(setup)


@pytest.fixture
def shop(
    kafka: BrokerUnderTest,
    registry: RegistryUnderTest,
    topics: TopicsFactory,
    java_serializer: JavaSerializer,
    tmp_path: Path,
) -> Shop:
    return Shop(kafka, registry, topics, java_serializer, tmp_path)


@pytest.mark.parametrize("kind", REGISTRY_FORMATS)
def test_what_a_serializer_of_java_wrote_is_read_by_field_path(shop: Shop, kind: str) -> None:
    written = (shop.written(kind), shop.written(kind, HEADERS))
    assert {f"{topic}-value" for topic in written} <= {*Serializers(shop.registry.url).client.get_subjects()}
    shop.classify(kind, *written)
    for topic in written:
        messages = shop.kafka.read_committed(f"{topic}.predictions")
        found = {each["id"]: each for each in (json.loads(message.value() or b"") for message in messages)}
        assert {"1", "2"} == found.keys()
        assert found["1"]["text"]["tokens"] < found["2"]["text"]["tokens"]
        assert [] == shop.kafka.read_committed(f"{topic}.dlq")
        names = {name for message in messages for name, _ in headers_of(message)}
        assert [] == [name for name in names if name.startswith("apicurio")], "they speak of the event's schema"


@pytest.mark.parametrize(
    ("settings", "mended_by"),
    [
        ((HEADERS, "apicurio.registry.use-id=globalId"), b"set apicurio.registry.use-id=contentId"),
        (("apicurio.registry.as-confluent=false",), b"set apicurio.registry.as-confluent=true"),
    ],
)
def test_an_id_that_only_apicurio_can_look_up_is_refused_with_the_setting_that_mends_it(
    shop: Shop, settings: tuple[str, ...], mended_by: bytes
) -> None:
    topic = shop.written("avro", *settings)
    shop.classify("avro", topic)
    letters = [dict(headers_of(letter)) for letter in shop.kafka.read_committed(f"{topic}.dlq")]
    assert [b"payload_invalid"] * len(BODIES) == [letter["nli-error-code"] for letter in letters]
    assert all(mended_by in (letter["__connect.errors.exception.message"] or b"") for letter in letters)
