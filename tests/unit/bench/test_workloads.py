import gzip
import json
from pathlib import Path

import pytest

from worker.bench.workloads import (
    KINDS,
    MOST_LABELS,
    Kind,
    Recipe,
    drawn_texts,
    label_names,
    made_texts,
    marked,
    with_repeats,
    workload,
)
from worker.errors import ConfigError


def words(texts: list[str]) -> list[int]:
    return sorted(len(text.split()) for text in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_made_texts_are_the_same_each_time_and_no_two_alike(kind: Kind) -> None:
    first = made_texts(kind, 50, seed=3)
    assert first == made_texts(kind, 50, seed=3)
    assert first != made_texts(kind, 50, seed=4)
    assert 50 == len(set(first))


def test_few_made_texts_have_the_lengths_of_many() -> None:
    few, many = words(made_texts("mixed", 20, 0)), words(made_texts("mixed", 2000, 0))
    assert few[10] == pytest.approx(many[1000], rel=0.2)
    assert sum(few) / 20 == pytest.approx(sum(many) / 2000, rel=0.2)


def test_kinds_differ_in_length() -> None:
    short, mixed, long = (sum(words(made_texts(kind, 200, 0))) for kind in KINDS)
    assert short < mixed < long


def test_labels_are_all_different() -> None:
    assert MOST_LABELS == len(set(label_names(MOST_LABELS))) == 150
    assert label_names(150)[:8] == label_names(8)


@pytest.mark.parametrize("count", [0, MOST_LABELS + 1])
def test_more_labels_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="--labels"):
        label_names(count)


def test_repeats_are_copies_of_earlier_texts_in_about_the_share_asked_for() -> None:
    texts = [str(number) for number in range(2000)]
    found = with_repeats(texts, 0.3, seed=1)
    seen: set[str] = set()
    repeated = 0
    for text in found:
        repeated += text in seen
        seen.add(text)
    assert 2000 == len(found)
    assert 0.3 == pytest.approx(repeated / 2000, abs=0.04)
    assert texts == with_repeats(texts, 0.0, seed=1)


def test_texts_are_drawn_evenly_over_length_from_files_of_both_formats(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": "x" * size, "label": "a"}) + "\n" for size in range(1, 101))
    with gzip.open(tmp_path / "one.test.jsonl.gz", "wt") as file:
        file.write(lines)
    (tmp_path / "two.txt").write_text("\n".join("y" * size for size in range(1, 101)) + "\n\n")
    for source in (tmp_path, tmp_path / "two.txt"):
        assert [5, 15, 25, 35, 45, 55, 65, 75, 85, 95] == pytest.approx(
            sorted(map(len, drawn_texts(source, "mixed", 10, seed=0))), abs=2
        )


def test_a_separator_that_json_allows_does_not_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one\u2028two"}\n', encoding="utf-8")
    assert ["one\u2028two"] == drawn_texts(tmp_path / "a.jsonl", "mixed", 1, 0)


def test_short_and_long_texts_of_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("s" * 280 + "\n" + "m" * 600 + "\n" + "l" * 1000 + "\n")
    assert {"s"} == {text[0] for text in drawn_texts(tmp_path, "short", 4, 0)}
    assert {"l"} == {text[0] for text in drawn_texts(tmp_path, "long", 4, 0)}


def test_files_without_a_fitting_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\n")
    with pytest.raises(ConfigError, match="no text"):
        drawn_texts(tmp_path, "long", 1, 0)
    with pytest.raises(ConfigError, match="no such"):
        drawn_texts(tmp_path / "absent", "long", 1, 0)


def test_a_workload_says_where_its_texts_come_from_and_what_it_costs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short\n")
    assert "a.txt" == workload(Recipe(source=tmp_path / "a.txt", texts=2)).origin
    made = workload(Recipe("short", texts=10, labels=3))
    assert (30, "made, by measured length quantiles") == (made.pairs, made.origin)


def test_no_two_runs_have_a_text_in_common_and_repeats_stay_repeats() -> None:
    texts = ["a", "b", "a"]
    runs = [marked(texts, number) for number in range(676)]
    assert 2 * 676 == len({text for run in runs for text in run})
    assert all(first == third != second for first, second, third in runs)
    assert {3} == {len(text.split()) for run in runs for text in run}
