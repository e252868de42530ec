"""An engine that is slower than its input: who waits, for how long, and what it costs in memory."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tests.fault.conftest import Measured, Noted, StreamFactory, Verdict
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import PARTITIONS, SOON, Stream, Tally, event, metric, promised
from tests.support.chaos_worker import Faults
from tests.support.wait import conclusive, found_in_time, stays, wait_until
from tests.support.worker import get

pytestmark = pytest.mark.kafka

FLOOD, TRICKLE = 20_000, 50
WENT_AHEAD = 6000
"""Of the flood, while others wait: at its 1,000 records a second, some more than docs/backpressure.md bounds it to."""
MEGABYTE = 1024 * 1024
PROMPT = {**SOON, "session.timeout.ms": 6000, "max.poll.interval.ms": 6000}
"""Who waits for the engine where it should poll is thrown out after a few seconds, and its partitions move."""
SMALL_QUEUES: Mapping[str, Any] = {
    "limits": {"in_flight_records": 400, "in_flight_bytes": 4 * MEGABYTE},
    "kafka": {"librdkafka": {**PROMPT, "queued.max.messages.kbytes": 8192, "fetch.max.bytes": 4 * MEGABYTE}},
}
HELD_SECONDS = 9.0
"""How long one batch takes now and then: half as long again as PROMPT lets a member be silent."""
HOLD_EVERY = 8
"""In so many pauses, one is as long as that."""
MINUTES = 3
"""How long the engine is too slow, at least, in the longer of the two trials."""
LAG_TOLD_SECONDS = 5.0
"""Longer than it takes until a lag is told: both looks at the broker and at the partitions are made every 2 s."""
GROWTH_MEGABYTES = 60
"""What may come on top of a worker that has read nothing: see docs/backpressure.md."""


def committed(attacked: Stream, topic: str) -> int:
    return sum(attacked.kafka.committed_offsets(attacked.group, topic).values())


def sent(log: str, until: Mapping[str, int] | None = None) -> Counter[str]:
    """Records of each topic that went out in transactions, as a worker told; up to where those of `until` were out."""
    positions: dict[tuple[str, str], int] = {}
    total: Counter[str] = Counter()
    for line in log.splitlines():
        if '"offsets_sent"' not in line:
            continue
        for position in json.loads(line)["positions"]:
            place, offset = position.rsplit("@", 1)
            topic, partition = place.rsplit("/", 1)
            total[topic] += int(offset) - positions.get((topic, partition), 0)
            positions[topic, partition] = int(offset)
        if until is not None and until.items() <= total.items():
            break
    return total


def test_fifty_records_are_done_long_before_a_flood_of_another_topic(
    kafka: BrokerUnderTest, stream: StreamFactory, measured: Measured, noted: Noted
) -> None:
    attacked = stream(0, {"limits": {"in_flight_records": 500}})
    flood, trickle = attacked.setup.inputs
    kafka.produce(flood, [event(number) for number in range(FLOOD)])
    with attacked.worker(Faults(engine="none", pair_seconds=0.0005)) as process:
        wait_until(lambda: committed(attacked, flood) > 1000, 60)
        started = time.monotonic()
        kafka.produce(trickle, [event(number) for number in range(TRICKLE)])
        before = sent(attacked.log())
        wait_until(lambda: committed(attacked, trickle) == TRICKLE, 60)
        seconds, of_the_flood = time.monotonic() - started, committed(attacked, flood)
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    # What it told counts no time that others, and this test, took from it. Without transactions it tells nothing.
    went_ahead = sent(attacked.log(), {trickle: TRICKLE})[flood] - before[flood]
    waited = f"{seconds:.1f} s behind a flood of which {of_the_flood} were done, and {went_ahead} meanwhile"
    measured(f"fairness: {TRICKLE} records waited {waited}")
    conclusive(of_the_flood > TRICKLE, "nothing waited: the flood had not begun")
    assert of_the_flood < FLOOD * 0.7
    assert went_ahead < WENT_AHEAD
    with attacked.worker(Faults(engine="none"), "--until-end") as process:
        assert 0 == process.wait(270)
    total: Counter[str] = Counter()
    for topic, count in ((flood, FLOOD), (trickle, TRICKLE)):
        total += attacked.tally_topic(topic, kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq"), count)
    tally = Tally.of(total)
    noted(f"{TRICKLE} records behind a flood of {FLOOD} of another topic (recovery: they are done)", tally, seconds)
    assert Tally(FLOOD + TRICKLE, lost=0, doubled=0, reordered=0, misplaced=0) == promised(tally)


def resident_megabytes(process: int, of: str = "VmRSS") -> float:
    """What a process holds in memory; `VmHWM`: the most that it ever held."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (line,) = [each for each in lines if each.startswith(of)]
    return int(line.split()[1]) / 1024


