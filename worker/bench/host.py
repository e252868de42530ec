"""What the worker costs around its engine: its messages per second beside those of a bare transactional loop.

`python -m worker.bench.host [--json] [--labels 2 8]`. Both run alternately on one embedded broker, on the same records,
and publish records of the same size; the engine is the fake one.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import structlog

from worker.app import Worker, open_worker
from worker.bench.host_steps import StepCost, step_costs
from worker.bundled.demo import demo_events
from worker.clock import SystemClock
from worker.config import Config, fixed_config
from worker.kafka.bare import BareJob, copy_records
from worker.kafka.clients import consumer_settings, producer_settings
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.plain import CommittedReader, EventProducer
from worker.lifecycle import spare_the_collector
from worker.types import JsonValue, Record

INPUT, OUTPUT, COPIES = "events", "events.predictions", "events.copies"
PARTITIONS = 4
SAMPLED = 1000
"""Predictions of which the bare loop takes its values."""
LOOK_SECONDS = 0.02
"""How often it is looked whether the worker has begun and ended: the error of one measurement, twice. Each look takes
Python's lock from the worker."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How much is measured."""

    records: int = 20_000
    labels: int = 2
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class HostReport:
    """What was measured; messages per second are those of each round."""

    options: HostOptions
    input_bytes: float
    """Mean bytes of an input value."""
    output_bytes: float
    """Mean bytes of a prediction's value."""
    bare: tuple[float, ...]
    worker: tuple[float, ...]
    steps: tuple[StepCost, ...]

    @property
    def ratio(self) -> float:
        """Median of the worker's rounds to median of the bare loop's."""
        return statistics.median(self.worker) / statistics.median(self.bare)

    def as_json(self) -> dict[str, JsonValue]:
        """One JSON object."""
        return {
            **asdict(self.options),
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "bare_messages_per_second": statistics.median(self.bare),
            "worker_messages_per_second": statistics.median(self.worker),
            "ratio": self.ratio,
            "bare_rounds": [*self.bare],
            "worker_rounds": [*self.worker],
            "microseconds_per_message": {each.step: each.microseconds for each in self.steps},
        }


def tweets(count: int) -> Iterator[bytes]:
    """`count` events with short texts, no two the same: none is known from before."""
    events = (event for event in demo_events(10**9) if event.topic == "posts" and event.breaks is None)
    for number, event in enumerate(itertools.islice(events, count)):
        yield orjson.dumps({"id": f"p-{number}", "text": f"{orjson.loads(event.value or b'{}')['text']} {number}"})


def measure_host(options: HostOptions, progress: Progress = lambda _line: None) -> HostReport:
    """The worker beside the bare loop. Starts a broker of its own; blocks for a minute or so.

    Raises:
        WorkerError: there is no Java for the broker, or something does not run.
    """
    with tempfile.TemporaryDirectory() as home, EmbeddedKafka(progress=progress) as kafka:
        folder = Path(home)
        (folder / "labels.yaml").write_text(orjson.dumps(label_document(options.labels)).decode())
        kafka.create_topics(dict.fromkeys((INPUT, OUTPUT, COPIES, f"{INPUT}.dlq"), PARTITIONS))
        values = list(tweets(options.records))
        _fill(kafka.bootstrap_servers, values)

        def config(group: str) -> Config:
            return _config(kafka.bootstrap_servers, folder, group)

        _worker_rate(config("first"), options.records)  # warms the broker, and makes the values of the bare loop
        sample = _sample(kafka.bootstrap_servers)
        bare, worker = [], []
        for number in range(options.rounds):
            bare.append(_bare_rate(config(f"bare-{number}"), sample, options.records))
            worker.append(_worker_rate(config(f"worker-{number}"), options.records))
            progress(f"{options.labels} labels: bare {bare[-1]:,.0f}, worker {worker[-1]:,.0f} messages/s")
        steps = step_costs(config("steps"), INPUT, options.records)
        output_bytes = statistics.fmean(len(record.value or b"") for record in sample)
        input_bytes = statistics.fmean(map(len, values))
    return HostReport(options, input_bytes, output_bytes, tuple(bare), tuple(worker), tuple(steps))


