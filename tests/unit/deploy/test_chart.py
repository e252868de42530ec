"""The chart's values: what is taken, and what is refused before a cluster sees it."""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CHART = Path(__file__).parents[3] / "deploy" / "helm" / "nli-stream-worker"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SMALL = yaml.safe_load((CHART / "ci" / "small-values.yaml").read_text())
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}

GOOD: list[Mapping[str, Any]] = [
    {},
    {"replicas": 0},
    {"imagePullSecrets": [{"name": "login"}]},
    {"priorityClassName": "high"},
    {"topologySpreadConstraints": [SPREAD]},
    {
        "extraEnv": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]
    },
    {"extraVolumes": [{"name": "models", "emptyDir": {}}]},
    {"extraVolumeMounts": [{"name": "models", "mountPath": "/models"}]},
    {"serviceMonitor": {"enabled": True, "tokenSecret": {"name": "worker-http", "key": "token"}}},
    {"prometheusRule": {"runbookUrl": "http://wiki.example/worker"}},
    {"autoscaling": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}},
    {"labelSchemas": {"kinds.yaml": "name: kinds"}},
    {"engineCache": {"enabled": True, "size": "5Gi"}},
    {"engineCache": {"existingClaim": "plans"}},
    {"podDisruptionBudget": {"maxUnavailable": "25%"}},
    {"gpu": {"enabled": True, "count": 1}},
]
BAD: list[Mapping[str, Any]] = [
    {"replicas": -1},
    {"replica": 2},
    {"image": {"pullPolicy": "Sometimes"}},
    {"image": {"repository": ""}},
    {"config": {"kafka": {"bootstrap_servers": ""}}},
    {"config": {"kafka": {"sasl_password": "p"}}},
    {"config": {"kafka": {"ssl_key_password": "p"}}},
    {"config": {"topics": []}},
    {"config": {"topics": [{"output": "out"}]}},
    {"config": {"http": {"port": 9}}},
    {"config": {"cache_dir": "/elsewhere"}},
    {"imagePullSecrets": ["login"]},
    {"imagePullSecrets": [{}]},
    {"priorityClassName": 1000},
    {"topologySpreadConstraints": [{key: value for key, value in SPREAD.items() if key != "labelSelector"}]},
    {"topologySpreadConstraints": SPREAD},
    {"extraEnv": {"A": "1"}},
    {"extraEnv": [{"name": "A", "value": 1}]},
    {"extraEnv": [{"value": "1"}]},
    {"extraEnv": [{"name": "WORKER_KAFKA__INSTANCE_ID", "value": "mine"}]},
    {"extraVolumes": [{"emptyDir": {}}]},
    {"extraVolumes": [{"name": "engines", "emptyDir": {}}]},
    {"extraVolumeMounts": [{"name": "models"}]},
    {"extraVolumeMounts": [{"name": "models", "mountPath": "models"}]},
    {"serviceMonitor": {"interval": "soon"}},
    {"serviceMonitor": {"tokenSecret": "worker-http"}},
    {"serviceMonitor": {"tokenSecret": {"name": "worker-http", "key": ""}}},
    {"prometheusRule": {"runbookUrl": "docs/operations.md"}},
    {"prometheusRule": {"runbookUrl": "https://wiki.example/worker#"}},
    {"autoscaling": {"enabled": True}},
    {"autoscaling": {"minReplicas": 0}},
    {"labelSchemas": {"kinds.txt": "name: kinds"}},
    {"engineCache": {"size": "5 GB"}},
    {"engineCache": {"existingClaim": True}},
    {"gpu": {"count": 0}},
    {"startupSeconds": 1},
    {"secretEnvironment": [""]},
]


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Values over values, as helm lays them."""
    whole = copy.deepcopy(dict(below))
    for key, value in above.items():
        is_map = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = merged(whole[key], value) if is_map else value
    return whole


def values(changes: Mapping[str, Any]) -> dict[str, Any]:
    return merged(merged(DEFAULTS, SMALL), changes)


def test_every_value_has_a_default_and_every_default_is_described() -> None:
    assert set(SCHEMA["properties"]) - {"global"} == set(DEFAULTS)


@pytest.mark.parametrize("changes", GOOD, ids=str)
def test_values_that_can_work_are_taken(changes: Mapping[str, Any]) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(values(changes))


@pytest.mark.parametrize("changes", BAD, ids=str)
def test_values_that_cannot_work_are_refused(changes: Mapping[str, Any]) -> None:
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(values(changes))


@pytest.mark.parametrize("missing", ["bootstrap_servers", "group_id"])
def test_the_defaults_alone_are_refused_without_a_broker_and_a_group(missing: str) -> None:
    whole = values({})
    del whole["config"]["kafka"][missing]
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(whole)
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(DEFAULTS)


@pytest.mark.parametrize("file", sorted((CHART / "ci").glob("*.yaml")), ids=lambda file: file.name)
def test_the_values_that_ci_renders_are_ones(file: Path) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(merged(DEFAULTS, yaml.safe_load(file.read_text())))


@pytest.fixture(scope="module")
def helm() -> str:
    """The program; `.ci/run deploy` puts it beside Go's own, where no PATH may lead."""
    folders = os.environ.get("PATH", "")
    if shutil.which("go") is not None:
        asked = subprocess.run(["go", "env", "GOPATH"], check=True, capture_output=True, text=True)
        folders += f"{os.pathsep}{asked.stdout.strip()}/bin"
    found = shutil.which("helm", path=folders)
    if found is None:
        pytest.skip("helm is not installed")
    return found


