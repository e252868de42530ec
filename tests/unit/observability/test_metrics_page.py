from pathlib import Path

import pytest

from worker.observability.metrics import Definition, Metrics
from worker.observability.metrics_page import page, unit_of


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
