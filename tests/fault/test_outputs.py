"""Topics that refuse what they are given, go away, or have forgotten where we were."""

import json
import random
import string
import time

import pytest
from confluent_kafka import Message
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]  # re-exported unsaid

from tests.fault.conftest import StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest, headers_of, kcat_is_installed
from tests.support.chaos import HEALTHY, Stream
from tests.support.wait import wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

SMALL = 2500
"""Bytes that a topic takes: less than a large envelope, more than a prediction."""
FAR_MS = 10 * 24 * 3600 * 1000


def alter(kafka: BrokerUnderTest, topics: tuple[str, ...], **config: str) -> None:
    settings = {name.replace("_", "."): value for name, value in config.items()}
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()
    ]
    resources = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries) for topic in topics]
    admin = kafka.admin()
    for future in admin.incremental_alter_configs(resources).values():
        future.result(REQUEST_SECONDS)


def tell(message: Message) -> dict[str, bytes | None]:
    return dict(headers_of(message))


def test_what_is_too_large_for_its_topic_goes_out_smaller_and_holds_up_nothing(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(0)
    alter(kafka, attacked.setup.outputs, max_message_bytes=str(SMALL))
    attacked.feed(200)
    topic = attacked.setup.inputs[0]
    large = json.dumps({"id": "n-200", "text": "large", "filler": "x" * 10_000})
    kafka.produce(topic, [{"value": large, "partition": 0}, {"value": "broken " + "y" * 10_000, "partition": 0}])
    attacked.feed(100)
    attacked.run_to_end()
    predictions = [json.loads(m.value() or b"") for m in kafka.read_committed(f"{topic}.predictions")]
    assert [("n-200", "event" in p) for p in predictions if p.get("event_omitted")] == [("n-200", False)]
    (letter,) = [m for m in kafka.read_committed(f"{topic}.dlq") if m.value() is None]
    assert b"10007" == tell(letter)["nli-value-bytes"]
    assert 64 == len(tell(letter)["nli-value-sha256"] or b"")


def test_a_timestamp_that_the_output_topic_refuses_is_replaced_and_kept_in_a_header(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(0)
    alter(kafka, attacked.setup.inputs, message_timestamp_after_max_ms=str(10 * FAR_MS))
    alter(kafka, attacked.setup.outputs, message_timestamp_before_max_ms=str(3_600_000))
    attacked.feed(60)
    topic, now_ms = attacked.setup.inputs[0], int(time.time() * 1000)
    odd = [now_ms - FAR_MS, now_ms + FAR_MS]
    for number, timestamp in enumerate(odd, 60):
        value = json.dumps({"id": f"n-{number}", "text": "out of time"})
        kafka.produce(topic, [{"value": value, "partition": number % 4, "timestamp": timestamp}])
        kafka.produce(topic, [{"value": f"broken n-{number}", "partition": number % 4, "timestamp": timestamp}])
    attacked.run_to_end()
    seen = [m for m in kafka.read_committed(*attacked.setup.outputs) if b"nli-original-timestamp" in _names(m)]
    assert 4 == len(seen)
    for message in seen:
        assert int(tell(message)["nli-original-timestamp"] or b"0") in odd
        assert abs(message.timestamp()[1] - now_ms) < 3_600_000


def _names(message: Message) -> list[bytes]:
    return [name.encode() for name, _ in headers_of(message)]


def test_an_output_topic_that_is_deleted_closes_its_input_until_it_is_back(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(0)
    gone = f"{attacked.setup.inputs[0]}.dlq"
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        admin = kafka.admin()
        admin.delete_topics([gone])[gone].result(REQUEST_SECONDS)
        attacked.feed(100)
        wait_until(lambda: f"waiting for {gone}".encode() in get(attacked.setup, "/readyz")[1], 60)
        other = attacked.setup.inputs[1]
        wait_until(lambda: sum(kafka.committed_offsets(attacked.group, other).values()) == 100, 60)
        kafka.create_topics({gone: 4})
        wait_until(lambda: attacked.position() == 200, 90)
        assert process.poll() is None
    assert verdict(attacked, "dead letter topic deleted, made again").is_perfect


def test_a_position_that_retention_has_passed_is_an_error_with_the_gap_counted(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(100)
    attacked.run_to_end()
    attacked.feed(100)
    topic = attacked.setup.inputs[0]
    admin = kafka.admin()
    (future,) = admin.delete_records([KafkaPartition(topic, 0, 40)]).values()
    future.result(REQUEST_SECONDS)
    with attacked.worker(HEALTHY, "--until-end") as process:
        assert 1 == process.wait(60)
    assert f"the position of {topic}/0 is out of range: 15 records are gone" in attacked.log()
    assert 25 == kafka.committed_offsets(attacked.group, topic)[0]


def keyless(number: int) -> dict[str, object]:
    return {"value": json.dumps({"id": f"n-{number}", "text": "no key"}), "partition": number % 4}


def test_a_record_that_its_output_refuses_for_good_is_a_dead_letter_and_the_rest_goes_on(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(0)
    topic = attacked.setup.inputs[0]
    alter(kafka, (f"{topic}.predictions",), cleanup_policy="compact")  # such a topic takes no record without a key
    attacked.feed(100)
    kafka.produce(topic, [keyless(number) for number in range(100, 108)])
    attacked.feed(100)
    attacked.run_to_end()
    letters = {m.value(): tell(m) for m in kafka.read_committed(f"{topic}.dlq")}
    refused = {value: why for value, why in letters.items() if b"no key" in (value or b"")}
    assert 8 == len(refused)
    assert {b"encode_failed"} == {why["nli-error-code"] for why in refused.values()}
    seen = [m for t in attacked.setup.inputs for m in kafka.read_committed(f"{t}.predictions", f"{t}.dlq")]
    assert 408 == len(seen)


def test_a_dead_letter_that_is_refused_too_closes_its_own_input_until_it_is_taken(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(0)
    topic, other = attacked.setup.inputs
    alter(kafka, (f"{topic}.predictions", f"{topic}.dlq"), cleanup_policy="compact")
    kafka.produce(topic, [keyless(0)])
    attacked.feed(100)
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: f"{topic}.dlq refuses a dead letter".encode() in get(attacked.setup, "/readyz")[1], 60)
        wait_until(lambda: sum(kafka.committed_offsets(attacked.group, other).values()) == 100, 60)
        assert sum(kafka.committed_offsets(attacked.group, topic).values()) < 101
        assert 200 == get(attacked.setup, "/livez")[0]
        alter(kafka, (f"{topic}.dlq",), cleanup_policy="delete")
        wait_until(lambda: attacked.position() == 201, 60)
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    assert 101 == len(kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq"))


def test_an_output_that_has_come_to_take_less_costs_only_what_is_too_large_for_it(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    """Its limit was lowered while the worker runs: what was made for the old one is refused by the broker alone."""
    attacked = stream(0)
    topic = attacked.setup.inputs[0]
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        alter(kafka, (f"{topic}.predictions",), max_message_bytes=str(SMALL))
        attacked.feed(100)
        noise = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=10_000))
        kafka.produce(topic, [{"value": json.dumps({"id": "n-100", "text": "x", "n": noise}), "partition": 0}])
        attacked.feed(100)
        wait_until(lambda: attacked.position() == 401, 60)
        assert process.poll() is None
    codes = {tell(m)["nli-error-code"] for m in kafka.read_committed(f"{topic}.dlq") if b"n-100" in (m.value() or b"")}
    assert codes <= {b"output_too_large"}
    assert 201 == len(kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq"))


@pytest.mark.skipif(not kcat_is_installed(), reason="kcat is not installed")
def test_header_names_that_are_not_utf8_cost_only_their_own_record(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked: Stream = stream(40)
    topic = attacked.setup.inputs[0]
    kafka.kcat_produce(topic, b'{"id": "n-40", "text": "odd"}\n', "-H", "\udcff\udcfe=1", "-p", "0")
    attacked.run_to_end()
    seen = kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq")
    assert 41 == len(seen)
    letters = [m for m in seen if (m.value() or b"").find(b"n-40") >= 0]
    assert [f"{topic}.dlq"] == [m.topic() for m in letters]
