"""What stands in deploy/ speaks of the worker as it is."""

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.config import Config, load_config
from worker.engines.source import HubModel, parse_source
from worker.errors import ConfigError
from worker.kafka.embedded_jars import KAFKA_VERSION
from worker.observability.metrics import Metrics

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "worker-rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "worker.json"
COMPOSE_PAGE = (ROOT / "docs" / "compose.md").read_text(encoding="utf-8")
CHART = DEPLOY / "helm" / "nli-stream-worker"
METRIC = re.compile(r"\b(?:worker|process)_[a-z_]+\b")
RUNBOOK_URL = yaml.safe_load((CHART / "values.yaml").read_text())["prometheusRule"]["runbookUrl"]
SUFFIXES = re.compile(r"_(?:bucket|sum|count|total)$")


def expressions() -> list[str]:
    rules = yaml.safe_load(RULES.read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return asked + [target["expr"] for panel in panels for target in panel.get("targets", [])]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_that_is_asked_for_is_one_of_the_worker(expression: str) -> None:
    known = {metric.name for metric in Metrics().registry.collect()}
    asked = {SUFFIXES.sub("", name) for name in METRIC.findall(expression)}
    assert asked <= {SUFFIXES.sub("", name) for name in known}
    assert asked or "up{" in expression or "ALERTS{" in expression


@pytest.mark.parametrize(
    "path", [RULES, DASHBOARD, DEPLOY / "prometheus" / "prometheus.yml"], ids=lambda path: path.name
)
def test_every_metric_that_a_file_names_is_on_the_page_about_metrics(path: Path) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    explained = {SUFFIXES.sub("", name) for name in re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)}
    named = {SUFFIXES.sub("", name) for name in re.findall(r"\bworker_[a-z_]+\b", path.read_text())}
    assert named <= explained
    assert named or path.name == "prometheus.yml"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_alert_says_what_it_is_and_links_to_its_section_of_the_runbook() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text()
    assert alerts()
    for rule in alerts():
        assert {"summary", "description", "runbook_url"} == set(rule["annotations"])
        page, _, section = rule["annotations"]["runbook_url"].partition("#")
        assert (RUNBOOK_URL, rule["alert"].lower()) == (page, section)
        assert f"## {rule['alert']}\n" in runbook


def test_every_section_of_the_runbook_that_is_called_as_an_alert_is_of_one() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text()
    assert {rule["alert"] for rule in alerts()} == set(re.findall(r"^## (Worker\w+)$", runbook, re.MULTILINE))


def test_an_engine_that_fails_is_critical_and_one_that_helps_itself_is_not() -> None:
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}
    assert ("critical", "warning") == (severities["WorkerEngineFails"], severities["WorkerMemoryShort"])


def test_the_chart_brings_the_same_alerts() -> None:
    assert RULES.read_text() == (CHART / "files" / "worker-rules.yml").read_text()


def test_the_configuration_of_docker_compose_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    service = compose["services"]["worker"]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    config = load_config(DEPLOY / "compose" / "worker.yaml")
    assert "kafka:29092" == config.kafka.bootstrap_servers
    made = [argument for argument in compose["services"]["topics"]["command"] if argument.startswith("--topic=")]
    assert [f"--topic={binding.input}" for binding in config.topics] == made
    for binding in config.topics:
        assert (ROOT / "schemas" / f"{binding.label_schema}.yaml").is_file()


