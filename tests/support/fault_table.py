"""The table of what came of all attacks.

What a test notes travels with its report: the tests may run in several processes, and one prints the table.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.chaos import Tally

ROW: Final = "fault"
MEASURED: Final = "measured"
"""The properties of a report that hold a row of the table, and a sentence to be printed below it."""


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one attack."""

    phase: str
    fault: str
    tally: Tally
    recovery_seconds: float | None


def tell(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table; with FAULTS_TABLE also write it to that file, as Markdown."""
    reports = [each for kind in terminalreporter.stats.values() for each in kind if isinstance(each, pytest.TestReport)]
    if (file := os.environ.get("FAULTS_ROWS")) is not None and Path(file).exists():
        found: Iterable[Any] = map(json.loads, Path(file).read_text().splitlines())
    else:
        found = _told(reports, ROW)
    rows = [Row(**{**each, "tally": Tally(**each["tally"])}) for each in found]
    if not rows:
        return
    lines = list(_table(rows))
    terminalreporter.section("faults")
    seconds = sum(each.duration for each in reports if each.nodeid.startswith("tests/fault/"))
    terminalreporter.write_line(f"tests/fault took {seconds / 60:.1f} minutes, one test after the other")
    for line in (*lines, *_told(reports, MEASURED)):
        terminalreporter.write_line(line)
    if (file := os.environ.get("FAULTS_TABLE")) is not None:
        Path(file).write_text("\n".join(lines) + "\n")


def _told(reports: Iterable[pytest.TestReport], kind: str) -> list[Any]:
    """What tests have noted, of those that ran to their verdict; a trial that was made again noted nothing of worth."""
    calls = [each for each in reports if each.when == "call" and each.outcome in {"passed", "failed"}]
    return [value for each in calls for name, value in each.user_properties if name == kind]


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| fault | phase | runs | results | lost | doubled | reordered | misplaced | recovery, s |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for fault, phase in dict.fromkeys((row.fault, row.phase) for row in rows):
        chosen = [row for row in rows if (row.fault, row.phase) == (fault, phase)]
        waits = [row.recovery_seconds for row in chosen if row.recovery_seconds is not None]
        names = ("results", "lost", "doubled", "reordered", "misplaced")
        counts = " | ".join(str(sum(getattr(row.tally, name) for row in chosen)) for name in names)
        recovery = f"{min(waits):.1f} to {max(waits):.1f}" if len(waits) > 1 else f"{waits[0]:.1f}" if waits else ""
        yield f"| {fault} | {phase.replace('_', ' ')} | {len(chosen)} | {counts} | {recovery} |"
