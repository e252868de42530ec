"""The chart's values: what is taken, and what is refused before a cluster sees it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from tests.support.chart import CHART, DEFAULTS, FULL, SCHEMA, SMALL, merged, pod_of, rendered
from worker.config import SECRET_KEYS, SECRET_SETTING, Config

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
    {"extraEnv": [{"name": "WORKER_KAFKA__SASL_USERNAME", "value": "me"}]},
    {"config": {"registry": None}},
    {"extraVolumes": [{"name": "models", "emptyDir": {}}]},
    {"extraVolumeMounts": [{"name": "models", "mountPath": "/models"}]},
    {"serviceMonitor": {"enabled": True, "tokenSecret": {"name": "worker-http", "key": "token"}}},
    {"prometheusRule": {"runbookUrl": "http://wiki.example/worker"}},
    {"autoscaling": {"enabled": True, "prometheusAddress": "http://prometheus:9090"}},
    {"labelSchemas": {"kinds.yaml": "name: kinds"}},
    {"engineCache": {"enabled": True, "size": "5Gi"}},
    {"engineCache": {"existingClaim": "plans"}},
    {"podDisruptionBudget": {"maxUnavailable": "25%"}},
    {"podDisruptionBudget": {"maxUnavailable": "100%"}},
    {"podDisruptionBudget": {"maxUnavailable": 0}},
    {"gpu": {"enabled": True, "count": 1}},
]
BAD: list[Mapping[str, Any]] = [
    {"replicas": -1},
    {"replica": 2},
    {"image": {"pullPolicy": "Sometimes"}},
    {"image": {"repository": ""}},
    {"config": {"kafka": {"bootstrap_servers": ""}}},
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
    {"extraEnv": [{"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "authorization=s"}]},
    {"extraEnv": [{"name": "HF_TOKEN", "value": "s"}]},
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
    {"autoscaling": {"enabled": True, "prometheusAddress": "http://me:secret@prometheus:9090"}},
    {"autoscaling": {"authModes": "password"}},
    {"autoscaling": {"authenticationRef": {"name": "prometheus", "kind": "Secret"}}},
    {"autoscaling": {"fallback": {"replicas": -1}}},
    {"autoscaling": {"fallback": {"behavior": "currentReplicasIfLower"}}},
    {"labelSchemas": {"kinds.txt": "name: kinds"}},
    {"labelSchemas": {"kinds.yaml": ["name: kinds"]}},
    {"engineCache": {"size": "5 GB"}},
    {"engineCache": {"existingClaim": True}},
    {"gpu": {"count": 0}},
    {"startupSeconds": 1},
    {"updateStrategy": {"rollingUpdate": {"partition": -1}}},
    {"updateStrategy": {"type": "OnDelete"}},
    {"podDisruptionBudget": {"maxUnavailable": "lots"}},
    {"podDisruptionBudget": {"maxUnavailable": "1"}},
    {"podDisruptionBudget": {"maxUnavailable": "101%"}},
    {"podDisruptionBudget": {"maxUnavailable": -1}},
    {"secretEnvironment": [""]},
]


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


def test_what_the_full_values_say_stands_in_what_the_cluster_gets(helm: str) -> None:
    made = rendered(helm, FULL)
    pod = pod_of(made)
    (container,) = pod["containers"]
    for key in ("imagePullSecrets", "priorityClassName", "topologySpreadConstraints"):
        assert FULL[key] == pod[key]
    assert FULL["extraEnv"] == container["env"][-1:]
    assert FULL["extraVolumes"] == pod["volumes"][-1:]
    assert FULL["extraVolumeMounts"] == container["volumeMounts"][-1:]
    (endpoint,) = made["ServiceMonitor"]["spec"]["endpoints"]
    token = {"name": "worker-http", "key": "WORKER_HTTP__TOKEN"}
    assert {"type": "Bearer", "credentials": token} == endpoint["authorization"]


def threads(helm: str, changes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Where the pod has the number of the engine's threads from; None: it counts cores itself."""
    (container,) = pod_of(rendered(helm, merged(SMALL, changes)))["containers"]
    found = [each for each in container["env"] if each["name"] == "WORKER_THREADS"]
    return found[0] if found else None