def compose_services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def filled_in(value: str, environment: Mapping[str, str]) -> str:
    """`${NAME:-default}` as docker compose reads it."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: environment.get(found[1], found[2]), value)


def gpu_config(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Config:
    for name, value in compose_services()["worker-gpu"]["environment"].items():
        monkeypatch.setenv(name, filled_in(value, environment))
    return load_config(DEPLOY / "compose" / "worker.yaml")


def test_the_worker_for_a_gpu_runs_a_model_that_a_gpu_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = f"maker/model@{'0' * 40}"
    config = gpu_config(monkeypatch, {"GPU_MODEL": model})
    assert (model, "tensorrt", "kafka:29092") == (config.model, config.engine, config.kafka.bootstrap_servers)
    assert isinstance(parse_source(config.model), HubModel)


def test_the_worker_for_a_gpu_says_what_it_lacks_where_no_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="GPU_MODEL is not set"):
        parse_source(gpu_config(monkeypatch, {}).model)


@pytest.mark.parametrize("service", ["worker", "worker-gpu"])
def test_engines_are_kept_in_a_volume_of_the_image_that_the_worker_may_write(service: str) -> None:
    kept = dict(volume.split(":")[:2] for volume in compose_services()[service]["volumes"])["engines"]
    config = yaml.safe_load((DEPLOY / "compose" / "worker.yaml").read_text())
    image = (DEPLOY / "Dockerfile").read_text()
    base = image[image.index(" AS base") : image.index("FROM base AS gpu")]  # of both targets
    assert kept == config["cache_dir"]
    assert f"install -d -o worker -g worker -m 0700 {kept}" in base
    assert f'VOLUME ["{kept}"]' in base


def test_docker_compose_starts_the_kafka_that_the_tests_run_on() -> None:
    images = {service["image"] for service in compose_services().values() if "image" in service}
    assert {f"apache/kafka:{KAFKA_VERSION}"} == {image for image in images if "kafka:" in image}
    assert f"| Kafka {KAFKA_VERSION} | `localhost:9092` |" in COMPOSE_PAGE


def test_the_page_of_docker_compose_names_the_ports_that_are_open() -> None:
    services = compose_services().values()
    opened = {port.split(":")[1] for each in services if "profiles" not in each for port in each.get("ports", [])}
    assert opened == set(re.findall(r"localhost:(\d+)", COMPOSE_PAGE))


def test_kafka_keeps_its_records_in_its_volume() -> None:
    kafka = compose_services()["kafka"]
    assert {"kafka": kafka["environment"]["KAFKA_LOG_DIRS"]} == dict(volume.split(":") for volume in kafka["volumes"])


def test_every_file_that_docker_compose_mounts_is_there() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    sources = [source for source in mounted if source.startswith("./")]
    assert sources
    assert [] == [source for source in sources if not (ROOT / source).exists()]


def test_the_dashboard_asks_the_data_source_that_is_chosen_and_first_the_provisioned_one() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    sources = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (provisioned,) = yaml.safe_load(sources.read_text())["datasources"]
    source, *others = dashboard["templating"]["list"]
    assert ("datasource", "prometheus") == (source["type"], source["query"])
    assert (provisioned["name"], provisioned["uid"]) == (source["current"]["text"], source["current"]["value"])
    asking = [panel for panel in dashboard["panels"] if panel.get("targets")] + others
    assert {"${datasource}"} == {each["datasource"]["uid"] for each in asking}


def test_no_panel_of_the_dashboard_lies_on_another() -> None:
    taken: dict[tuple[int, int], int] = {}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in itertools.product(range(place["w"]), range(place["h"])):
            taken_by = taken.setdefault((place["x"] + cell[0], place["y"] + cell[1]), panel["id"])
            assert panel["id"] == taken_by, f"{panel['title']} lies on panel {taken_by}"
    assert len(panels) == len({panel["id"] for panel in panels})


def test_every_panel_of_the_dashboard_says_what_to_make_of_it() -> None:
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert [] == [panel["title"] for panel in panels if not panel.get("description")]
    assert [] == [panel["title"] for panel in panels if panel["type"] != "table" and not unit_of(panel)]


def unit_of(panel: Mapping[str, Any]) -> str:
    unit: str = panel["fieldConfig"]["defaults"].get("unit", "")
    return unit


@pytest.mark.parametrize(
    ("title", "alert"),
    [
        ("Time to drain", "WorkerDrainsSlowly"),
        ("Dead letters", "WorkerDeadLetters"),
        ("Label drift, highest", "WorkerLabelDrift"),
    ],
)
def test_a_number_of_the_dashboard_is_red_where_its_alert_fires(title: str, alert: str) -> None:
    (panel,) = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["title"] == title]
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    (expression,) = [rule["expr"] for rule in rules if rule.get("alert") == alert]
    *_, last = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert ("red", float(expression.split(">")[-1])) == (last["color"], last["value"])


def test_metrics_that_other_programs_have_too_are_asked_of_the_workers_alone() -> None:
    shared = [expression for expression in expressions() if "process_" in expression or "up{" in expression]
    shared = [re.sub(r"\bon \([^)]*\)|\bby \([^)]*\)", "", expression) for expression in shared]
    asked = [named for expression in shared for named in re.findall(r"\b(?:process_\w+|up)\{[^}]*\}?", expression)]
    assert asked
    assert [] == [
        each for each in asked if 'job=~"worker(-.+)?"' not in each and 'job=~"$job",instance=~"$instance"' not in each
    ]


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(DASHBOARD.read_text())["templating"]["list"]}


def test_the_dashboard_shows_one_deployment_where_that_is_chosen() -> None:
    """Job and worker are in every query, and what may be chosen follows from what was chosen before."""
    queries = {name: each["query"] for name, each in variables().items() if each["type"] == "query"}
    assert {
        "job": "label_values(worker_info, job)",
        "namespace": 'label_values(worker_info{job=~"$job"}, namespace)',
        "group": 'label_values(worker_info{job=~"$job",namespace=~"$namespace"}, group)',
        "instance": 'label_values(worker_info{job=~"$job",namespace=~"$namespace",group=~"$group"}, instance)',
    } == queries
    # All of these are those that are listed: what "All" of workers means depends on job, namespace and group.
    assert [] == [name for name in ("job", "instance") if "allValue" in variables()[name]]
    # Nothing is listed where no worker has a namespace, and that is all of them.
    assert [".*", ".*"] == [variables()[name]["allValue"] for name in ("namespace", "group")]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [
        selector
        for panel in panels
        for target in panel.get("targets", [])
        for selector in re.findall(r"\b(?:worker|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}", target["expr"])
    ]
    assert asked
    assert [] == [selector for selector in asked if 'job=~"$job",instance=~"$instance"' not in selector]
