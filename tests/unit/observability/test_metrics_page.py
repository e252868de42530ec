import re
import sys
from pathlib import Path

import pytest

from worker.fleet import Report, merged_metrics
from worker.observability.metrics import Definition, Metrics
from worker.observability.metrics_page import page, unit_of

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the client tells of the process on Linux only")


def test_the_page_on_metrics_says_what_the_code_says() -> None:
    assert page() == Path("docs/metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", Metrics().definitions, ids=lambda metric: metric.name)
def test_every_metric_has_a_unit_a_meaning_and_something_to_look_at(metric: Definition) -> None:
    row = next(line for line in page().splitlines() if line.startswith(f"| `{metric.name}` |"))
    _, _, kind, labels, unit, meaning, look, _ = (cell.strip() for cell in row.split("|"))
    assert unit_of(metric.name) == unit
    assert metric.kind == kind
    assert list(metric.labels) == [label.strip("` ") for label in labels.split(",") if label]
    assert meaning.endswith(".")
    assert look.endswith(".")


@on_linux
def test_the_port_of_several_processes_shows_what_is_on_the_page_and_nothing_else() -> None:
    shown = merged_metrics({"worker-1": Report((), Metrics().render().decode())}, restarts=0).decode()
    listed = set(re.findall(r"`((?:worker|process)_[a-z_]+)`", page()))
    assert listed == set(re.findall(r"^# TYPE (\S+)", shown, re.MULTILINE))


@on_linux
def test_the_port_of_one_process_shows_the_same_but_for_the_restarts() -> None:
    shown = set(re.findall(r"^# TYPE (\S+)", Metrics().render().decode(), re.MULTILINE))
    assert {*shown, "worker_process_restarts_total"} == set(re.findall(r"`((?:worker|process)_[a-z_]+)`", page()))
