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

JOB_A = {"job": "worker", "instance": "a"}
A = 'job="worker",instance="a"'
INFO_A = {f'worker_info{{{A},group="g",version="1.0.0"}}': "1x120"}
OF_GROUP = {"job": "worker", "group": "g"}


def stuck(topic: str, values: str = "0x120", process: str = "") -> Series:
    """A worker with lag in a topic, of which nothing is delivered unless `values` say so."""
    where = f'{A},process="{process}"' if process else A
    return {
        f'worker_consumer_lag_records{{{where},topic="{topic}",partition="0"}}': "5x120",
        f'worker_predictions_delivered_total{{{where},topic="{topic}"}}': values,
        f"worker_pairs_scored_total{{{where}}}": values,
    }


PAIRS_SCORED = {f"worker_pairs_scored_total{{{A}}}": "0+9x120"}
STUCK_BESIDE_A_BUSY_ONE = {**stuck("other", "0+9x120"), **stuck("in"), **PAIRS_SCORED}
SECOND_PROCESS_STUCK = {**stuck("in", "0+9x120", "worker-1"), **stuck("in", process="worker-2")}
SECOND_PROCESS_IDLE = {
    series: "0x120" if "lag" in series and "worker-2" in series else values
    for series, values in SECOND_PROCESS_STUCK.items()
}
DRIFT = f'worker_label_drift_psi{{name="kinds",version="3",{A}}}'
REFUSALS = f'worker_label_schema_refusals_total{{name="kinds",{A}}}'
OF_KINDS = {"name": "kinds", **JOB_A}
REFUSED = "A version of the label schema kinds was refused; the last good one holds."

APART: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "two jobs": ({"job": "worker", "group": "g"}, {"job": "worker-staging", "group": "g"}),
    "two namespaces": (
        {"job": "worker", "namespace": "live", "service": "labels", "group": "g"},
        {"job": "worker", "namespace": "staging", "service": "labels", "group": "g"},
    ),
    "two releases in one namespace": (
        {"job": "worker", "namespace": "live", "service": "labels", "group": "g"},
        {"job": "worker", "namespace": "live", "service": "more", "group": "g"},
    ),
    "two groups in one job": ({"job": "worker", "group": "g"}, {"job": "worker", "group": "h"}),
}
"""How two deployments under one Prometheus may be told apart: what it adds, and their consumer group."""


def targets(apart: str) -> tuple[str, str]:
    """The labels that Prometheus adds to what a worker of each of the two deployments says."""
    one, other = (
        ",".join(f'{name}="{value}"' for name, value in {**labels, "instance": instance}.items() if name != "group")
        for labels, instance in zip(APART[apart], "ab", strict=True)
    )
    return one, other


