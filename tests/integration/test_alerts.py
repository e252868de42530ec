"""Every alert as Prometheus' own tool evaluates it: when it fires and what it says, and when it does not."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "worker-rules.yml"

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")

Series = Mapping[str, str]
"""Series -> its values, one a minute, as promtool writes them: `0+2x120` is 0, 2, 4 and so on up to 240."""

A = 'instance="a"'
STUCK = {
    f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "5x120",
    f"worker_pairs_scored_total{{{A}}}": "100x120",
    f"worker_pairs_cached_total{{{A}}}": "7x120",
}
"""A worker with lag, and nothing that moves."""
SECOND_PROCESS_STUCK = {
    f'worker_consumer_lag_records{{{A},process="worker-1",topic="in",partition="0"}}': "5x120",
    f'worker_consumer_lag_records{{{A},process="worker-2",topic="in",partition="1"}}': "5x120",
    f'worker_pairs_scored_total{{{A},process="worker-1"}}': "0+9x120",
    f'worker_pairs_scored_total{{{A},process="worker-2"}}': "9x120",
}
SECOND_PROCESS_IDLE = {
    series: values for series, values in SECOND_PROCESS_STUCK.items() if 'partition="1"' not in series
}
DRIFT = 'worker_label_drift_psi{name="kinds",version="3",instance="a"}'
REFUSALS = 'worker_label_schema_refusals_total{name="kinds",instance="a"}'
OF_KINDS = {"name": "kinds", "instance": "a"}
REFUSED = "A version of the label schema kinds was refused; the last good one holds."


@dataclass(frozen=True, slots=True)
class Fires:
    """An alert that is due."""

    alert: str
    series: Series
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    at: str = "2h"
    not_yet: str = "1m"


DUE = [
    Fires(
        "WorkerDown",
        {f'up{{job="worker",{A}}}': "1x60 0x60"},
        "a does not answer.",
        {"job": "worker", "instance": "a"},
        "64m",
        "62m",
    ),
    Fires("WorkerStalled", STUCK, "a has lag and gets nothing done.", {"instance": "a"}, "12m", "4m"),
    Fires(
        "WorkerStalled",
        SECOND_PROCESS_STUCK,
        "a (worker-2) has lag and gets nothing done.",
        {"instance": "a", "process": "worker-2"},
    ),
    Fires(
        "WorkerLagGrows",
        {f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "0+200x120"},
        "24k records wait, and more every minute.",
        not_yet="60m",
    ),
    Fires(
        "WorkerDrainsSlowly",
        {f"worker_drain_seconds{{{A}}}": "901x120"},
        "What waits takes 15m 1s to deliver.",
        not_yet="14m",
    ),
    Fires(
        "WorkerDrainsSlowly",
        {f"worker_drain_seconds{{{A}}}": " ".join(["+Inf"] * 121)},
        "What waits takes +Inf to deliver.",
        not_yet="14m",
    ),
    Fires(
        "WorkerDeadLetters",
        {
            f'worker_records_consumed_total{{{A},topic="in"}}': "0+100x120",
            f'worker_dead_letters_total{{{A},topic="in",reason="json_invalid"}}': "0+10x120",
        },
        "10% of in cannot be predicted.",
        {"topic": "in"},
    ),
    Fires(
        "WorkerTransactionsFail",
        {f'worker_transactions_total{{{A},outcome="aborted"}}': "0+60x120"},
        "a aborts 1 transactions a second.",
        {"instance": "a"},
    ),
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "0x60 1x60"}, REFUSED, OF_KINDS, "62m", "60m"),
    # Refused before the first scrape: at the start, or under a name that nobody knew.
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "_x60 1x60"}, REFUSED, OF_KINDS, "61m", "59m"),
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "3x60 1x60"}, REFUSED, OF_KINDS, "62m", "60m"),
    Fires(
        "WorkerLabelSchemasDiffer",
        {
            'worker_label_schema_info{name="kinds",version="1",instance="a"}': "1x120",
            'worker_label_schema_info{name="kinds",version="2",instance="b"}': "1x120",
        },
        "Workers use different versions of the label schema kinds.",
        {"name": "kinds"},
        "11m",
        "9m",
    ),
    Fires(
        "WorkerLabelDrift",
        {DRIFT: "0.3x120"},
        "kinds@3 meets other messages than at first (0.30).",
        {"name": "kinds", "version": "3"},
        not_yet="59m",
    ),
    # Once is enough: the counter stands at 0 before.
    Fires(
        "WorkerEngineFails",
        {f'worker_engine_failures_total{{{A},kind="broken"}}': "0x60 1x60"},
        "The engine of a: broken.",
        {"instance": "a", "kind": "broken"},
        "67m",
        "60m",
    ),
]

QUIET: list[tuple[str, Series]] = [
    ("WorkerDown", {f'up{{job="worker",{A}}}': "1x60 0x0 1x60"}),
    ("WorkerDown", {f'up{{job="another",{A}}}': "0x120"}),
    ("WorkerStalled", SECOND_PROCESS_IDLE),
    ("WorkerStalled", {**STUCK, f"worker_pairs_scored_total{{{A}}}": "0+1x120"}),
    ("WorkerStalled", {**STUCK, f"worker_pairs_cached_total{{{A}}}": "0+1x120"}),
    ("WorkerStalled", {**STUCK, f'worker_dead_letters_total{{{A},topic="in",reason="json_invalid"}}': "0+1x120"}),
    ("WorkerStalled", dict.fromkeys(STUCK, "0x120")),
    ("WorkerLagGrows", {f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "20000x120"}),
    ("WorkerLagGrows", {f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "0+10x120"}),
    ("WorkerDrainsSlowly", {f"worker_drain_seconds{{{A}}}": "900x120"}),
    (
        "WorkerDeadLetters",
        {
            f'worker_records_consumed_total{{{A},topic="in"}}': "0+100x120",
            f'worker_dead_letters_total{{{A},topic="in",reason="json_invalid"}}': "0+4x120",
        },
    ),
    (
        "WorkerTransactionsFail",
        {
            f'worker_transactions_total{{{A},outcome="aborted"}}': "0+1x120",
            f'worker_transactions_total{{{A},outcome="committed"}}': "0+600x120",
        },
    ),
    ("WorkerLabelSchemaRefused", {REFUSALS: "0x120"}),
    ("WorkerLabelSchemaRefused", {REFUSALS: "0x10 1x120"}),  # half an hour ago
    (
        "WorkerLabelSchemasDiffer",
        {
            'worker_label_schema_info{name="kinds",version="1",instance="a"}': "1x58 _x60",
            'worker_label_schema_info{name="kinds",version="2",instance="a"}': "_x58 1x60",
            'worker_label_schema_info{name="kinds",version="1",instance="b"}': "1x60 _x60",
            'worker_label_schema_info{name="kinds",version="2",instance="b"}': "_x60 1x60",
        },
    ),
    ("WorkerLabelDrift", {DRIFT: "0.25x120"}),
    ("WorkerEngineFails", {f'worker_engine_failures_total{{{A},kind="failed"}}': "0+1x120"}),
    ("WorkerEngineFails", {f'worker_engine_failures_total{{{A},kind="broken"}}': "0x120"}),
]


def rules() -> dict[str, Any]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def assert_promtool_agrees(folder: Path, series: Series, asked: list[dict[str, Any]]) -> None:
    given = [{"series": name, "values": values} for name, values in series.items()]
    case = {"interval": "1m", "input_series": given, "alert_rule_test": asked}
    file = folder / "alerts.json"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [case]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_promtool_accepts_the_alerts() -> None:
    subprocess.run(["promtool", "check", "rules", str(RULES)], check=True, capture_output=True)


def test_every_alert_is_seen_to_fire_and_seen_not_to() -> None:
    assert set(rules()) == {due.alert for due in DUE}
    assert set(rules()) == {alert for alert, _ in QUIET}


@pytest.mark.parametrize("due", DUE, ids=lambda due: due.alert)
def test_an_alert_fires_when_it_is_due_and_not_before(tmp_path: Path, due: Fires) -> None:
    rule = rules()[due.alert]
    told = {
        "exp_labels": {**rule["labels"], **due.labels},
        "exp_annotations": {**rule["annotations"], "summary": due.summary},
    }
    asked: list[dict[str, Any]] = [
        {"eval_time": due.not_yet, "alertname": due.alert, "exp_alerts": []},
        {"eval_time": due.at, "alertname": due.alert, "exp_alerts": [told]},
    ]
    assert_promtool_agrees(tmp_path, due.series, asked)


@pytest.mark.parametrize(("alert", "series"), QUIET)
def test_an_alert_does_not_fire_for_what_is_no_fault(tmp_path: Path, alert: str, series: Series) -> None:
    times = ("30m", "62m", "65m", "75m", "110m")
    asked = [{"eval_time": time, "alertname": alert, "exp_alerts": []} for time in times]
    assert_promtool_agrees(tmp_path, series, asked)