def rendered(helm: str, *more: str) -> dict[str, Any]:
    """What the cluster gets for the full values, by kind."""
    command = [helm, "template", "release", str(CHART), "-f", str(CHART / "ci" / "full-values.yaml"), *more]
    command += ["--kube-version", "1.31.0"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout) if document}


def test_what_the_full_values_say_stands_in_what_the_cluster_gets(helm: str) -> None:
    given = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text())
    made = rendered(helm)
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for key in ("imagePullSecrets", "priorityClassName", "topologySpreadConstraints"):
        assert given[key] == pod[key]
    assert given["extraEnv"] == container["env"][1:]
    assert given["extraVolumes"] == pod["volumes"][-1:]
    assert given["extraVolumeMounts"] == container["volumeMounts"][-1:]
    (endpoint,) = made["ServiceMonitor"]["spec"]["endpoints"]
    token = {"name": "worker-http", "key": "WORKER_HTTP__TOKEN"}
    assert {"type": "Bearer", "credentials": token} == endpoint["authorization"]


def test_mounting_a_volume_again_changes_no_rights_of_the_engines_on_it(helm: str) -> None:
    context = rendered(helm)["StatefulSet"]["spec"]["template"]["spec"]["securityContext"]
    assert ("OnRootMismatch", 10001) == (context["fsGroupChangePolicy"], context["fsGroup"])


def test_a_claim_that_is_there_holds_the_engines_of_all_pods(helm: str) -> None:
    own = rendered(helm)["StatefulSet"]["spec"]
    assert ["engines"] == [claim["metadata"]["name"] for claim in own["volumeClaimTemplates"]]
    shared = rendered(helm, "--set", "engineCache.existingClaim=plans")["StatefulSet"]["spec"]
    assert "volumeClaimTemplates" not in shared
    engines = [volume for volume in shared["template"]["spec"]["volumes"] if volume["name"] == "engines"]
    assert [{"name": "engines", "persistentVolumeClaim": {"claimName": "plans"}}] == engines


def test_every_alert_links_to_where_the_runbook_is_said_to_be(helm: str) -> None:
    groups = rendered(helm)["PrometheusRule"]["spec"]["groups"]
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}
    assert links
    assert {alert: f"https://wiki.example/worker#{alert.lower()}" for alert in links} == links
