"""What KEDA is told: a lag that nobody knows is no lag of 0."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import CHART, FULL, RefusedError, merged, rendered


def scaled(helm: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(helm, merged(FULL, {"autoscaling": changes}))["ScaledObject"]["spec"]
    return spec


def test_an_empty_answer_of_prometheus_is_an_error_and_not_a_lag_of_nothing(helm: str) -> None:
    (trigger,) = scaled(helm, {})["triggers"]
    assert "false" == trigger["metadata"]["ignoreNullValues"]


def test_without_a_lag_nothing_is_scaled_in(helm: str) -> None:
    spec = scaled(helm, {"minReplicas": 3})
    assert {"failureThreshold": 3, "replicas": 3, "behavior": "currentReplicasIfHigher"} == spec["fallback"]
    # Other types of metric have no fallback.
    assert ["AverageValue"] == [trigger["metricType"] for trigger in spec["triggers"]]


def test_a_keda_that_cannot_keep_what_runs_falls_back_to_as_many_as_there_may_be(helm: str) -> None:
    fallback = {"failureThreshold": 5, "behavior": ""}
    found = scaled(helm, {"maxReplicas": 12, "fallback": fallback})["fallback"]
    assert {"failureThreshold": 5, "replicas": 12} == found


def test_a_fallback_that_is_given_is_taken(helm: str) -> None:
    assert 5 == scaled(helm, {"fallback": {"replicas": 5}})["fallback"]["replicas"]


def test_who_asks_is_told_to_a_prometheus_that_wants_to_know(helm: str) -> None:
    (trigger,) = scaled(helm, {})["triggers"]
    assert {"name": "prometheus", "kind": "ClusterTriggerAuthentication"} == trigger["authenticationRef"]
    assert "bearer" == trigger["metadata"]["authModes"]
    (trigger,) = scaled(helm, {"authenticationRef": {"name": ""}, "authModes": ""})["triggers"]
    assert "authenticationRef" not in trigger
    assert "authModes" not in trigger["metadata"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"minReplicas": 9}, "autoscaling.minReplicas: expected at most autoscaling.maxReplicas, 8, not 9"),
        (
            {"minReplicas": 2, "fallback": {"replicas": 1}},
            "autoscaling.fallback.replicas: expected minReplicas to maxReplicas, 2 to 8, not 1",
        ),
        ({"fallback": {"replicas": 9}}, "autoscaling.fallback.replicas: expected minReplicas to maxReplicas"),
        ({"authenticationRef": {"name": ""}}, "autoscaling.authModes: expected autoscaling.authenticationRef.name"),
    ],
    ids=str,
)
def test_replicas_and_authentication_that_do_not_go_together_are_refused(
    helm: str, changes: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(RefusedError, match=told):
        scaled(helm, changes)


def notes(helm: str, folder: Path, changes: Mapping[str, Any]) -> str:
    """What an installation says at its end; as a document, because only a cluster is shown it otherwise."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    told = 'kind: Notes\ntext: {{ tpl (.Files.Get "notes") . | quote }}\n'
    (chart / "templates" / "notes.yaml").write_text(told)
    return str(rendered(helm, merged(FULL, changes), chart)["Notes"]["text"])


def test_who_scales_without_a_service_monitor_is_told_what_prometheus_needs(helm: str, tmp_path: Path) -> None:
    said = notes(helm, tmp_path, {"serviceMonitor": {"enabled": False}})
    assert 'worker_consumer_lag_records{namespace="default",service="release"}' in said
    assert "at least 1 workers" in said


@pytest.mark.parametrize(
    "changes",
    [{}, {"autoscaling": {"enabled": False}, "serviceMonitor": {"enabled": False}}],
    ids=["monitored", "not scaled"],
)
def test_nobody_else_is_told_of_it(helm: str, tmp_path: Path, changes: Mapping[str, Any]) -> None:
    assert "autoscaling" not in notes(helm, tmp_path, changes)
