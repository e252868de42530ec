"""The worker that is measured, as its metrics tell of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from worker.bench.subject import Subject
from worker.clock import ManualClock
from worker.errors import FatalError

DELIVERED = "worker_predictions_delivered_total"


@dataclass
class Place:
    """As much of an arena as is waited in."""

    clock: ManualClock = field(default_factory=ManualClock)

    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.advance(seconds)


class Running:
    """A process that does not end."""

    def poll(self) -> None:
        """Nothing yet."""


def subject_saying(counts: Iterator[int], monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setattr(Subject, "metrics", lambda _self: {DELIVERED: float(next(counts)), "other": 7.0})
    return Subject(cast("Any", Running()), 0, Path("unused"))


def test_metrics_are_those_of_all_that_was_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_saying(iter([0, 60, 90, 120]), monkeypatch)
    assert {DELIVERED: 90.0, "other": 7.0} == subject.metrics_after(80, cast("Any", Place()))


def test_metrics_that_never_count_what_was_delivered_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter(lambda: 79, None)
    with pytest.raises(FatalError, match="79 of 80"):
        subject_saying(counts, monkeypatch).metrics_after(80, cast("Any", Place()))
