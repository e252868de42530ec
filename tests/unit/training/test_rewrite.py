"""A file without some rows is the same file without them: in each kind rows are counted as they are read."""

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ConfigError
from worker.training.data import read_objects
from worker.training.rewrite import copy_without

CELLS = st.text(st.sampled_from('ab",\t\n\r é'), max_size=6)
LEFT_OUT = st.sets(st.integers(0, 12))


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=10), LEFT_OUT, st.sampled_from([".csv", ".tsv"]))
def test_of_a_table_the_other_rows_stay_whatever_stands_in_its_cells(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], left_out: set[int], kind: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="," if kind == ".csv" else "\t")
    writer.writerows([["text", "label", "more"], *rows])
    folder = tmp_path_factory.mktemp("table")
    source = folder / f"x{kind}"
    source.write_text(text.getvalue(), encoding="utf-8", newline="")

    copy_without(source, folder / f"y{kind}.gz", left_out)

    read = list(read_objects(source))
    assert [row for n, row in enumerate(read) if n not in left_out] == list(read_objects(folder / f"y{kind}.gz"))
    copy_without(source, folder / f"z{kind}", ())
    assert source.read_bytes() == (folder / f"z{kind}").read_bytes()


@given(st.lists(st.one_of(st.just(""), st.just(" "), CELLS.map(lambda cell: json.dumps({"text": cell})))), LEFT_OUT)
def test_of_json_lines_the_other_lines_stay_and_blank_ones_do_not_count(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], left_out: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    source = folder / "x.jsonl.gz"
    with gzip.open(source, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(lines))

    copy_without(source, folder / "y.jsonl", left_out)

    read = list(read_objects(source))
    assert [row for n, row in enumerate(read) if n not in left_out] == list(read_objects(folder / "y.jsonl"))
    copy_without(source, folder / "z.jsonl", ())
    assert "\n".join(lines) == (folder / "z.jsonl").read_text()


def test_a_copy_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    (tmp_path / "y.jsonl").mkdir()

    with pytest.raises(ConfigError, match=r"y\.jsonl: cannot be written"):
        copy_without(tmp_path / "x.jsonl", tmp_path / "y.jsonl", ())

    assert {"x.jsonl", "y.jsonl"} == {file.name for file in tmp_path.iterdir()}