def both(apart: str) -> Series:
    """What a worker of each deployment says of itself."""
    groups = (labels["group"] for labels in APART[apart])
    return {
        f'worker_info{{{target},group="{group}",version="1.0.0"}}': "1x120"
        for target, group in zip(targets(apart), groups, strict=True)
    }


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
    Fires("WorkerDown", {f"up{{{A}}}": "1x60 0x60"}, "a does not answer.", JOB_A, "64m", "62m"),
    Fires(
        "WorkerDown",
        {'up{job="worker-staging",instance="a"}': "0x120"},
        "a does not answer.",
        {"job": "worker-staging", "instance": "a"},
    ),
    Fires(
        "WorkerAbsent",
        {f"up{{{A}}}": "1x60 _x60", 'up{job="worker-staging",instance="b"}': "1x120"},
        "No worker is to be scraped any more: worker.",
        {"job": "worker"},
        "71m",
        "65m",
    ),
    Fires(
        "WorkerAbsent",
        {'up{job="worker",namespace="live",service="labels",instance="a"}': "1x60 _x60", f"up{{{A}}}": "1x120"},
        "No worker is to be scraped any more: worker labels.",
        {"job": "worker", "namespace": "live", "service": "labels"},
        "71m",
        "65m",
    ),
    Fires("WorkerAbsent", {'up{job="another"}': "1x120"}, "No worker is to be scraped.", {}, "6m", "4m"),
    Fires("WorkerNotReady", {f"worker_ready{{{A}}}": "0x120"}, "a is not ready.", JOB_A, "16m", "14m"),
    Fires(
        "WorkerNotReady",
        {f'worker_ready{{{A},process="worker-1"}}': "1x120", f'worker_ready{{{A},process="worker-2"}}': "0x120"},
        "a (worker-2) is not ready.",
        {**JOB_A, "process": "worker-2"},
        not_yet="14m",
    ),
    Fires(
        "WorkerStalled",
        stuck("in"),
        "a has lag in in and gets nothing done.",
        {**JOB_A, "topic": "in"},
        "12m",
        "4m",
    ),
    Fires(
        "WorkerStalled",
        STUCK_BESIDE_A_BUSY_ONE,
        "a has lag in in and gets nothing done.",
        {**JOB_A, "topic": "in"},
        "12m",
        "4m",
    ),
    Fires(
        "WorkerStalled",
        SECOND_PROCESS_STUCK,
        "a (worker-2) has lag in in and gets nothing done.",
        {**JOB_A, "process": "worker-2", "topic": "in"},
    ),
    Fires(
        "WorkerLagGrows",
        {**INFO_A, f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "0+200x120"},
        "24k records wait for g, and more every minute.",
        OF_GROUP,
        not_yet="60m",
    ),
    Fires(
        "WorkerDrainsSlowly",
        {**INFO_A, f"worker_drain_seconds{{{A}}}": "901x120"},
        "What waits for g takes 15m 1s to deliver.",
        OF_GROUP,
        not_yet="14m",
    ),
    Fires(
        "WorkerDrainsSlowly",
        {**INFO_A, f"worker_drain_seconds{{{A}}}": " ".join(["+Inf"] * 121)},
        "What waits for g takes +Inf to deliver.",
        OF_GROUP,
        not_yet="14m",
    ),
    Fires(
        "WorkerDeadLetters",
        {
            **INFO_A,
            f'worker_records_consumed_total{{{A},topic="in"}}': "0+100x120",
            f'worker_dead_letters_total{{{A},topic="in",reason="json_invalid"}}': "0+10x120",
        },
        "10% of in cannot be predicted.",
        {**OF_GROUP, "topic": "in"},
    ),
    Fires(
        "WorkerTransactionsFail",
        {f'worker_transactions_total{{{A},outcome="aborted"}}': "0+60x120"},
        "a aborts 1 transactions a second.",
        JOB_A,
    ),
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "0x60 1x60"}, REFUSED, OF_KINDS, "62m", "60m"),
    # Refused before the first scrape: at the start, or under a name that nobody knew.
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "_x60 1x60"}, REFUSED, OF_KINDS, "61m", "59m"),
    Fires("WorkerLabelSchemaRefused", {REFUSALS: "3x60 1x60"}, REFUSED, OF_KINDS, "62m", "60m"),
    Fires(
        "WorkerLabelSchemasDiffer",
        {
            **INFO_A,
            'worker_info{job="worker",instance="b",group="g",version="1.1.0"}': "1x120",
            f'worker_label_schema_info{{name="kinds",version="1",{A}}}': "1x120",
            'worker_label_schema_info{name="kinds",version="2",job="worker",instance="b"}': "1x120",
        },
        "Workers of g use different versions of the label schema kinds.",
        {**OF_GROUP, "name": "kinds"},
        "11m",
        "9m",
    ),
    Fires(
        "WorkerLabelDrift",
        {**INFO_A, DRIFT: "0.3x120"},
        "kinds@3 meets other messages than at first (0.30).",
        {**OF_GROUP, "name": "kinds", "version": "3"},
        not_yet="59m",
    ),
    # Once is enough: the counter stands at 0 before.
    Fires(
        "WorkerEngineFails",
        {f'worker_engine_failures_total{{{A},kind="broken"}}': "0x60 1x60"},
        "The engine of a fails for everything.",
        JOB_A,
        "67m",
        "60m",
    ),
    Fires(
        "WorkerMemoryShort",
        {f'worker_engine_failures_total{{{A},process="worker-2",kind="out_of_memory"}}': "0x60 1x60"},
        "The engine of a (worker-2) runs out of memory.",
        {**JOB_A, "process": "worker-2"},
        "67m",
        "60m",
    ),
]

