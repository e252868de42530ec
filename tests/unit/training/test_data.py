"""Rows are read one by one, kept within caps, drawn fairly, and broken files are named."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.training_data import write_rows
from worker.errors import ConfigError
from worker.training.data import Caps, NliRow, Row, keep_pairs, keep_rows, read_nli, read_objects, read_rows, stratified
from worker.training.sets import ClassificationSet, Licence, NliSet

LICENCE = Licence(name="made up")


def _table(**more: object) -> ClassificationSet:
    return ClassificationSet.model_validate({"name": "x", "cluster": "y", "licence": LICENCE, **more})


def test_json_lines_and_csv_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"text": 'a "quoted", text', "label": "yes"}, {"text": "two\nlines", "label": "no"}]
    zipped = write_rows(tmp_path / "x.jsonl.gz", rows)
    plain = tmp_path / "x.jsonl"
    plain.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    table = tmp_path / "x.csv.gz"
    with gzip.open(table, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)

    assert rows == list(read_objects(zipped)) == list(read_objects(plain)) == list(read_objects(table))


def test_columns_may_have_other_names_and_a_class_may_be_left_out(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl.gz", [{"t": "one", "l": 0}, {"t": "two", "l": 1}, {"t": " ", "l": 0}])
    table = _table(columns={"text": "t", "label": "l"}, labels={"1": None})

    assert [Row("one", "0")] == list(read_rows(file, table))


def test_a_pair_without_a_gold_label_is_passed_over(tmp_path: Path) -> None:
    rows = [{"premise": "a", "hypothesis": "b", "label": label} for label in ("entailment", "-", "neutral", None)]
    file = write_rows(tmp_path / "x.jsonl.gz", rows)

    assert [NliRow("a", "b", True), NliRow("a", "b", False)] == list(read_nli(file, NliSet(name="x", licence=LICENCE)))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", "{broken", "line 1: expected JSON"),
        ("x.jsonl", "[1]", "line 1: expected an object"),
        ("x.jsonl", '{"text": "a"}', "row 1 has no column label"),
        ("x.xml", "", "expected a file .jsonl"),
        ("x.parquet", "no parquet", "Parquet"),
        ("x.jsonl.gz", "not zipped", "cannot be read"),
        ("x.jsonl", "[" * 100_000, "line 1: expected JSON"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        list(read_rows(file, _table()))


def test_a_zipped_file_that_was_damaged_is_named(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x.jsonl.gz", [{"text": f"text {n}", "label": "a"} for n in range(500)])
    content = bytearray(file.read_bytes())
    content[100:140] = b"\xff" * 40
    file.write_bytes(content)

    with pytest.raises(ConfigError, match=r"x\.jsonl\.gz"):
        list(read_rows(file, _table()))


def test_the_mark_that_spreadsheets_put_in_front_of_a_file_is_no_part_of_its_first_column(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na text,a\n", encoding="utf-8-sig")

    assert [Row("a text", "a")] == list(read_rows(tmp_path / "x.csv", _table()))


def test_a_missing_file_is_named_with_the_option_that_moves_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; --data names the folder"):
        list(read_rows(tmp_path / "none.jsonl", _table()))
    with pytest.raises(ConfigError, match=r"there is no such file$"):
        list(read_objects(tmp_path / "none.jsonl"))


@given(st.lists(st.sampled_from("abc"), max_size=60), st.integers(1, 8), st.integers(1, 12))
def test_no_cap_is_ever_passed_and_nothing_is_lost_below_it(labels: list[str], per_class: int, per_set: int) -> None:
    rows = [Row(f"text {number}", label) for number, label in enumerate(labels)]

    kept = keep_rows(iter(rows), Caps(per_class, per_set), seed=1)

    counts = Counter(row.label for row in kept)
    assert all(count <= per_class for count in counts.values())
    assert len(kept) == min(per_set, sum(min(per_class, count) for count in Counter(labels).values()))
    assert set(kept) <= set(rows)


def test_a_text_that_comes_twice_is_kept_once() -> None:
    assert 1 == len(keep_rows([Row("same", "a"), Row("same", "b")], Caps(), seed=1))


def test_every_row_of_a_class_is_as_likely_to_be_kept() -> None:
    rows = [Row(f"text {number}", "a") for number in range(20)]

    seen = Counter(row.text for seed in range(2000) for row in keep_rows(rows, Caps(per_class=5), seed))

    # 500 expected each; 6 standard deviations of a binomial are 116.
    assert all(384 < seen[row.text] < 616 for row in rows)


def test_pairs_that_are_sorted_in_the_file_come_shuffled_and_the_same_each_time() -> None:
    rows = [NliRow(f"premise {number}", "h", True) for number in range(50)]

    assert keep_pairs(rows, None, 3) == keep_pairs(rows, None, 3)
    assert rows != keep_pairs(rows, None, 3)
    assert set(rows) == set(keep_pairs(rows, None, 3))
    assert 7 == len(keep_pairs(rows, 7, 3))


@given(st.lists(st.sampled_from("aaaaabbc"), min_size=1, max_size=80), st.integers(1, 40))
def test_a_stratified_sample_has_every_class_in_its_share(labels: list[str], limit: int) -> None:
    rows = [Row(f"text {number}", label) for number, label in enumerate(labels)]

    sample = stratified(rows, limit, seed=5)

    whole, drawn = Counter(labels), Counter(row.label for row in sample)
    assert len(sample) == min(limit, len(rows))
    assert sample == [row for row in rows if row in set(sample)]
    if limit >= len(whole):
        assert set(whole) == set(drawn)
        for label, count in whole.items():
            assert abs(drawn[label] - count * len(sample) / len(rows)) <= len(whole)
