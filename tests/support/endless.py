"""A stream without an end: fed and counted while it runs, so that hours of it fit into memory."""

import contextlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from tests.support.chaos import PARTITIONS, Tally, event, kind_of, number_of
from tests.support.wait import wait_until

AHEAD = 20_000
"""Records of each topic that may wait for the worker: always some, never more than memory holds."""
_BLOCK = 500


@dataclass(slots=True)
class Lane:
    """What was seen of one input topic."""

    times: bytearray = field(default_factory=bytearray)
    """How often each number was seen."""
    seen: int = 0
    distinct: int = 0
    reordered: int = 0
    misplaced: int = 0
    last: dict[tuple[str, int], int] = field(default_factory=dict)

    def see(self, topic: str, message: Message) -> None:
        """Count a prediction or dead letter of `topic`."""
        number, place = number_of(message), (str(message.topic()), int(message.partition() or 0))
        if number >= len(self.times):
            self.times.extend(bytes(number + 1 - len(self.times)))
        self.distinct += self.times[number] == 0
        self.times[number] = min(255, self.times[number] + 1)
        self.seen += 1
        self.reordered += self.last.get(place, -1) > number
        self.last[place] = number
        suffix = ".predictions" if kind_of(number) == "good" else ".dlq"
        self.misplaced += place != (f"{topic}{suffix}", number % PARTITIONS)


class Silences:
    """How long each input partition showed no result. Noted by one thread, asked by another."""

    def __init__(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._since = time.monotonic()
        self._seen = dict.fromkeys(partitions, self._since)
        self._longest = 0.0

    def note(self, partition: tuple[str, int]) -> None:
        """There is a result of this one."""
        now = time.monotonic()
        self._longest = max(self._longest, now - max(self._since, self._seen[partition]))
        self._seen[partition] = now

    def restart(self) -> None:
        """Count from now on."""
        self._since, self._longest = time.monotonic(), 0.0

    def are_over(self, since: float) -> bool:
        """Whether every partition showed a result after this moment."""
        return min(self._seen.values()) > since

    def longest(self) -> float:
        """Seconds that any partition stood still since the last restart, of silences that are over."""
        return self._longest


class EndlessStream:
    """Feeds topics and counts what a `read_committed` subscriber sees of them, each on a thread."""

    def __init__(self, kafka: BrokerUnderTest, inputs: Sequence[str]) -> None:
        self._kafka = kafka
        self._lanes = {topic: Lane() for topic in inputs}
        self._outputs = {f"{topic}{suffix}": topic for topic in inputs for suffix in (".predictions", ".dlq")}
        self._reached: dict[tuple[str, int], int] = {}
        self.silences = Silences((topic, number) for topic in inputs for number in range(PARTITIONS))
        self.fed = 0
        self._stop_feeding, self._stop = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._feed, self._count)]

    @property
    def seen(self) -> int:
        """Results so far, of all topics."""
        return sum(lane.seen for lane in self._lanes.values())

    def is_past(self, seen: int) -> bool:
        """Whether more than `seen` results came; raises what ended the feeding or the counting."""
        if self.failure is not None:
            raise self.failure
        return self.seen > seen

    def finish(self, seconds: float) -> None:
        """Feed no more, and wait until all has come; what has not by then is lost: the tally says so."""
        self._stop_feeding.set()
        self._threads[0].join(REQUEST_SECONDS)
        total = self.fed * len(self._lanes)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.failure is not None or self._came() >= total, seconds)

    def read_to_end(self, seconds: float) -> None:
        """Until all is counted that there is: once nobody writes any more."""
        ends = {}
        with self._kafka._consumer("read_committed", "endless-ends") as consumer:
            for topic, number in [(topic, number) for topic in self._outputs for number in range(PARTITIONS)]:
                partition = TopicPartition(topic, number)
                ends[topic, number] = consumer.get_watermark_offsets(partition, timeout=REQUEST_SECONDS)[1]

        def is_read() -> bool:
            return self.failure is not None or all(self._reached.get(p, 0) >= end for p, end in ends.items())

        wait_until(is_read, seconds, "the end of the outputs")

    def tally(self) -> Tally:
        """What became of the stream so far."""
        lanes = self._lanes.values()
        return Tally(
            results=self.seen,
            lost=sum(self.fed - lane.distinct for lane in lanes),
            doubled=sum(sum(times - 1 for times in lane.times if times > 1) for lane in lanes),
            reordered=sum(lane.reordered for lane in lanes),
            misplaced=sum(lane.misplaced for lane in lanes),
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Fed and counted inside the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop_feeding.set()
            self._stop.set()
            for thread in self._threads:
                thread.join(REQUEST_SECONDS)

    def _came(self) -> int:
        return sum(lane.distinct for lane in self._lanes.values())

    def _guard(self, work: object) -> None:
        try:
            assert callable(work)
            work()
        except BaseException as error:  # noqa: BLE001  raised by whoever looks at `failure`
            self.failure = error

    def _feed(self) -> None:
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": self._kafka.bootstrap_servers,
            "enable.idempotence": True,
            "message.timeout.ms": 300_000,
            "linger.ms": 20,
            "log_level": 0,
        }
        producer, failed = Producer(settings), list[object]()
        while not self._stop_feeding.is_set():
            if self.fed * len(self._lanes) - self.seen > AHEAD * len(self._lanes):
                self._stop_feeding.wait(0.05)
                continue
            for number in range(self.fed, self.fed + _BLOCK):
                for topic in self._lanes:
                    record = event(number)
                    on_delivery = lambda error, _: failed.append(error) if error else None  # noqa: E731
                    producer.produce(topic, on_delivery=on_delivery, **record)  # type: ignore[arg-type]
            self.fed += _BLOCK
            producer.flush(300)
            assert [] == failed

    def _count(self) -> None:
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": self._kafka.bootstrap_servers,
            "group.id": "endless",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "log_level": 0,
        }
        consumer = Consumer(settings)
        consumer.assign([TopicPartition(t, n, OFFSET_BEGINNING) for t in self._outputs for n in range(PARTITIONS)])
        while not self._stop.is_set():
            for message in consumer.consume(1000, 0.2):
                error, topic = message.error(), self._outputs.get(str(message.topic()))
                if error is None and topic is not None:
                    self._lanes[topic].see(topic, message)
                    self.silences.note((topic, number_of(message) % PARTITIONS))
                elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                    self._reached[str(message.topic()), int(message.partition() or 0)] = int(message.offset() or 0)
        consumer.close()


