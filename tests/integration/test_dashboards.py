"""The dashboard, and the alerts that do not fire, against a real Prometheus that scrapes a real worker."""

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from tests.support.worker import running, set_up, wait_ready
from worker.kafka.embedded_storage import free_port
from worker.observability.drift import RECENT, REFERENCE

pytestmark = pytest.mark.kafka

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "worker-rules.yml"
HAS_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None
needs_prometheus = pytest.mark.skipif(not HAS_PROMETHEUS, reason="prometheus and promtool are not installed")


class Prometheus:
    """A server of its own, and what it answers."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401  whatever the API says
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=10) as response:
            return json.load(response)["data"]

    def is_up(self) -> bool:
        try:
            self.ask("query", query="1")
        except OSError:
            return False
        return True


@contextmanager
def prometheus_of(http_port: int, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that looks at the port every second."""
    target = {"job_name": "worker", "static_configs": [{"targets": [f"127.0.0.1:{http_port}"]}]}
    config = {"global": {"scrape_interval": "1s"}, "rule_files": [str(RULES)], "scrape_configs": [target]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--web.listen-address={address}"]
    command.append(f"--storage.tsdb.path={tmp_path / 'tsdb'}")
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            server = Prometheus(address)
            wait_until(server.is_up, 60, "Prometheus")
            yield server
        finally:
            process.terminate()
            process.wait()


def panels() -> list[tuple[str, str]]:
    document = json.loads((DEPLOY / "grafana" / "dashboards" / "worker.json").read_text())
    return [(panel["title"], target["expr"]) for panel in document["panels"] for target in panel.get("targets", [])]


@needs_prometheus
def test_every_panel_of_the_dashboard_has_data_and_no_alert_fires_for_a_healthy_worker(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    inputs = topics("seen")
    setup = set_up(tmp_path, kafka, inputs)
    kafka.create_topics(dict.fromkeys(setup.outputs, 4))
    asked = {
        (title, re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "30s"))) for title, expression in panels()
    }
    # Label drift says nothing before both of its windows are full.
    kafka.produce(inputs[0], [json.dumps({"text": f"first {n}"}).encode() for n in range(REFERENCE + RECENT)])
    with running(setup), prometheus_of(setup.http_port, tmp_path) as prometheus:
        wait_ready(setup)

        missing, number = asked, itertools.count()

        def all_have_data() -> bool:
            nonlocal missing
            # Rates need records that come while Prometheus looks; a text that came before costs the engine nothing.
            events = [json.dumps({"text": f"text {next(number)}"}).encode() for _ in range(40)]
            kafka.produce(inputs[0], [*events, b"broken"])
            missing = {(title, query) for title, query in missing if not _has_data(prometheus, query)}
            return not missing

        with contextlib.suppress(AssertionError):  # which ones is the better message
            wait_until(all_have_data, 120)
        assert set() == missing
        firing = [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"]]
    assert [] == [name for name in firing if name != "WorkerDeadLetters"]


def _has_data(prometheus: Prometheus, query: str) -> bool:
    result = prometheus.ask("query", query=query)["result"]
    return any(sample["value"][1] != "NaN" for sample in result)
