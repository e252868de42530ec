"""Topics that refuse what they are given, go away, or have forgotten where we were."""

import hashlib
import json
import random
import re
import string
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Message
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]  # re-exported unsaid

from tests.fault.conftest import Noted, StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest, headers_of, kcat_is_installed
from tests.support.chaos import HEALTHY, PARTITIONS, SOON, Stream, Tally, kind_of, metric, number_of, promised
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, wait_until
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


FULL_QUEUES: Mapping[str, Mapping[str, Any]] = {
    "10 records": {"queue.buffering.max.messages": 10},
    "4 kB": {"queue.buffering.max.kbytes": 4},
}


@pytest.mark.parametrize("size", FULL_QUEUES)
def test_outputs_wait_for_room_in_a_local_queue_that_is_full(
    stream: StreamFactory, verdict: Verdict, size: str
) -> None:
    """And for what is larger than all of it nobody waits."""
    attacked = stream(0, {"kafka": {"librdkafka": {**SOON, **FULL_QUEUES[size]}}})
    large = {200: good(200, filler="x" * 10_000), 207: f"broken {'y' * 10_000} n-207"}
    attacked.feed(400, {number: {"value": value} for number, value in large.items()})
    attacked.run_to_end()
    assert '"queue.found_full"' in attacked.log()
    assert verdict(attacked, f"local queue of {size}, full").is_perfect


def tell(message: Message) -> dict[str, bytes | None]:
    return dict(headers_of(message))


def letters_of(attacked: Stream, topic: str) -> dict[int, Message]:
    """The dead letters of `topic` by the number of their record."""
    return {number_of(message): message for message in attacked.kafka.read_committed(f"{topic}.dlq")}


def good(number: int, **more: str) -> str:
    return json.dumps({"id": f"n-{number}", "text": "as good as any", **more})


