"""A stream of numbered records under attack, and the count of what a `read_committed` subscriber saw of it."""

import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from confluent_kafka import Message

from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.chaos_worker import ENVIRONMENT, Faults
from tests.support.wait import conclusive, wait_until
from tests.support.worker import NOTHING, Changes, Setup, get, set_up

PARTITIONS = 4
HEALTHY = Faults()
STEADY = Faults(pair_seconds=0.01)
"""Fifty records a second, on any machine: so that a stream lasts longer than what happens to it."""
DELIVERY = os.environ.get("FAULTS_DELIVERY", "exactly_once")
"""`at_least_once` points the attacks at the other way to deliver: it may double and reorder, but loses nothing."""
of_transactions = pytest.mark.skipif(DELIVERY == "at_least_once", reason="there are no transactions")
_OF_TRANSACTIONS = {"after_produce", "after_send_offsets", "during_commit", "after_commit", "during_abort"}
SOON: Changes = {
    "session.timeout.ms": 2000,
    "heartbeat.interval.ms": 500,
}
"""A dead member is noticed soon; the default is 45 s."""
POISON_TEXT = "poison " * 70
_KINDS = {**dict.fromkeys((7, 27, 41, 47), "bad"), **dict.fromkeys((13, 33, 35, 53), "poison")}
"""Kinds of numbers modulo 60 that are not good."""


