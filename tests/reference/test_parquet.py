"""Parquet is read as the other formats are, a part at a time."""

from pathlib import Path

import pytest

from worker.training.data import Row, read_objects, read_rows
from worker.training.rewrite import copy_without
from worker.training.sets import ClassificationSet, Licence
from worker.training.tasks import Sampling, btzsc_tasks


def test_rows_of_parquet_are_those_that_were_written(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"text": f"text {n}", "label": n % 3} for n in range(3000)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=700)
    table = ClassificationSet(name="x", cluster="y", licence=Licence(name="z"))

    assert rows == list(read_objects(tmp_path / "x.parquet"))
    assert Row("text 7", "1") == list(read_rows(tmp_path / "x.parquet", table))[7]


def test_a_set_of_btzsc_is_read_from_a_folder_of_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {"text": f"text {n}", "hypothesis": said, "labels": int(said == "It is a.")}
        for n in range(5)
        for said in ("It is a.", "It is b.")
    ]
    (tmp_path / "imdb").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "imdb" / "test-00000-of-00001.parquet")

    (task,) = btzsc_tasks(tmp_path, Sampling())

    assert ("imdb", "sentiment", 5) == (task.name, task.cluster, len(task.rows))


def test_parquet_without_some_rows_keeps_its_columns_their_types_and_its_packing(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": n, "text": f"text {n}", "label": n % 3, "tags": ["a"] * (n % 2)} for n in range(2000)]
    parquet.write_table(
        pyarrow.Table.from_pylist(rows).cast(
            pyarrow.schema(
                [("id", "int16"), ("text", "string"), ("label", "int8"), ("tags", pyarrow.list_(pyarrow.string()))]
            )
        ),
        tmp_path / "x.parquet",
        row_group_size=700,
        compression="zstd",
    )

    copy_without(tmp_path / "x.parquet", tmp_path / "y.parquet", {0, 699, 700, 1999})

    source, copy = (parquet.ParquetFile(tmp_path / name) for name in ("x.parquet", "y.parquet"))
    assert source.schema_arrow == copy.schema_arrow
    assert "ZSTD" == copy.metadata.row_group(0).column(0).compression
    assert [row for row in rows if row["id"] not in {0, 699, 700, 1999}] == copy.read().to_pylist()
