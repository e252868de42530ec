"""What the alerts ask of a worker, as a real one says it."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest
from tests.support.wait import wait_until
from tests.support.worker import Setup, get, running, set_up, wait_ready

pytestmark = pytest.mark.kafka


def shown(setup: Setup, name: str) -> dict[str, float]:
    """The series of a metric, each with its labels as they are written."""
    lines = re.findall(rf"^{name}({{.*}})? (\S+)$", get(setup, "/metrics")[1].decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in lines}


def test_a_binding_that_stands_still_is_seen_beside_one_that_is_busy(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    busy, still = topics("busy", "still", partitions=1)
    setup = set_up(tmp_path, kafka, [busy, still])
    kafka.create_topics({f"{busy}.predictions": 1, f"{busy}.dlq": 1})
    for topic in (busy, still):
        kafka.produce(topic, [json.dumps({"text": f"text {n}"}).encode() for n in range(3)])
    delivered = "worker_predictions_delivered_total"
    with running(setup):
        wait_until(lambda: shown(setup, delivered).get(f'{{topic="{busy}"}}') == 3, 60)
        lag = f'{{partition="0",topic="{still}"}}'
        wait_until(lambda: shown(setup, "worker_consumer_lag_records").get(lag) == 3, 60)
        # There, and at 0: of a series that is missing Prometheus would not know that it does not rise.
        assert 0 == shown(setup, delivered)[f'{{topic="{still}"}}']
        assert {"": 0.0} == shown(setup, "worker_ready")

        kafka.create_topics({f"{still}.predictions": 1, f"{still}.dlq": 1})
        wait_until(lambda: shown(setup, delivered)[f'{{topic="{still}"}}'] == 3, 60)
        wait_until(lambda: shown(setup, "worker_ready") == {"": 1.0}, 60)


def test_a_worker_that_has_no_partition_because_others_have_them_all_is_ready(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    """It would take over at once; WorkerNotReady would wake somebody for nothing."""
    (only,) = topics("only", partitions=1)
    setups = []
    for name in ("one", "spare"):
        (tmp_path / name).mkdir()
        setups.append(set_up(tmp_path / name, kafka, [only]))
    kafka.create_topics({f"{only}.predictions": 1, f"{only}.dlq": 1})
    one, spare = setups
    with running(one):
        wait_ready(one)
        with running(spare):
            wait_ready(spare)
            wait_until(lambda: sorted(shown(each, "worker_partitions_assigned")[""] for each in setups) == [0, 1], 60)
            wait_until(lambda: all(shown(each, "worker_ready") == {"": 1.0} for each in setups), 60)