def under(protocol: str, **kafka: object) -> dict[str, object]:
    """What to change for a group protocol; `kafka` has more of its keys."""
    # Under KIP-848 the session belongs to the broker: the client may not set it.
    return {"kafka": {"group_protocol": protocol, **kafka} | ({"librdkafka": {}} if protocol == "consumer" else {})}


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the stream. All but `results` have to be 0."""

    results: int
    lost: int
    doubled: int
    reordered: int
    misplaced: int
    """Records with a result in the wrong partition, or a dead letter that should be a prediction, or the reverse."""

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        """What was counted by these names; what is not there is 0."""
        return cls(**dict.fromkeys(("results", "lost", "doubled", "reordered", "misplaced"), 0) | dict(counts))

    @property
    def is_perfect(self) -> bool:
        """Exactly once, in order, each where it belongs."""
        return not (self.lost or self.doubled or self.reordered or self.misplaced)


def promised(tally: Tally) -> Tally:
    """`tally` without what nobody has promised: at least once may double and reorder."""
    if DELIVERY == "at_least_once":
        return replace(tally, results=tally.results - tally.doubled, doubled=0, reordered=0)
    return tally


def kind_of(number: int) -> str:
    """`bad` cannot be decoded, `poison` breaks the engine, the rest is `good`; two of four partitions have all."""
    return _KINDS.get(number % 60, "good")


def event(number: int) -> dict[str, object]:
    """The record of this number; its partition is the number modulo 4."""
    text = POISON_TEXT if kind_of(number) == "poison" else f"text {number}"
    good = json.dumps({"id": f"n-{number}", "text": text})
    value = f"broken n-{number}" if kind_of(number) == "bad" else good
    return {"value": value, "key": f"key-{number % 7}", "partition": number % PARTITIONS}


def number_of(message: Message) -> int:
    """Which record a prediction or dead letter came from.

    Where the value is gone, its headers say the position; in a stream that is fed by `feed` alone that is the number.
    """
    value = message.value()
    if value is None:
        told = dict(headers_of(message))
        partition, offset = (int(told[f"__connect.errors.{name}"] or b"") for name in ("partition", "offset"))
        return offset * PARTITIONS + partition
    identity = value.decode() if value.startswith(b"broken") else json.loads(value)["id"]
    return int(identity.rsplit("-", 1)[1])


HAS_PROC = Path("/proc/self/stat").exists()


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    """Whether SIGSTOP has reached it; only where there is /proc."""
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


class Stream:
    """Two topics of numbered records, a group that works on them, and how far it came."""

    def __init__(self, kafka: BrokerUnderTest, folder: Path, inputs: Sequence[str], changes: Changes = NOTHING) -> None:
        """The topics in `inputs` are there already."""
        self.kafka = kafka
        self.group = f"group-{inputs[0]}"
        client = {"instance_id": "pod-0", "transaction_timeout_ms": 4000, "librdkafka": dict(SOON)}
        merged = {
            "limits": {"in_flight_records": 100},
            "batching": {"latency_target_ms": 20},
            "delivery": DELIVERY,
            **changes,
            "kafka": {**client, **changes.get("kafka", {})},
        }
        self.setup: Setup = set_up(folder, kafka, inputs, merged)
        kafka.create_topics(dict.fromkeys(self.setup.outputs, PARTITIONS))
        self.count = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        if merged["kafka"].get("group_protocol") == "consumer":
            kafka.shorten_sessions(self.group)

    def feed(self, count: int, odd: Mapping[int, Mapping[str, object]] | None = None) -> None:
        """Write `count` more records to each topic; `odd` says what else some of them are, by their numbers."""
        for topic in self.setup.inputs:
            numbers = range(self.count, self.count + count)
            self.kafka.produce(topic, [{**event(number), **(odd or {}).get(number, {})} for number in numbers])
        self.count += count

    @property
    def total(self) -> int:
        """Records that were fed, of all topics."""
        return self.count * len(self.setup.inputs)

    def await_members(self, count: int, seconds: float = 90.0) -> None:
        """Until so many members of the group have partitions, and records are still to be done."""
        wait_until(lambda: self.kafka.members(self.group) == count, seconds, f"a group of {count}", 0.5)
        conclusive(self.position() < self.total, "the stream is too short: the rebalance met nothing in flight")

    def position(self) -> int:
        """Records of both topics that the group has committed; waits for open transactions."""
        return sum(sum(self.kafka.committed_offsets(self.group, topic).values()) for topic in self.setup.inputs)

    def lag(self) -> float:
        """Records of both topics that are not yet delivered, as the worker tells it."""
        lines = get(self.setup, "/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("worker_consumer_lag_records{"))

    def await_progress(self, records: int, seconds: float = 60.0) -> float:
        """Until so many more are committed; how many seconds that took.

        InconclusiveError where there are not so many more: then the fault before it may have hit an idle worker.
        """
        started = time.monotonic()
        start = self.position()
        goal = start + records
        conclusive(goal <= self.total, f"the stream is too short: {start} of {self.total} were done")

        def reached() -> bool:
            over = bool(self._processes) and None not in {process.poll() for process in self._processes}
            if self.position() >= goal:
                return True
            assert not over, f"every worker ended before position {goal}"
            return False

        wait_until(reached, seconds, f"progress from {start} to {goal}")
        return time.monotonic() - started

    def await_end(self, seconds: float = 60.0) -> float:
        """Until all that was fed is committed; how many seconds that took."""
        started = time.monotonic()
        wait_until(lambda: self.position() >= self.total, seconds, "the end of the stream")
        return time.monotonic() - started

    def run_to_end(self, seconds: float = 90.0, environment: Mapping[str, str] | None = None) -> float:
        """A healthy worker up to the end; how many seconds its first commit took.

        One is enough also where a dead member still holds partitions: it waits for them.
        """
        started = time.monotonic()
        with self.worker(HEALTHY, "--until-end", environment=environment) as process:
            if self.position() < self.total:  # waits for a transaction that the dead one has left open
                self.await_progress(1)
            recovery_seconds = time.monotonic() - started
            assert 0 == process.wait(seconds)
        assert self.position() >= self.total
        return recovery_seconds

    @contextmanager
    def worker(
        self, faults: Faults = HEALTHY, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`worker run` with `faults` in a process of its own; killed at the end if it still runs."""
        if DELIVERY == "at_least_once" and faults.phase in _OF_TRANSACTIONS:
            pytest.skip("without transactions this phase never comes")
        command = [sys.executable, "-m", "tests.support.chaos_worker", "run", "-c", str(self.setup.path), *arguments]
        more = {ENVIRONMENT: json.dumps(asdict(faults)), "PYTHONFAULTHANDLER": "1", **(environment or {})}
        with self.setup.path.with_suffix(".log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **more})
            self._processes.append(process)
            try:
                yield process
            except BaseException:
                # pytest shows both beside the failure.
                print(self.log()[-20_000:])  # noqa: T201
                if self.kafka.embedded is not None:
                    print(*self.kafka.embedded.log_tail(80), sep="\n")  # noqa: T201
                raise
            finally:
                process.kill()
                process.wait()

    def log(self) -> str:
        """All that its workers logged; empty before the first one."""
        file = self.setup.path.with_suffix(".log")
        return file.read_text() if file.exists() else ""

    def tally(self) -> Tally:
        """Compare what was fed with what a subscriber sees, topic by topic."""
        total: Counter[str] = Counter()
        for topic in self.setup.inputs:
            seen = self.kafka.read_committed(f"{topic}.predictions", f"{topic}.dlq")
            total += self.tally_topic(topic, seen)
        return Tally.of(total)

    def tally_topic(self, topic: str, seen: Sequence[Message], count: int | None = None) -> Counter[str]:
        """The same for one topic, of which `seen` came; `count` where it was fed another number than the others."""
        times = Counter(number_of(message) for message in seen)
        lanes: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        misplaced = set()
        for message in seen:
            number, place = number_of(message), (str(message.topic()), int(message.partition() or 0))
            lanes[place].append(number)
            suffix = ".predictions" if kind_of(number) == "good" else ".dlq"
            if place != (f"{topic}{suffix}", number % PARTITIONS):
                misplaced.add(number)
        for number in sorted(number for number, count in times.items() if count > 1)[:20]:
            places = [(m.topic(), m.partition(), m.offset()) for m in seen if number_of(m) == number]
            print(f"{topic}: {number} is at {places}")  # noqa: T201  pytest shows it beside the failure
        back = sum(later < earlier for lane in lanes.values() for earlier, later in pairwise(lane))
        return Counter(
            results=len(seen),
            lost=len(set(range(self.count if count is None else count)) - times.keys()),
            doubled=sum(count - 1 for count in times.values()),
            reordered=back,
            misplaced=len(misplaced),
        )


def metric(attacked: Stream, line: str) -> float:
    """The value of one line of `/metrics`; 0 while it is not there."""
    body = get(attacked.setup, "/metrics")[1].decode()
    found = [each.rsplit(" ", 1)[1] for each in body.splitlines() if each.startswith(line)]
    return float(found[0]) if found else 0.0


def events(attacked: Stream, name: str) -> list[dict[str, Any]]:
    """What its workers logged under this name, in order."""
    lines = [line for line in attacked.log().splitlines() if f'"{name}"' in line]
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be under way


def moment(event: Mapping[str, Any]) -> float:
    """When it was logged, in seconds."""
    return datetime.fromisoformat(event["time"]).timestamp()
