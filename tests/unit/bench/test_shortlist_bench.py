"""A shortlist next to all labels, as the worker decided."""

from pathlib import Path

import pytest

from worker.bench.arena import Run
from worker.bench.shortlist_bench import ALL, FEW, Material, ShortlistBench, comparison, run_shortlist_bench
from worker.engines.load import EngineChoice
from worker.errors import ConfigError


def run(rate: float, *labels: str) -> Run:
    return Run(len(labels), len(labels) / rate, (1.0,), dict(enumerate(labels)), frozenset({1}))


FOUND = {
    ALL: [(run(10, "a", "b", "b", "a"), 600.0), (run(20, "a", "b", "b", "a"), 600.0), (run(40, *"abba"), 600.0)],
    FEW: [(run(50, "a", "b", "a", "a"), 100.0), (run(60, "a", "b", "a", "a"), 100.0), (run(80, *"abbb"), 100.0)],
}


def test_the_ratio_is_of_the_same_round_and_the_share_of_all_messages() -> None:
    report = comparison(FOUND, None)
    assert 3.0 == report["median_ratio"]  # of 5, 3 and 2
    assert (20.0, 60.0) == (report["messages_per_second_all_labels"], report["messages_per_second_shortlist"])
    assert 9 / 12 == report["same_top_label"]
    assert (150.0, 25.0) == (report["pairs_per_message_all_labels"], report["pairs_per_message_shortlist"])
    assert not [key for key in report if key.startswith("macro_f1")]


def test_where_the_right_labels_are_known_each_has_its_f1() -> None:
    found = {ALL: FOUND[ALL][:1], FEW: FOUND[FEW][:1]}
    report = comparison(found, ("a", "b", "b", "a"))
    assert 1.0 == report["macro_f1_all_labels"]
    assert pytest.approx((4 / 5 + 2 / 3) / 2) == report["macro_f1_shortlist"]


def test_made_texts_have_no_right_label_and_as_many_labels_as_asked_for() -> None:
    made = Material.of(ShortlistBench(EngineChoice(), labels=30, texts=20))
    assert (20, 30, None) == (len(made.texts), len(made.labels), made.truth)


def test_a_shortlist_of_all_labels_and_a_set_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--top-k"):
        run_shortlist_bench(ShortlistBench(EngineChoice(), labels=8, top_k=8), lambda _line: None)
    with pytest.raises(ConfigError, match="--data"):
        Material.of(ShortlistBench(EngineChoice(), data=tmp_path))
