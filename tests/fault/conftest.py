"""What all attacks share: a stream to attack, and notes for the table (`tests/support/fault_table.py`)."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import DELIVERY, Stream, Tally, promised
from tests.support.fault_table import MEASURED, ROW, Row
from tests.support.worker import NOTHING, Changes

StreamFactory = Callable[..., Stream]
Verdict = Callable[..., Tally]
Noted = Callable[[str, Tally, float | None], None]
Measured = Callable[[str], None]


@pytest.fixture
def stream(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> StreamFactory:
    """Makes a stream over two topics of four partitions: `stream(300)` with 300 records in each."""

    def make(count: int, changes: Changes = NOTHING) -> Stream:
        made = Stream(kafka, tmp_path, topics("a", "b"), changes)
        made.feed(count)
        return made

    return make


@pytest.fixture
def verdict(noted_row: Callable[[Row], None]) -> Verdict:
    """Counts what became of a stream and notes it for the table."""

    def judge(attacked: Stream, fault: str, recovery_seconds: float | None = None, *, phase: str = "") -> Tally:
        tally = attacked.tally()
        noted_row(Row(phase, _named(fault), tally, recovery_seconds))
        return promised(tally)

    return judge


@pytest.fixture
def noted(noted_row: Callable[[Row], None]) -> Noted:
    """Notes for the table what came of an attack that counts by itself."""
    return lambda fault, tally, seconds: noted_row(Row("", _named(fault), tally, seconds))


@pytest.fixture
def noted_row(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Has a row in the table; with FAULTS_ROWS also in that file, so that several runs make one table."""

    def note(row: Row) -> None:
        request.node.user_properties.append((ROW, asdict(row)))
        if (file := os.environ.get("FAULTS_ROWS")) is not None:
            with Path(file).open("a") as lines:
                lines.write(json.dumps(asdict(row)) + "\n")

    return note


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Tells a measurement below the table, whether the test holds or not."""
    return lambda text: request.node.user_properties.append((MEASURED, text))


def _named(fault: str) -> str:
    return fault if DELIVERY == "exactly_once" or fault.startswith(DELIVERY) else f"{DELIVERY}: {fault}"
