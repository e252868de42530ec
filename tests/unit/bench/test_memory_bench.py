"""The size over the time: the arithmetic, and texts of which none comes twice."""

import pytest

from worker.bench.machine import Usage
from worker.bench.memory_bench import (
    NEW_WORDS,
    FreshTexts,
    MemoryBench,
    kept_scores_bytes,
    shown,
    sizes_of,
    slope_per_hour,
)
from worker.bench.workloads import Recipe
from worker.engines.load import EngineChoice
from worker.pipeline.score_cache import ENTRY_BYTES
from worker.settings import Batching


def test_the_slope_is_of_the_second_half_alone() -> None:
    """A worker that fills up for half an hour and grows by 4 MiB an hour from then on."""
    grows = [(60.0 * minute, 100.0 + 10 * minute) for minute in range(30)]
    rests = [(60.0 * minute, 400.0 + 4 * minute / 60) for minute in range(30, 61)]
    assert 4.0 == pytest.approx(slope_per_hour([*grows, *rests]))


def test_the_slope_is_of_the_line_of_least_squares() -> None:
    """Through the ends alone it would be 1 MiB an hour."""
    samples = [(0.0, 90.0), (3 * 3600.0, 1.0), (4 * 3600.0, 3.0), (5 * 3600.0, 2.0), (6 * 3600.0, 4.0)]
    assert 0.8 == pytest.approx(slope_per_hour(samples))


@pytest.mark.parametrize("samples", [[], [(0.0, 1.0)]])
def test_there_is_no_slope_of_less_than_two_samples(samples: list[tuple[float, float]]) -> None:
    assert slope_per_hour(samples) is None


def test_first_last_and_largest_size_are_told_with_every_sample() -> None:
    found = sizes_of(Usage(samples=[(0.0, 100.0), (60.0, 500.0), (120.0, 300.0)]))
    assert (100.0, 300.0, 500.0, 2.0) == tuple(
        found[key] for key in ("rss_first_mib", "rss_last_mib", "rss_max_mib", "minutes")
    )
    assert [0.0, 1.0, 2.0] == [each["minute"] for each in samples_of(found)]


def samples_of(report: dict[str, object]) -> list[dict[str, float]]:
    samples = report["samples"]
    assert isinstance(samples, list)
    return samples


def test_a_dozen_samples_are_shown_the_first_and_the_last_among_them() -> None:
    many = shown(sizes_of(Usage(samples=[(60.0 * number, 1.0) for number in range(361)])))
    minutes = [each["minute"] for each in samples_of(many)]
    assert (12, 0.0, 360.0) == (len(minutes), minutes[0], minutes[-1])
    assert 3 == len(samples_of(shown(sizes_of(Usage(samples=[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])))))


def test_no_text_comes_twice_and_each_has_words_that_were_in_no_other() -> None:
    texts = FreshTexts(Recipe("short", labels=2))
    taken = [text for _ in range(4) for text in texts.take(50)]
    assert 200 == len(set(taken)) == texts.taken
    fresh = [word for text in taken for word in text.split()[:NEW_WORDS]]
    assert 200 * NEW_WORDS == len(set(fresh))
    assert all(word.isdecimal() for word in fresh)


def test_kept_scores_are_at_their_bound_after_a_quarter_of_the_messages_and_never_above_the_workers_own() -> None:
    assert 100 * 8 * ENTRY_BYTES == kept_scores_bytes(400, 8)
    assert Batching().cache_bytes == kept_scores_bytes(10**9, 8)
    assert kept_scores_bytes(1, 1) > 0


def test_a_size_is_taken_each_ten_seconds_or_a_dozen_times() -> None:
    bench = MemoryBench(EngineChoice(), Recipe(), minutes=60)
    assert 10.0 == bench.sample_seconds
    assert 5.0 == bench.quickly().sample_seconds
