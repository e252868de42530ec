"""The worker between clients that nobody here wrote."""

import json
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, kcat_is_installed
from tests.support.worker import run_to_end, set_up

pytestmark = pytest.mark.kafka

EVENTS = b"".join(json.dumps({"id": f"e-{i}", "text": f"event {i}"}).encode() + b"\n" for i in range(20))
IDS = [f"e-{i}" for i in range(20)]


def test_what_kafkas_console_producer_writes_its_console_consumer_reads_as_predictions(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, kafka, topics("console", partitions=1))
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    kafka.console_produce(setup.inputs[0], EVENTS)
    run_to_end(setup)
    lines = kafka.console_consume(f"{setup.inputs[0]}.predictions", 20)
    assert IDS == [json.loads(line)["id"] for line in lines]


@pytest.mark.skipif(not kcat_is_installed(), reason="kcat is not installed: apt-get install kcat")
def test_what_kcat_writes_kcat_reads_as_predictions_with_their_headers(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    setup = set_up(tmp_path, kafka, topics("kcat", partitions=1))
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    kafka.kcat_produce(setup.inputs[0], EVENTS, "-H", "source=kcat", "-k", "a key")
    run_to_end(setup)
    lines = kafka.kcat_consume(f"{setup.inputs[0]}.predictions", "-f", "%k|%h|%s\n")
    assert IDS == [json.loads(line.split(b"|", 2)[2])["id"] for line in lines]
    assert all(line.startswith(b"a key|source=kcat,nli-schema=kinds@1,") for line in lines)
