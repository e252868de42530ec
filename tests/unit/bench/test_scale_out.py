"""One process next to several: who is compared with whom, and what comes of it."""

import pytest

from worker.bench.arena import PARTITIONS, Run, partitions_for
from worker.bench.machine import Usage
from worker.bench.scale_out import ScaleOutBench, rows_of, run_scale_out_bench
from worker.bench.subject import Binding, routed
from worker.bench.workloads import Recipe
from worker.engines.load import EngineChoice
from worker.errors import ConfigError


def runs(*rates: float, cpu_seconds: float = 1.0, peak: float = 300.0) -> list[tuple[Run, Usage]]:
    return [
        (Run(100, 100 / rate, (1.0,), {0: "a"}, frozenset({1})), Usage(cpu_seconds, peak - number))
        for number, rate in enumerate(rates)
    ]


def test_the_ratio_is_to_the_first_number_of_processes_and_of_the_same_round() -> None:
    one, two = rows_of({1: runs(10, 20, 40), 2: runs(40, 30, 60)})
    assert (1, 1.0, 20.0) == (one["processes"], one["median_ratio"], one["messages_per_second"])
    # By the medians, 40 and 20, it would be 2.
    assert (2, 1.5, 40.0) == (two["processes"], two["median_ratio"], two["messages_per_second"])


def test_cores_and_cpu_are_of_the_run_and_the_size_is_the_largest() -> None:
    [row] = rows_of({1: runs(50, 50, 50, cpu_seconds=3.0)})
    assert (1.5, 30.0, 300.0) == tuple(row[key] for key in ("cpu_cores", "cpu_ms_per_message", "peak_rss_mib"))


@pytest.mark.parametrize(("workers", "expected"), [((1,), 4), ((1, 2), 4), ((3,), 6), ((2, 3), 6), ((1, 8), 8)])
def test_every_number_of_processes_has_equal_shares_of_the_partitions(workers: tuple[int, ...], expected: int) -> None:
    found = partitions_for(workers)
    assert expected == found >= PARTITIONS
    assert all(found % count == 0 for count in workers)
    assert found == routed("a", ["b"], partitions=found)[0].partitions


@pytest.mark.parametrize("workers", [(2,), (), (2, 2)])
def test_there_have_to_be_two_different_numbers_of_processes(workers: tuple[int, ...]) -> None:
    bench = ScaleOutBench(EngineChoice(engine="fake"), Recipe(), workers)
    with pytest.raises(ConfigError, match="--workers"):
        run_scale_out_bench(bench, lambda _line: None)


def test_a_schema_has_the_name_of_its_topic_whoever_made_it() -> None:
    made = Binding("here", ("a", "b"), {"name": "other", "shortlist": {"top_k": 1}})
    assert {"name": "here", "shortlist": {"top_k": 1}} == made.document
    plain = Binding("here", ("a", "b")).document
    assert ("here", [{"name": "a"}, {"name": "b"}]) == (plain["name"], plain["labels"])
