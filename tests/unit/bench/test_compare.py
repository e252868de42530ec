from pathlib import Path

import pytest

from worker.bench.arena import Route, Run, run_of
from worker.bench.compare_bench import summary
from worker.bench.contestants import Results
from worker.bench.curves import Curves
from worker.bench.peers import GLICLASS, QUIX, TRANSFORMERS_LOOP, peer_command
from worker.bench.text import lines_of, table
from worker.kafka.records import NO_EPOCH
from worker.types import Record


def results(*rates: float, labels: dict[int, str] | None = None) -> Results:
    runs = [Run(100, 100 / rate, (10.0, 20.0, 30.0), labels or {0: "a", 1: "b"}, frozenset({1})) for rate in rates]
    return Results(runs, [1.0] * len(runs), [200.0] * len(runs), runs[0], {"latency_load": 0.5})


def test_ratios_are_of_the_worker_to_the_others_and_of_the_same_round() -> None:
    found = summary({"worker": results(40, 80), "plain": results(10, 10), "odd": results(8, 40)}, labels=8)
    assert {"plain": 6.0, "odd": 3.5} == found["ratios"]


def test_every_contestant_has_throughput_and_latency() -> None:
    found = summary({"worker": results(40.0), "plain": results(10.0)}, labels=8)
    contestants = found["contestants"]
    assert isinstance(contestants, dict)
    worker = contestants["worker"]
    assert (40.0, 320.0, 20.0, 30.0) == tuple(
        worker[key] for key in ("messages_per_second", "pairs_per_second", "p50_ms", "p99_ms")
    )


def test_it_is_told_how_often_the_answers_are_the_same() -> None:
    found = summary({"worker": results(40, labels={0: "a", 1: "c"}), "plain": results(10)}, labels=8)
    contestants = found["contestants"]
    assert isinstance(contestants, dict)
    assert (0.5, 1.0) == (contestants["worker"]["same_label"], contestants["plain"]["same_label"])


@pytest.mark.parametrize("script", [TRANSFORMERS_LOOP, QUIX, GLICLASS])
def test_every_contestant_runs_in_an_environment_of_its_own(
    script: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    command = peer_command(script)  # type: ignore[arg-type]  # one of the three
    assert [str(uv), "run", "--quiet", "--no-project", "--with"] == command[:5]
    assert Path(command[-1]).is_file()


def test_points_of_the_curves_have_topics_of_their_own() -> None:
    bindings = Curves().bindings()
    topics = [binding.topic for _, bound in bindings.values() for binding in bound]
    assert len(topics) == len(set(topics)) == 4 + 3 + 9 + 2
    assert {2, 8, 30, 150} == {len(binding.labels) for _, bound in bindings.values() for binding in bound}


def test_a_route_names_what_the_worker_writes() -> None:
    route = Route(("a", "b"))
    assert ("a.predictions", "b.predictions") == route.outputs
    assert ("a.dlq", "b.dlq") == route.dead_letters


def test_a_table_has_a_column_per_key_and_numbers_of_four_digits() -> None:
    assert ["  name   rate", "worker  12.35"] == table([{"name": "worker", "rate": 12.3456}])
    assert [] == table([])


def test_a_report_for_people_names_its_tables() -> None:
    report = {"bench": "x", "machine": {"cores": 2}, "rows": [{"a": 1.0}], "by_name": {"n": {"a": 2.0}}}
    assert ["bench: x", "machine: cores 2", "", "rows", "a", "1", "", "by_name", "   a", "n  2"] == lines_of(
        report, tables=("rows", "by_name")
    )


def came_back(number: int, value: bytes) -> Record:
    return Record("out", 0, number, NO_EPOCH, str(number).encode(), value, (), 1_000)


def test_what_a_peer_publishes_counts_without_a_label_schema() -> None:
    ours = came_back(0, b'{"label": "a", "schema": {"name": "s", "version": 7}}')
    peers = came_back(1, b'{"label": "b"}')
    run = run_of([ours, peers], [1_010.0, 1_030.0], 2.0)
    assert ({0: "a", 1: "b"}, frozenset({7}), (10.0, 30.0)) == (run.labels, run.label_versions, run.latencies_ms)
