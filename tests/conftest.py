"""What every test may ask for: a real broker, topics of its own, and a log in which no error goes unexpected."""

import os
import uuid
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from hypothesis import settings
from structlog.testing import LogCapture

from tests.support import fault_table
from tests.support.broker import REQUEST_SECONDS, BrokerUnderTest
from worker.kafka import embedded_storage
from worker.kafka.embedded import EmbeddedKafka
from worker.kafka.embedded_jars import BrokerUnavailableError

# Without a deadline for one example: a busy machine is no broken promise.
settings.register_profile("worker", deadline=None)
settings.load_profile("worker")


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist ports of its own: a broker that is down keeps its port to itself."""
    count, number = os.environ.get("PYTEST_XDIST_WORKER_COUNT"), os.environ.get("PYTEST_XDIST_WORKER")
    if count and number:
        embedded_storage._PORT_RANGE = embedded_storage._PORT_RANGE[int(number.removeprefix("gw")) :: int(count)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Have the process that prints tell what came of the attacks."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        fault_table.tell(terminalreporter)


LogEvents = list[MutableMapping[str, Any]]
TopicsFactory = Callable[..., list[str]]

_unavailable: list[str] = []
"""Why there is no broker, once that is known: every further test is skipped at once."""


@pytest.fixture(scope="session")
def _session_kafka() -> Iterator[BrokerUnderTest | None]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        broker = BrokerUnderTest(named, "")
        broker.cluster_id = str(broker.admin().list_topics(timeout=REQUEST_SECONDS).cluster_id)
        yield broker
        return
    embedded = EmbeddedKafka()
    try:
        embedded.start()
    except BrokerUnavailableError as error:
        embedded.close()
        _unavailable.append(str(error))
        yield None
        return
    with embedded:
        broker = BrokerUnderTest(embedded.bootstrap_servers, embedded.cluster_id, embedded)
        assert broker.cluster_id == broker.admin().list_topics(timeout=REQUEST_SECONDS).cluster_id
        yield broker


@pytest.fixture
def kafka(_session_kafka: BrokerUnderTest | None) -> BrokerUnderTest:
    """The session's broker: a failure in CI where there is none, a skip at home."""
    if _session_kafka is None:
        reason = f"no Kafka broker: {_unavailable[0]}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return _session_kafka


@pytest.fixture
def topics(kafka: BrokerUnderTest) -> TopicsFactory:
    """Creates topics that no other test has: `topics("in", "out", partitions=4)` gives their names."""

    def create(*stems: str, partitions: int = 4, config: dict[str, str] | None = None) -> list[str]:
        names = [f"{stem}-{uuid.uuid4().hex[:12]}" for stem in stems]
        kafka.create_topics(dict.fromkeys(names, partitions), config)
        return names

    return create


@pytest.fixture
def log_events() -> LogEvents:
    """What was logged during the test, in order."""
    return []


@pytest.fixture
def expected_errors() -> set[str]:
    """Add the events that the test provokes at level error or above; any other one fails it."""
    return set()


@pytest.fixture(autouse=True)
def _no_unexpected_errors(log_events: LogEvents, expected_errors: set[str]) -> Iterator[None]:
    """An error in the log means that a person must look: so does the test."""
    before = structlog.get_config()
    capture = LogCapture()
    capture.entries = log_events
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    yield
    structlog.configure(**before)
    errors = [event for event in log_events if event.get("log_level") in {"error", "exception", "critical"}]
    assert [] == [event for event in errors if event["event"] not in expected_errors]