@dataclass(frozen=True, slots=True)
class Vital:
    """What a process held at one moment."""

    second: float
    rss_megabytes: float
    handles: int
    threads: int
    records: int


class Vitals:
    """Looks at a process now and then, from /proc."""

    def __init__(self, process: int, file: Path, stream: EndlessStream) -> None:
        self._home = Path(f"/proc/{process}")
        self._file = file
        self._stream = stream
        self._started = time.monotonic()
        self.samples: list[Vital] = []
        file.write_text("second,rss_megabytes,handles,threads,records\n")

    def look(self) -> None:
        """One sample, also written to the file."""
        pages = int((self._home / "statm").read_text().split()[1])
        second = time.monotonic() - self._started
        megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1024**2
        handles, threads = len(list((self._home / "fd").iterdir())), len(list((self._home / "task").iterdir()))
        self.samples.append(Vital(second, megabytes, handles, threads, self._stream.seen))
        with self._file.open("a") as lines:
            lines.write(f"{second:.0f},{megabytes:.1f},{handles},{threads},{self._stream.seen}\n")

    def thirds(self, name: str, warm_up_seconds: float) -> tuple[float, float]:
        """The median of the first and of the last third of what came after the warm-up."""
        values = [float(getattr(each, name)) for each in self.samples if each.second >= warm_up_seconds]
        third = max(1, len(values) // 3)
        return median(values[:third]), median(values[-third:])