ENDED = "1x60 _x60"
QUIET: list[tuple[str, Series]] = [
    ("WorkerDown", {f"up{{{A}}}": "1x60 0x0 1x60"}),
    ("WorkerDown", {'up{job="another",instance="a"}': "0x120", 'up{job="workers",instance="b"}': "0x120"}),
    ("WorkerAbsent", {f"up{{{A}}}": "1x120", 'up{job="worker",instance="b"}': ENDED}),  # one of two, as in a step down
    ("WorkerAbsent", {f"up{{{A}}}": "1x58 _x3 1x60"}),  # a restart under the same name
    ("WorkerAbsent", {f"up{{{A}}}": "0x120"}),  # that is WorkerDown
    ("WorkerAbsent", {f"up{{{A}}}": "1x120", 'up{job="another",instance="b"}': ENDED}),
    ("WorkerNotReady", {f"worker_ready{{{A}}}": "1x20 0x10 1x90"}),
    ("WorkerStalled", SECOND_PROCESS_IDLE),
    ("WorkerStalled", stuck("in", "0+1x120")),
    ("WorkerStalled", {**stuck("in"), f'worker_dead_letters_total{{{A},topic="in",reason="json_invalid"}}': "0+1x120"}),
    ("WorkerStalled", {**stuck("in"), **PAIRS_SCORED}),  # one long message
    ("WorkerStalled", dict.fromkeys(stuck("in"), "0x120")),
    ("WorkerLagGrows", {**INFO_A, f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "20000x120"}),
    ("WorkerLagGrows", {**INFO_A, f'worker_consumer_lag_records{{{A},topic="in",partition="0"}}': "0+10x120"}),
    ("WorkerDrainsSlowly", {**INFO_A, f"worker_drain_seconds{{{A}}}": "900x120"}),
    (
        "WorkerDeadLetters",
        {
            **INFO_A,
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
            **INFO_A,
            'worker_info{job="worker",instance="b",group="g",version="1.0.0"}': "1x120",
            'worker_label_schema_info{name="kinds",version="1",job="worker",instance="a"}': "1x58 _x60",
            'worker_label_schema_info{name="kinds",version="2",job="worker",instance="a"}': "_x58 1x60",
            'worker_label_schema_info{name="kinds",version="1",job="worker",instance="b"}': "1x60 _x60",
            'worker_label_schema_info{name="kinds",version="2",job="worker",instance="b"}': "_x60 1x60",
        },
    ),
    ("WorkerLabelDrift", {**INFO_A, DRIFT: "0.25x120"}),
    ("WorkerEngineFails", {f'worker_engine_failures_total{{{A},kind="failed"}}': "0+1x120"}),
    ("WorkerEngineFails", {f'worker_engine_failures_total{{{A},kind="out_of_memory"}}': "0+1x120"}),
    ("WorkerEngineFails", {f'worker_engine_failures_total{{{A},kind="broken"}}': "0x120"}),
    ("WorkerMemoryShort", {f'worker_engine_failures_total{{{A},kind="failed"}}': "0+1x120"}),
    ("WorkerMemoryShort", {f'worker_engine_failures_total{{{A},kind="out_of_memory"}}': "0x120"}),
]


def rules() -> dict[str, Any]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def told(at: str, alert: str, summary: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """That this one alert of its name fires, with exactly these labels beside its severity."""
    rule = rules()[alert]
    expected = {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {**rule["annotations"], "summary": summary},
    }
    return {"eval_time": at, "alertname": alert, "exp_alerts": [expected]}


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
    asked: list[dict[str, Any]] = [
        {"eval_time": due.not_yet, "alertname": due.alert, "exp_alerts": []},
        told(due.at, due.alert, due.summary, due.labels),
    ]
    assert_promtool_agrees(tmp_path, due.series, asked)


@pytest.mark.parametrize(("alert", "series"), QUIET)
def test_an_alert_does_not_fire_for_what_is_no_fault(tmp_path: Path, alert: str, series: Series) -> None:
    times = ("30m", "62m", "65m", "75m", "110m")
    asked = [{"eval_time": time, "alertname": alert, "exp_alerts": []} for time in times]
    assert_promtool_agrees(tmp_path, series, asked)


@pytest.mark.parametrize("apart", APART)
def test_two_deployments_that_differ_and_are_well_fire_nothing(tmp_path: Path, apart: str) -> None:
    one, other = targets(apart)
    lag, schema = 'worker_consumer_lag_records{%s,topic="in",partition="0"}', "worker_label_schema_info"
    series = {
        **both(apart),
        f"up{{{one}}}": "1x120",
        f"up{{{other}}}": "1x120",
        f'{schema}{{{one},name="kinds",version="1"}}': "1x120",
        f'{schema}{{{other},name="kinds",version="2"}}': "1x120",
        # 7,200 each at the end, and more every minute.
        lag % one: "0+60x120",
        lag % other: "0+60x120",
    }
    names = [alert for alert in rules() if alert != "WorkerStalled"]  # nothing is said of what they deliver
    asked = [{"eval_time": "2h", "alertname": alert, "exp_alerts": []} for alert in names]
    assert_promtool_agrees(tmp_path, series, asked)


@pytest.mark.parametrize("apart", APART)
def test_what_is_wrong_with_one_deployment_is_told_of_it_whatever_the_other_does(tmp_path: Path, apart: str) -> None:
    one, other = targets(apart)
    consumed, dead = (
        'worker_records_consumed_total{%s,topic="in"}',
        'worker_dead_letters_total{%s,topic="in",reason="x"}',
    )
    drain = "worker_drain_seconds{%s}"
    # A tenth of a few, and none of many: one in 200 of all.
    dead_letters = {consumed % one: "0+100x120", dead % one: "0+10x120", consumed % other: "0+2000x120"}
    series = {**both(apart), **dead_letters, dead % other: "0x120", drain % one: "1800x120", drain % other: "0x120"}
    asked = [
        told("2h", "WorkerDeadLetters", "10% of in cannot be predicted.", {**APART[apart][0], "topic": "in"}),
        told("2h", "WorkerDrainsSlowly", "What waits for g takes 30m 0s to deliver.", APART[apart][0]),
    ]
    assert_promtool_agrees(tmp_path, series, asked)
