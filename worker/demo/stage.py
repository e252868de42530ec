"""What a demo runs on: a broker with its topics, a folder of label schemas, a configuration."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from worker.config import Config, fixed_config
from worker.demo.tally import DEAD_LETTER_SUFFIX, PREDICTION_SUFFIX
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_jars import KAFKA_VERSION, BrokerUnavailableError
from worker.kafka.mock import MockKafka

BrokerName = Literal["kafka", "mock"]
Say = Callable[[str], None]

CHANGED_SCHEMA = "support-intent"
CHANGED_FILE = "support-intent.v2.yaml"
_FIRST_FILES = ("support-intent.yaml", "post-tags.yaml")
_INPUTS = {"support": CHANGED_SCHEMA, "posts": "post-tags"}
"""Input topic -> its label schema."""
_PARTITIONS = 4
_DRAIN_SECONDS = 10.0
OUTPUTS = tuple(f"{topic}{suffix}" for topic in _INPUTS for suffix in (PREDICTION_SUFFIX, DEAD_LETTER_SUFFIX))


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that is ready, with every topic of the demo."""

    name: BrokerName
    title: str
    """For people."""
    bootstrap_servers: str
    delivery: Literal["exactly_once", "at_least_once"]
    """The best that it can do."""


@contextmanager
def open_broker(wanted: BrokerName, say: Say, warn: Say) -> Iterator[Broker]:
    """The broker that is wanted, or the mock one where that cannot be had: then `warn` is told so in one line.

    Raises:
        BrokerUnavailableError: there is none at all.
    """
    with ExitStack() as stack:
        yield _real(stack, say, warn) if wanted == "kafka" else _mock(stack)


def _real(stack: ExitStack, say: Say, warn: Say) -> Broker:
    say(f"starting Apache Kafka {KAFKA_VERSION}")
    kafka = EmbeddedKafka(progress=say)
    stack.callback(kafka.close)
    try:
        kafka.start()
        kafka.create_topics(_topics())
    except BrokerUnavailableError as error:
        reason = " ".join(str(error).split())
        warn(f"no real Kafka: {reason}; going on with librdkafka's mock cluster, at least once")
        return _mock(stack)
    return Broker("kafka", f"Apache Kafka {KAFKA_VERSION}", kafka.bootstrap_servers, "exactly_once")


def _mock(stack: ExitStack) -> Broker:
    mock = stack.enter_context(MockKafka())
    mock.create_topics(_topics())
    return Broker("mock", "librdkafka's mock cluster", mock.bootstrap_servers, "at_least_once")


def _topics() -> dict[str, int]:
    return dict.fromkeys((*_INPUTS, *OUTPUTS), _PARTITIONS)


class LabelFolder:
    """A folder of label schemas that can be changed while a worker follows it."""

    def __init__(self, home: Path) -> None:
        """`home` is an empty folder."""
        self.path = home / "label-schemas"
        self._outside = home / "incoming"
        self.path.mkdir()
        self._outside.mkdir()
        for name in _FIRST_FILES:
            self.put(name)

    def put(self, name: str) -> None:
        """Add one of the shipped label schemas. Whoever looks sees the whole file or none."""
        document = resources.files("worker.bundled").joinpath("schemas", name).read_bytes()
        incoming = self._outside / name
        incoming.write_bytes(document)
        incoming.rename(self.path / name)


@contextmanager
def label_folder() -> Iterator[LabelFolder]:
    """A folder of label schemas that goes when the demo ends."""
    with tempfile.TemporaryDirectory(prefix="worker-demo-", ignore_cleanup_errors=True) as home:
        yield LabelFolder(Path(home))


def demo_config(broker: Broker, folder: Path, engine: str) -> Config:
    """What a `worker.yaml` for the demo would say.

    Raises:
        ConfigError: the bundled model does not run on `engine`.
    """
    return fixed_config(
        {
            "kafka": {"bootstrap_servers": broker.bootstrap_servers, "group_id": "demo"},
            "delivery": broker.delivery,
            "engine": engine,
            "schemas": {"directory": str(folder)},
            "http": {"port": 0},
            "drain_seconds": _DRAIN_SECONDS,
            "topics": [{"input": topic, "label_schema": schema} for topic, schema in _INPUTS.items()],
        }
    )