def large(number: int) -> dict[str, object]:
    """An event of ten kilobytes."""
    value = str(event(number)["value"]).replace("{", '{"filler": "' + "x" * 10_000 + '", ', 1)
    return {**event(number), "value": value}


def is_paused(attacked: Stream) -> bool:
    return metric(attacked, "worker_partitions_paused ") > 0


def is_full(attacked: Stream) -> bool:
    """Whether nothing is taken in at all; while there is room a topic may still wait for its turn."""
    return metric(attacked, "worker_partitions_paused ") == PARTITIONS * len(attacked.setup.inputs)


def await_pause(attacked: Stream) -> bool:
    """Until the worker takes nothing in any more, and then something again; whether it told so meanwhile."""
    wait_until(lambda: is_full(attacked) or attacked.position() >= attacked.total, 60)
    told = b"backpressure: paused" in get(attacked.setup, "/readyz")[1]
    wait_until(lambda: not is_full(attacked), 60)
    conclusive(attacked.position() < attacked.total, "the stream is too short for so many pauses")
    return told


def hold_up(attacked: Stream, held: Path) -> None:
    """One batch outlasts the time within which a member has to poll: whoever is paused meanwhile, and full, polls."""
    since: list[float] = []

    def is_full_for_long() -> bool:
        # What was scored before is still delivered, and lets some in, until the batch that is held is all there is.
        if not is_full(attacked):
            since.clear()
        elif not since:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= HELD_SECONDS

    held.touch()
    wait_until(is_full_for_long, 60, "a worker that is full for longer than it may be silent")
    held.unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_an_engine_slower_than_its_input_pauses_and_resumes_within_its_memory_and_rebalances_nothing(
    stream: StreamFactory, verdict: Verdict, measured: Measured
) -> None:
    attacked = stream(0, SMALL_QUEUES)
    slow_down(attacked, measured, records=4000, turns=2)
    assert verdict(attacked, "engine: far slower than its input", attacked.run_to_end(120)).is_perfect


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_engine_slower_than_its_input_for_minutes(
    stream: StreamFactory, verdict: Verdict, measured: Measured
) -> None:
    attacked = stream(0, SMALL_QUEUES)
    slow_down(attacked, measured, records=40_000, turns=25, seconds=MINUTES * 60)
    assert verdict(attacked, "engine: far slower than its input, minutes", attacked.run_to_end(900)).is_perfect


def slow_down(attacked: Stream, measured: Measured, *, records: int, turns: int, seconds: float = 0) -> None:
    """Feed far more than is done in the time of so many pauses, and in so many seconds."""
    held = attacked.setup.path.with_suffix(".held")
    with attacked.worker(Faults(engine="none", pair_seconds=0.004, held_by=str(held))) as process:
        wait_until(lambda: get(attacked.setup, "/readyz")[0] == 200, 60)
        before = resident_megabytes(process.pid)
        for topic in attacked.setup.inputs:
            attacked.kafka.produce(topic, [large(number) for number in range(records)])
        attacked.count = records
        began, pauses, remarked = time.monotonic(), 0, 0
        while pauses < turns or time.monotonic() - began < seconds:
            remarked += await_pause(attacked)
            pauses += 1
            if pauses % HOLD_EVERY == 1:
                hold_up(attacked, held)
            status, told = get(attacked.setup, "/readyz")
            assert 200 == status, told
            assert 200 == get(attacked.setup, "/livez")[0]
        assert remarked > 0, "nobody said why records wait"
        most = resident_megabytes(process.pid, "VmHWM")
        conclusive(attacked.lag() > SMALL_QUEUES["limits"]["in_flight_records"], "little was left to wait for")
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(180)
    fed = 2 * records * 10 / 1024
    measured(f"slow engine: {before:.0f} MB resident before, {most:.0f} at most, {fed:.0f} MB fed, {pauses} pauses")
    assert 1 == attacked.log().count('"partition.assigned"')
    assert most - before < GROWTH_MEGABYTES


