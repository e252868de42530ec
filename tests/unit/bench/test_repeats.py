"""The comparison of the score cache with none."""

import json

import pytest

from worker.bench.repeats import main, measure
from worker.bench.workloads import Recipe


def test_texts_that_come_again_are_found_and_others_are_not() -> None:
    some = measure(Recipe("short", texts=60, labels=2, repeated=0.5), rounds=1)
    none = measure(Recipe("short", texts=20, labels=2), rounds=1)
    assert 0.3 < some.cached_share < 0.7
    assert (0.0, 1) == (none.cached_share, none.rounds)
    assert 0 < some.speed_ratio


def test_it_prints_one_json_object_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--messages", "10", "--labels", "2", "--rounds", "1"]
    assert 0 == main([*asked, "--json"])
    assert {"speed_ratio", "cached_share"} <= json.loads(capsys.readouterr().out).keys()
    assert 0 == main(asked)
    assert "speed_ratio" in capsys.readouterr().out
