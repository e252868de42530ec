"""What all attacks share: a stream to attack, and the table of what came of it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.chaos import Stream, Tally
from tests.support.worker import NOTHING, Changes

StreamFactory = Callable[..., Stream]
Verdict = Callable[..., Tally]

_rows: list[tuple[str, Tally, float | None]] = []


@pytest.fixture
def stream(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> StreamFactory:
    """Makes a stream over two topics of four partitions: `stream(300)` with 300 records in each."""

    def make(count: int, changes: Changes = NOTHING) -> Stream:
        made = Stream(kafka, tmp_path, topics("a", "b"), changes)
        made.feed(count)
        return made

    return make


@pytest.fixture
def verdict() -> Verdict:
    """Counts what became of a stream and notes it for the table."""

    def judge(attacked: Stream, fault: str, recovery_seconds: float | None = None) -> Tally:
        tally = attacked.tally()
        _rows.append((fault, tally, recovery_seconds))
        return tally

    return judge


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; with FAULTS_TABLE also write it to that file, as Markdown."""
    if not _rows:
        return
    lines = list(_table())
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    if (file := os.environ.get("FAULTS_TABLE")) is not None:
        Path(file).write_text("\n".join(lines) + "\n")


def _table() -> Iterator[str]:
    yield "| fault | runs | results | lost | doubled | reordered | misplaced | recovery, s |"
    yield "|---|---|---|---|---|---|---|---|"
    for fault in dict.fromkeys(name for name, _, _ in _rows):
        tallies = [tally for name, tally, _ in _rows if name == fault]
        waits = [seconds for name, _, seconds in _rows if name == fault and seconds is not None]
        counts = [sum(getattr(t, c) for t in tallies) for c in ("results", "lost", "doubled", "reordered", "misplaced")]
        recovery = f"{min(waits):.1f} to {max(waits):.1f}" if len(waits) > 1 else f"{waits[0]:.1f}" if waits else ""
        yield f"| {fault} | {len(tallies)} | {' | '.join(str(c) for c in counts)} | {recovery} |"