@contextmanager
def transacting(kafka: BrokerUnderTest, topic: str, count: int) -> Iterator[Producer]:
    """A transaction that has written to every partition of `topic`, and is open."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": f"writer-{topic}"})
    producer.init_transactions(REQUEST_SECONDS)
    producer.begin_transaction()
    for number in range(count):
        # No two alike: a pair that came before does not trouble the engine again.
        producer.produce(topic, f'{{"text": "text {number}"}}', partition=number % PARTITIONS)
    producer.flush(REQUEST_SECONDS)
    yield producer


def transact(kafka: BrokerUnderTest, topic: str, count: int, *, is_kept: bool) -> None:
    """Write to every partition of `topic` in a transaction that is committed, or aborted."""
    with transacting(kafka, topic, count) as producer:
        if is_kept:
            producer.commit_transaction(REQUEST_SECONDS)
        else:
            producer.abort_transaction(REQUEST_SECONDS)


def lags(attacked: Stream, topic: str) -> dict[int, float]:
    """As `/metrics` tells them, by partition."""
    name = "worker_consumer_lag_records"
    return {n: metric(attacked, f'{name}{{partition="{n}",topic="{topic}"}}') for n in range(PARTITIONS)}


def test_the_lag_of_transactional_input_is_right_while_partitions_are_paused_and_when_all_is_done(
    kafka: BrokerUnderTest, stream: StreamFactory
) -> None:
    attacked = stream(0, {"limits": {"in_flight_records": 40}})
    topic = attacked.setup.inputs[0]
    for is_kept in (True, False, True):
        transact(kafka, topic, 400, is_kept=is_kept)
    with attacked.worker(Faults(engine="hang", at=4)):
        wait_until(lambda: is_paused(attacked), 60)
        wait_until(lambda: all(lags(attacked, topic).values()), 30)
        before = lags(attacked, topic)
        for is_kept in (True, False):  # of these the paused client hears nothing
            transact(kafka, topic, 400, is_kept=is_kept)
        wait_until(lambda: all(lags(attacked, topic)[n] >= before[n] + 100 for n in range(PARTITIONS)), 30)
        seen, done = lags(attacked, topic), kafka.committed_offsets(attacked.group, topic)
        # No more than offsets there are, which markers and aborted records take too; no less than records are left.
        assert all(300 - done.get(n, 0) <= seen[n] for n in range(PARTITIONS)), (seen, done)
        assert all(seen[n] <= end_of(kafka, topic, n) - done.get(n, 0) for n in range(PARTITIONS)), (seen, done)
    with attacked.worker(Faults(engine="none")):
        found_in_time(lambda: len(kafka.read_committed(f"{topic}.predictions")) == 1200, 60)
        wait_until(lambda: not any(lags(attacked, topic).values()) and not is_paused(attacked), 60)
        done = kafka.committed_offsets(attacked.group, topic)
        # Aborted records and the markers stand behind the last position.
        assert all(end_of(kafka, topic, n) > done[n] for n in range(PARTITIONS))
        with transacting(kafka, topic, 400) as producer:
            # What nobody may read yet is no lag: behind it, one record is.
            kafka.produce(topic, [{"value": '{"text": "behind"}', "partition": 0}])
            stays(lambda: not any(lags(attacked, topic).values()), LAG_TOLD_SECONDS)
            producer.commit_transaction(REQUEST_SECONDS)
        found_in_time(lambda: len(kafka.read_committed(f"{topic}.predictions")) == 1601, 60)
        wait_until(lambda: not any(lags(attacked, topic).values()), 60)


def end_of(kafka: BrokerUnderTest, topic: str, partition: int) -> int:
    """The last stable offset."""
    with kafka._consumer("read_committed", f"ends-{topic}") as consumer:
        return int(consumer.get_watermark_offsets(KafkaPartition(topic, partition), timeout=REQUEST_SECONDS)[1])
