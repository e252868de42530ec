import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from worker.errors import ConfigError
from worker.fleet import (
    MOST_DEATHS,
    STARTING,
    Report,
    Restarts,
    Share,
    merged_metrics,
    reasons_of,
    schemas_of,
    shares,
)


def test_every_process_gets_its_part_of_the_cores() -> None:
    assert [Share(1, 4), Share(2, 4)] == shares("2", cores=8, gpus=[])


def test_no_process_is_left_without_a_thread() -> None:
    assert [1, 1, 1] == [share.threads for share in shares("3", cores=2, gpus=[])]


@pytest.mark.parametrize(("cores", "expected"), [(2, 1), (4, 1), (8, 2), (16, 4)])
def test_auto_is_one_process_per_four_cores(cores: int, expected: int) -> None:
    assert expected == len(shares("auto", cores, gpus=[]))


def test_auto_is_one_process_per_gpu_and_each_sees_its_own() -> None:
    assert ["0", "1", "5"] == [share.gpu for share in shares("auto", cores=4, gpus=["0", "1", "5"])]


@pytest.mark.parametrize("wanted", ["0", "-1", "many", "1.5", "", "9"])
def test_anything_but_a_number_that_the_machine_can_bear_or_auto_is_refused(wanted: str) -> None:
    with pytest.raises(ConfigError, match="--workers"):
        shares(wanted, cores=2, gpus=[])


def test_instance_ids_carry_the_number_of_the_process() -> None:
    assert ["pod-7-1", "pod-7-2"] == [share.instance("pod-7") for share in shares("2", cores=2, gpus=[])]


def test_a_process_that_dies_again_waits_longer_each_time_and_never_too_long() -> None:
    restarts = Restarts()
    assert [0.5, 1.0, 2.0, 4.0] == [restarts.died(1, now, lived_seconds=1.0) for now in range(4)]
    assert 30.0 == max(restarts.died(1, now, lived_seconds=1.0) for now in range(4, 20))


def test_a_process_that_had_lived_for_a_minute_comes_back_soon() -> None:
    restarts = Restarts()
    for now in range(3):
        restarts.died(1, now, lived_seconds=1.0)
    assert 0.5 == restarts.died(1, 100.0, lived_seconds=90.0)


def test_five_deaths_within_a_minute_are_hopeless_whoever_died() -> None:
    restarts = Restarts()
    for number in range(MOST_DEATHS - 1):
        restarts.died(number, 10.0 * number, lived_seconds=5.0)
    assert not restarts.is_hopeless(35.0)
    restarts.died(1, 40.0, lived_seconds=5.0)
    assert restarts.is_hopeless(40.0)


def test_deaths_that_are_longer_than_a_minute_ago_are_forgotten() -> None:
    restarts = Restarts()
    for now in (0.0, 1.0, 2.0, 3.0, 62.5):
        restarts.died(1, now, lived_seconds=1.0)
    assert not restarts.is_hopeless(62.5)


def test_the_fleet_is_ready_only_when_every_process_is() -> None:
    reports = {"worker-1": Report(()), "worker-2": STARTING, "worker-3": Report(("kafka: away", "engine: loading"))}
    assert (
        "worker-2: it has not answered yet",
        "worker-3: kafka: away",
        "worker-3: engine: loading",
    ) == reasons_of(reports)
    assert () == reasons_of({"worker-1": Report(()), "worker-2": Report(())})


def test_the_schemas_are_those_of_the_first_process_that_knows() -> None:
    assert {"kinds": 3} == schemas_of({"worker-1": STARTING, "worker-2": Report((), "", {"kinds": 3})})
    assert {} == schemas_of({"worker-1": STARTING})


def page(records: int) -> str:
    registry = CollectorRegistry()
    Counter("worker_records_total", "Records read.", ("topic",), registry=registry).labels(topic="a").inc(records)
    Gauge("worker_lag", "Lag.", registry=registry).set(records * 2)
    Histogram("worker_seconds", "Seconds.", buckets=(1.0, 2.0), registry=registry).observe(1.5)
    return generate_latest(registry).decode()


def test_every_sample_of_every_process_is_on_the_one_page_and_says_whose_it_is() -> None:
    text = merged_metrics({"worker-1": Report((), page(3)), "worker-2": Report((), page(4))}, restarts=2).decode()
    found = {
        (sample.name, sample.labels.get("process"), sample.labels.get("topic"), sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert 3.0 == found["worker_records_total", "worker-1", "a", None]
    assert 4.0 == found["worker_records_total", "worker-2", "a", None]
    assert 8.0 == found["worker_lag", "worker-2", None, None]
    assert 0.0 == found["worker_seconds_bucket", "worker-1", None, "1.0"]
    assert 1.0 == found["worker_seconds_bucket", "worker-1", None, "2.0"]
    assert 2.0 == found["worker_process_restarts_total", None, None, None]


def test_every_metric_is_declared_once_however_many_processes_have_it() -> None:
    text = merged_metrics({"worker-1": Report((), page(3)), "worker-2": Report((), page(4))}, restarts=0).decode()
    assert 1 == text.count("# TYPE worker_records_total counter")


def test_of_a_process_without_metrics_there_is_whether_it_is_ready() -> None:
    text = merged_metrics({"worker-1": STARTING, "worker-2": Report(())}, restarts=0).decode()
    lines = [line for line in text.splitlines() if "process=" in line]
    assert ['worker_ready{process="worker-1"} 0.0', 'worker_ready{process="worker-2"} 1.0'] == lines


def test_a_process_with_metrics_says_itself_whether_it_is_ready() -> None:
    text = merged_metrics(
        {"worker-1": Report(("kafka: away",), "worker_ready 0.0\n"), "worker-2": STARTING}, 0
    ).decode()
    lines = [line for line in text.splitlines() if "process=" in line]
    assert ['worker_ready{process="worker-1"} 0.0', 'worker_ready{process="worker-2"} 0.0'] == lines
