"""The benches run, and their reports have the shape that others read. No time is judged."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from worker.cli.main import build_app

pytestmark = pytest.mark.kafka
SMALL = ["--engine", "fake", "--seconds", "0.2", "--rounds", "1", "--workload", "short", "--json", "--quick"]


def report(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(build_app(), ["bench", *arguments])
    assert result.exception is None, result.output
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


@pytest.mark.usefixtures("kafka")  # where there is no broker, this one cannot start either
def test_the_pipeline_bench_tells_of_throughput_and_latency() -> None:
    found = report("pipeline", *SMALL, "--topics", "2", "--repeated", "0.3", "--workers", "2")
    assert 2 == found["workers"]
    assert {"bench", "machine", "broker", "engine", "workload", "saturation", "latency"} <= set(found)
    saturation = found["saturation"]
    keys = ("messages_per_second", "pairs_per_second", "engine_only_pairs_per_second", "share_of_engine_only")
    assert all(saturation[key] > 0 for key in keys)
    assert 0 <= saturation["mean_padding_ratio"] < 1
    # Of both processes together: no other than they scored the seven tenths of the texts that are new.
    assert 0.5 < saturation["pairs_scored_share"] < 1
    assert {"labels": 8, "repeated": 0.3, "topics": 2}.items() <= found["workload"].items()
    [at_load] = found["latency"]
    assert 0 < at_load["p50_ms"] <= at_load["p99_ms"] <= at_load["max_ms"]


@pytest.mark.usefixtures("kafka")
def test_the_scale_out_bench_compares_one_process_with_two() -> None:
    found = report(
        "scale-out", "--engine", "fake", "--seconds", "0.2", "--rounds", "1", "--workload", "short", "--json"
    )
    one, two = found["processes"]
    assert (1, 1.0, 2) == (one["processes"], one["median_ratio"], two["processes"])
    assert two["median_ratio"] > 0
    assert two["peak_rss_mib"] > one["peak_rss_mib"]  # a parent and two processes
    assert [(1, 1), (2, 1)] == [(run["processes"], run["round"]) for run in found["runs"]]


@pytest.mark.usefixtures("kafka")
def test_the_memory_bench_tells_the_size_of_the_worker_over_the_time() -> None:
    found = report("memory", "--engine", "fake", "--minutes", "0.05", "--workload", "short", "--json")
    assert found["rate"] == pytest.approx(0.3 * found["saturation_messages_per_second"], rel=0.01)
    assert 0 < found["rss_first_mib"] <= found["rss_max_mib"] >= found["rss_last_mib"] > 0
    assert found["distinct_texts"] == pytest.approx(3 * found["rate"], rel=0.01, abs=1)
    assert 0 < found["score_cache_mib"] <= found["score_cache_bound_mib"]
    assert len(found["samples"]) >= 12
    assert isinstance(found["rss_slope_mib_per_hour"], float)


@pytest.mark.usefixtures("kafka")
def test_the_shortlist_bench_compares_two_topics_of_one_worker(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "wants.test.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number in range(60):
            stream.write(json.dumps({"text": f"text number {number}", "label": f"want_{number % 12}"}) + "\n")
    small = ["--engine", "fake", "--labels", "12", "--top-k", "3", "--texts", "40", "--rounds", "2", "--json"]
    found = report("shortlist", *small, "--data", str(tmp_path), "--set", "wants")
    assert (12, 3, 40, "wants") == tuple(found[key] for key in ("labels", "top_k", "texts", "set"))
    # An audit now and then scores all labels as well.
    assert 12.0 == found["pairs_per_message_all_labels"]
    assert 3.0 <= found["pairs_per_message_shortlist"] < 4.0
    assert found["median_ratio"] > 0
    assert 0 < found["same_top_label"] < 1  # scores of the fake engine: what is not scored often has the highest
    assert all(0 <= found[f"macro_f1_{name}"] <= 1 for name in ("all_labels", "shortlist"))


@pytest.mark.usefixtures("kafka")
def test_the_label_changes_bench_tells_what_a_version_each_second_costs_a_fleet() -> None:
    found = report("label-changes", "--engine", "fake", "--workers", "2", "--seconds", "2", "--rounds", "1", "--json")
    assert found["median_ratio"] > 0
    assert found["versions_seen"] > 0
    assert 0 == found["versions_bad_seen"]
    assert found["versions_seen"] <= found["versions_written"] - found["versions_bad"]


def test_the_engine_bench_tells_of_every_cell_and_workload() -> None:
    found = report("engine", "--engine", "fake", "--quick", "--messages", "4", "--json")
    assert 9 == len(found["grid"])
    assert {"tokens_per_pair", "pairs_per_batch", "pairs_per_second", "tokens_per_second"} <= set(found["grid"][0])
    assert [1024, 2048] == [row["token_budget"] for row in found["workloads"]]
    assert all(0 <= row["padding_ratio"] < 1 for row in found["workloads"])