def test_what_is_too_large_for_its_topic_goes_out_smaller_and_holds_up_nothing(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(0)
    alter(kafka, attacked.setup.outputs, max_message_bytes=str(SMALL))
    large = "broken n-207 " + "y" * 10_000
    attacked.feed(400, {200: {"value": good(200, filler="x" * 10_000)}, 207: {"value": large}})
    attacked.run_to_end()
    for topic in attacked.setup.inputs:
        predictions = [json.loads(m.value() or b"") for m in kafka.read_committed(f"{topic}.predictions")]
        assert [("n-200", "event" in p) for p in predictions if p.get("event_omitted")] == [("n-200", False)]
        letters = letters_of(attacked, topic)
        assert [207] == [number for number, letter in letters.items() if letter.value() is None]
        told = tell(letters[207])
        assert hashlib.sha256(large.encode()).hexdigest().encode() == told["nli-value-sha256"]
        assert str(len(large)).encode() == told["nli-value-bytes"]
        source = [told[f"__connect.errors.{name}"] for name in ("topic", "partition", "offset")]
        assert [topic.encode(), b"3", b"51"] == source
    assert verdict(attacked, "records too large for their outputs").is_perfect


def test_a_timestamp_that_the_output_topic_refuses_is_replaced_and_kept_in_a_header(
    kafka: BrokerUnderTest, stream: StreamFactory, verdict: Verdict
) -> None:
    attacked = stream(0)
    alter(kafka, attacked.setup.inputs, message_timestamp_after_max_ms=str(10 * FAR_MS))
    alter(kafka, attacked.setup.outputs, message_timestamp_before_max_ms=str(3_600_000))
    now_ms = int(time.time() * 1000)
    past, future = now_ms - FAR_MS, now_ms + FAR_MS
    odd = {60: past, 61: future, 67: past, 87: future}
    attacked.feed(100, {number: {"timestamp": timestamp} for number, timestamp in odd.items()})
    attacked.run_to_end()
    seen = [m for m in kafka.read_committed(*attacked.setup.outputs) if b"nli-original-timestamp" in _names(m)]
    told = [(number_of(m), int(tell(m)["nli-original-timestamp"] or b"0")) for m in seen]
    assert sorted([*odd.items(), *odd.items()]) == sorted(told)
    assert all(abs(message.timestamp()[1] - now_ms) < 3_600_000 for message in seen)
    assert verdict(attacked, "timestamps that the outputs refuse").is_perfect


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


def test_predictions_that_are_deleted_under_load_close_their_input_and_no_more_are_lost_than_lay_in_them(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    attacked = stream(400)
    topic, other = attacked.setup.inputs
    gone = f"{topic}.predictions"
    with attacked.worker(Faults(engine_seconds=0.05)) as process:
        attacked.await_progress(60)
        admin = kafka.admin()
        admin.delete_topics([gone])[gone].result(REQUEST_SECONDS)
        wait_until(lambda: f"waiting for {gone}".encode() in get(attacked.setup, "/readyz")[1], 60)
        wait_until(lambda: sum(kafka.committed_offsets(attacked.group, other).values()) == 400, 60)
        committed = kafka.committed_offsets(attacked.group, topic)
        conclusive(0 < sum(committed.values()) < 400, "the topic was deleted before or after the load")
        kafka.create_topics({gone: PARTITIONS})
        seconds = attacked.await_progress(400 - sum(committed.values()), 90)
        assert process.poll() is None
    lay_in_it = {n for n in range(400) if kind_of(n) == "good" and n // PARTITIONS < committed.get(n % PARTITIONS, 0)}
    tally = attacked.tally()
    noted("predictions deleted under load, made again (lost: what lay in them)", tally, seconds)
    assert Tally(2 * 400 - len(lay_in_it), len(lay_in_it), doubled=0, reordered=0, misplaced=0) == promised(tally)
    assert lay_in_it.isdisjoint(number_of(message) for message in kafka.read_committed(gone))


def forget(kafka: BrokerUnderTest, topic: str, first_left: int) -> None:
    """What retention does to partition 0 of `topic`."""
    admin = kafka.admin()
    (future,) = admin.delete_records([KafkaPartition(topic, 0, first_left)]).values()
    future.result(REQUEST_SECONDS)


def go_on_from(attacked: Stream, topic: str, offset: int) -> float:
    """Set the group's offset of partition 0, as the worker advises, and work on to the end; seconds until a commit."""
    wait_until(lambda: attacked.kafka.members(attacked.group) == 0, 60)
    admin = attacked.kafka.admin()
    wanted = ConsumerGroupTopicPartitions(attacked.group, [KafkaPartition(topic, 0, offset)])
    admin.alter_consumer_group_offsets([wanted])[attacked.group].result(REQUEST_SECONDS)
    return attacked.run_to_end()


def test_a_position_that_retention_has_passed_is_an_error_with_the_gap_counted(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    attacked = stream(100)
    attacked.run_to_end()
    attacked.feed(100)
    topic = attacked.setup.inputs[0]
    forget(kafka, topic, 40)
    with attacked.worker(HEALTHY, "--until-end") as process:
        assert 1 == process.wait(180)
    assert f"the position of {topic}/0 is out of range: 15 records are gone" in attacked.log()
    assert 25 == kafka.committed_offsets(attacked.group, topic)[0]
    seconds = go_on_from(attacked, topic, 40)
    tally = attacked.tally()
    noted("retention passes the position, offset set as advised (lost: what it deleted)", tally, seconds)
    assert Tally(400 - 15, lost=15, doubled=0, reordered=0, misplaced=0) == promised(tally)


@pytest.mark.soak
def test_retention_that_overtakes_a_worker_that_has_paused_ends_it_with_nothing_skipped(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    """What was prefetched is thrown away by the pause: what is read next is no longer there."""
    attacked = stream(4000)
    topic, first_left = attacked.setup.inputs[0], 990
    with attacked.worker(Faults(engine_seconds=0.1)) as process:
        wait_until(lambda: 0 in kafka.committed_offsets(attacked.group, topic), 60)
        wait_until(lambda: metric(attacked, "worker_partitions_paused ") == 2 * PARTITIONS, 60)
        forget(kafka, topic, first_left)
        assert 1 == process.wait(270)
    position = kafka.committed_offsets(attacked.group, topic)[0]
    conclusive(position < first_left, "it had read all of it by then")
    told = re.findall(rf"the position of {topic}/0 is out of range: (\d+) records are gone", attacked.log())
    assert first_left - position >= int(told[0]) > 0
    seen = Counter(number_of(m) for m in kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq"))
    assert dict.fromkeys(range(0, position * PARTITIONS, PARTITIONS), 1) == {
        number: times for number, times in seen.items() if number % PARTITIONS == 0
    }
    seconds, gone = go_on_from(attacked, topic, first_left), first_left - position
    tally = attacked.tally()
    noted("retention overtakes a paused worker, offset set as advised (lost: what it deleted)", tally, seconds)
    assert Tally(8000 - gone, lost=gone, doubled=0, reordered=0, misplaced=0) == promised(tally)


KEYLESS: Mapping[str, object] = {"key": None}


def test_a_record_that_its_output_refuses_for_good_is_a_dead_letter_and_the_rest_goes_on(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    attacked = stream(0)
    topic = attacked.setup.inputs[0]
    alter(kafka, (f"{topic}.predictions",), cleanup_policy="compact")  # such a topic takes no record without a key
    refused = [number for number in range(100, 110) if kind_of(number) == "good"]
    attacked.feed(200, dict.fromkeys(refused, KEYLESS))
    attacked.run_to_end()
    letters = letters_of(attacked, topic)
    assert refused == sorted(number for number in letters if kind_of(number) == "good")
    assert {b"encode_failed"} == {tell(letters[number])["nli-error-code"] for number in refused}
    tally = attacked.tally()
    noted("records that an output refuses for good (misplaced: their dead letters)", tally, None)
    assert Tally(attacked.total, lost=0, doubled=0, reordered=0, misplaced=len(refused)) == promised(tally)


def test_a_dead_letter_that_is_refused_too_closes_its_own_input_until_it_is_taken(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    attacked = stream(0)
    topic, other = attacked.setup.inputs
    alter(kafka, (f"{topic}.predictions", f"{topic}.dlq"), cleanup_policy="compact")
    attacked.feed(100, {0: KEYLESS})
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: f"{topic}.dlq refuses a dead letter".encode() in get(attacked.setup, "/readyz")[1], 60)
        wait_until(lambda: sum(kafka.committed_offsets(attacked.group, other).values()) == 100, 60)
        assert sum(kafka.committed_offsets(attacked.group, topic).values()) < 100
        assert 200 == get(attacked.setup, "/livez")[0]
        alter(kafka, (f"{topic}.dlq",), cleanup_policy="delete")
        seconds = attacked.await_end()
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        assert process.poll() is None
    assert kind_of(0) == "good"
    assert 0 in letters_of(attacked, topic)
    tally = attacked.tally()
    noted("a dead letter that its topic refuses, until it is taken (misplaced: itself)", tally, seconds)
    assert Tally(attacked.total, lost=0, doubled=0, reordered=0, misplaced=1) == promised(tally)


def test_an_output_that_has_come_to_take_less_costs_only_what_is_too_large_for_it(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    """Its limit was lowered while the worker runs: what was made for the old one is refused by the broker alone."""
    attacked = stream(0)
    topic = attacked.setup.inputs[0]
    with attacked.worker(HEALTHY) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        alter(kafka, (f"{topic}.predictions",), max_message_bytes=str(SMALL))
        noise = "".join(random.Random(7).choices(string.ascii_letters + string.digits, k=10_000))
        attacked.feed(200, {100: {"value": good(100, n=noise)}})
        wait_until(lambda: attacked.position() == attacked.total, 60)
        assert process.poll() is None
    refused = {n: tell(letter)["nli-error-code"] for n, letter in letters_of(attacked, topic).items() if n == 100}
    conclusive(refused, "the new limit was heard of in time: nothing was made for the old one")
    assert {100: b"output_too_large"} == refused
    tally = attacked.tally()
    noted("an output's limit lowered under load (misplaced: what is too large for it)", tally, None)
    assert Tally(attacked.total, lost=0, doubled=0, reordered=0, misplaced=1) == promised(tally)


@pytest.mark.skipif(not kcat_is_installed(), reason="kcat is not installed")
def test_header_names_that_are_not_utf8_cost_only_their_own_record(
    kafka: BrokerUnderTest, stream: StreamFactory, noted: Noted
) -> None:
    attacked: Stream = stream(40)
    topic = attacked.setup.inputs[0]
    kafka.kcat_produce(topic, b'{"id": "n-40", "text": "odd"}\n', "-H", "\udcff\udcfe=1", "-p", "0")
    attacked.run_to_end()
    assert 40 in letters_of(attacked, topic)
    tally = attacked.tally()
    noted("a header name that is not UTF-8 (misplaced: its record's dead letter)", tally, None)
    assert Tally(81, lost=0, doubled=0, reordered=0, misplaced=1) == promised(tally)