def test_the_engine_has_the_cores_that_the_pod_asks_for_and_not_those_of_the_node(helm: str) -> None:
    asked = {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1"}}
    assert {"name": "WORKER_THREADS", "valueFrom": asked} == threads(helm, {})
    assert {"name": "WORKER_THREADS", "valueFrom": asked} == threads(helm, {"extraEnv": [{"name": "A", "value": "1"}]})


@pytest.mark.parametrize(
    "changes",
    [{"resources": {"limits": {"cpu": "4"}}}, {"config": {"threads": 3}}, {"resources": {"requests": None}}],
    ids=["the limit is seen in the container", "the configuration says it", "nothing is asked for"],
)
def test_threads_are_left_to_the_worker_where_something_else_bounds_them(helm: str, changes: Mapping[str, Any]) -> None:
    assert threads(helm, changes) is None


def test_threads_that_are_given_stand_there_once(helm: str) -> None:
    given = {"name": "WORKER_THREADS", "value": "3"}
    assert given == threads(helm, {"extraEnv": [given]})


def test_mounting_a_volume_again_changes_no_rights_of_the_engines_on_it(helm: str) -> None:
    context = pod_of(rendered(helm, FULL))["securityContext"]
    assert ("OnRootMismatch", 10001) == (context["fsGroupChangePolicy"], context["fsGroup"])


def test_a_claim_that_is_there_holds_the_engines_of_all_pods(helm: str) -> None:
    own = rendered(helm, FULL)["StatefulSet"]["spec"]
    assert ["engines"] == [claim["metadata"]["name"] for claim in own["volumeClaimTemplates"]]
    shared = rendered(helm, merged(FULL, {"engineCache": {"existingClaim": "plans"}}))["StatefulSet"]["spec"]
    assert "volumeClaimTemplates" not in shared
    engines = [volume for volume in shared["template"]["spec"]["volumes"] if volume["name"] == "engines"]
    assert [{"name": "engines", "persistentVolumeClaim": {"claimName": "plans"}}] == engines


def test_the_page_on_upgrades_replaces_one_of_four_workers_and_then_the_others(helm: str) -> None:
    """Its two commands, as they stand there, but for the cluster and the file of values."""
    page = (CHART.parents[2] / "docs" / "upgrade.md").read_text()
    commands = re.findall(r"^ +helm upgrade (\w+) (\S+) -f my-values.yaml --set (\S+)$", page, re.MULTILINE)
    replaced = []
    for release, chart, setting in commands:
        path, _, number = setting.rpartition("=")
        given: Any = int(number)
        for key in reversed(path.split(".")):
            given = {key: given}
        assert ("labels", CHART) == (release, CHART.parents[2] / chart)
        strategy = rendered(helm, merged(SMALL, {"replicas": 4, **given}))["StatefulSet"]["spec"]["updateStrategy"]
        assert "RollingUpdate" == strategy["type"]
        replaced.append([pod for pod in range(4) if pod >= strategy["rollingUpdate"]["partition"]])
    assert [[3], [0, 1, 2, 3]] == replaced


def test_an_upgrade_replaces_all_pods_where_nothing_else_is_said(helm: str) -> None:
    assert {"partition": 0} == rendered(helm, SMALL)["StatefulSet"]["spec"]["updateStrategy"]["rollingUpdate"]


def is_taken(changes: Mapping[str, Any]) -> bool:
    return bool(jsonschema.Draft7Validator(SCHEMA).is_valid(values(changes)))


def variable(part: str, *keys: str) -> str:
    return "__".join((f"WORKER_{part}", *keys)).upper()


@pytest.mark.parametrize(("part", "key"), SECRET_KEYS)
def test_no_secret_that_the_worker_refuses_in_a_file_gets_into_a_config_map(part: str, key: str) -> None:
    assert not is_taken({"config": {part: {key: "s"}}})
    # With a file for it the same part is good, but for `http`, which the chart sets by itself.
    assert (part != "http") == is_taken({"config": {part: {f"{key}_file": "/etc/worker/tls/s"}}})


@pytest.mark.parametrize(
    "key", [*SECRET_KEYS, *dict.fromkeys((part,) for part, _ in SECRET_KEYS), ("kafka", "librdkafka")], ids=str
)
def test_no_secret_stands_in_the_pods_definition(key: tuple[str, ...]) -> None:
    for name in (variable(*key), variable(*key).lower()):
        assert not is_taken({"extraEnv": [{"name": name, "value": "s"}]})
        assert is_taken({"extraEnv": [{"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]})


def test_settings_of_the_client_with_secrets_are_refused_by_the_workers_own_rule() -> None:
    names = SCHEMA["properties"]["config"]["properties"]["kafka"]["properties"]["librdkafka"]["propertyNames"]
    assert {"not": {"pattern": f"(?i){SECRET_SETTING.pattern}"}} == names
    assert not is_taken({"config": {"kafka": {"librdkafka": {"ssl.keystore.Password": "s"}}}})
    assert is_taken({"config": {"kafka": {"librdkafka": {"fetch.max.bytes": 1}}}})


def addresses(model: type[BaseModel], *above: str) -> Iterator[tuple[str, ...]]:
    """Where the configuration takes an address without user and password."""
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from addresses(kind, *above, name)
        if "[^@" in str([field.metadata, field.annotation]):
            yield (*above, name)


def test_the_addresses_of_the_configuration_are_found() -> None:
    assert {("registry", "url"), ("kafka", "oauth_token_url"), ("tracing", "endpoint")} < set(addresses(Config))


@pytest.mark.parametrize("path", list(addresses(Config)), ids=".".join)
def test_an_address_with_a_password_in_it_gets_into_no_config_map(path: tuple[str, str]) -> None:
    part, key = path
    assert is_taken({"config": {part: {key: "https://there"}}})
    assert not is_taken({"config": {part: {key: "https://me:secret@there"}}})


def test_every_alert_links_to_where_the_runbook_is_said_to_be(helm: str) -> None:
    groups = rendered(helm, FULL)["PrometheusRule"]["spec"]["groups"]
    links = {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}
    assert links
    assert {alert: f"https://wiki.example/worker#{alert.lower()}" for alert in links} == links