def label_document(count: int) -> dict[str, JsonValue]:
    """A label schema of `count` labels."""
    return {"name": "kinds", "version": 1, "labels": [{"name": f"subject {number}"} for number in range(count)]}


def _config(bootstrap_servers: str, folder: Path, group: str) -> Config:
    document: Mapping[str, JsonValue] = {
        "kafka": {"bootstrap_servers": bootstrap_servers, "group_id": group},
        "engine": "fake",
        "http": {"port": 0},
        "schemas": {"directory": str(folder)},
        "topics": [{"input": INPUT, "label_schema": "kinds"}],
    }
    return fixed_config(document)


def _fill(bootstrap_servers: str, values: Sequence[bytes]) -> None:
    producer = EventProducer(bootstrap_servers)
    for number, value in enumerate(values):
        producer.send(INPUT, b"author-%d" % (number % 997), value)
    producer.flush()


def _sample(bootstrap_servers: str) -> list[Record]:
    with CommittedReader(bootstrap_servers, [OUTPUT]) as reader:
        return list(itertools.islice(reader.read_to_end(), SAMPLED))


def _bare_rate(config: Config, sample: Sequence[Record], records: int) -> float:
    consumer, producer = (
        consumer_settings(config.kafka, "bare"),
        producer_settings(config.kafka, "bare", transactional=True),
    )
    values = [record.value or b"" for record in sample]
    job = BareJob(
        {**consumer, "auto.offset.reset": "earliest"}, producer, INPUT, COPIES, values, sample[0].headers, records
    )
    return records / copy_records(job)


def _worker_rate(config: Config, records: int) -> float:
    with open_worker(config) as worker, _watching(worker, records) as seconds:
        spare_the_collector()
        worker.run(until_end=True)
    return records / seconds()


@contextmanager
def _watching(worker: Worker, records: int) -> Iterator[Callable[[], float]]:
    """How long the worker takes from the first record read to the last commit; to be asked once it has ended."""
    clock, ended = SystemClock(), threading.Event()
    consumed = worker.metrics.records_consumed.labels(topic=INPUT)
    delivered = worker.metrics.predictions_delivered.labels(topic=INPUT)
    marks: list[float] = []

    def look() -> None:
        while not ended.wait(LOOK_SECONDS) and len(marks) < 2:  # noqa: PLR2004  begun and ended
            if (consumed, delivered)[len(marks)]._value.get() >= (1, records)[len(marks)]:  # noqa: SLF001
                marks.append(clock.monotonic())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: marks[1] - marks[0]
    finally:
        ended.set()
        thread.join()


def host_table(report: HostReport) -> str:
    """The report as people read it."""
    rows = [f"  {each.step:<28}{each.microseconds:8.1f}" for each in report.steps]
    total = sum(each.microseconds for each in report.steps)
    head = (
        f"{report.options.labels} labels, {report.options.records} records of {report.input_bytes:.0f} bytes in, "
        f"{report.output_bytes:.0f} out\n"
        f"bare loop {statistics.median(report.bare):,.0f} messages/s, worker {statistics.median(report.worker):,.0f}: "
        f"{report.ratio:.0%}\nmicroseconds per message, by step:"
    )
    return "\n".join([head, *rows, f"  {'all':<28}{total:8.1f}"])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[2])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    # At the default level a worker says what it does: nothing of it belongs on stdout.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201

    options = [HostOptions(chosen.records, labels, chosen.rounds) for labels in chosen.labels]
    reports = [measure_host(each, tell) for each in options]
    if chosen.json:
        print(json.dumps([report.as_json() for report in reports]))  # noqa: T201
    else:
        print("\n\n".join(map(host_table, reports)))  # noqa: T201


if __name__ == "__main__":
    main()
