import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.bench.figures import alternating, median, median_ratio, percentile, report_of, seconds_in_line


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert 3.0 == percentile(values, 0.5)
    assert 5.0 == percentile(values, 0.99)
    assert 1.0 == percentile(values, 0.0)


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_at_least_the_share_of_all_values_lies_at_or_below_the_percentile(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_in_line_a_job_waits_for_what_is_left_of_those_before_it() -> None:
    assert [0.5, 0.5, 3.0, 2.5, 2.0, 1.0] == seconds_in_line([0.5, 0.5, 3.0, 0.5, 0.5, 0.0], rate=1.0)
    assert [0.5, 0.5] == seconds_in_line([0.5, 0.5], rate=2.0)


def test_everybody_runs_once_per_round_and_another_one_begins() -> None:
    rounds = list(alternating(["a", "b", "c"], 3))
    assert ["a", "b", "c", "b", "c", "a", "c", "a", "b"] == [name for _, name in rounds]
    assert [0, 0, 0, 1, 1, 1, 2, 2, 2] == [number for number, _ in rounds]


def test_the_ratio_is_taken_within_each_round() -> None:
    assert 2.0 == median_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 50.0])


def test_the_median_of_two_is_their_mean() -> None:
    assert 1.5 == median([1.0, 2.0])


def test_a_report_has_four_digits_however_deep_and_no_infinity() -> None:
    report = report_of({"a": 1.23456789, "b": {"c": [0.000123456, math.inf]}, "d": "text", "e": 7, "f": None})
    assert {"a": 1.235, "b": {"c": [0.0001235, None]}, "d": "text", "e": 7, "f": None} == report
