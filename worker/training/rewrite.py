"""A data file once more without some of its rows; what stays is as it was, to the byte where the file is text."""

import csv
import gzip
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

from worker.errors import ConfigError
from worker.training.data import DELIMITERS, csv_lines, kind_of, open_text

_MARK = b"\xef\xbb\xbf"
"""Spreadsheets put it in front of UTF-8."""


def copy_without(source: Path, target: Path, left_out: Collection[int]) -> None:
    """Write `source`, which `read_objects` can read, to `target`, a file of its kind, without the rows `left_out`.

    They are numbered from 0 as they are read. `target` appears whole or not at all.

    Raises:
        ConfigError: `target` cannot be written.
    """
    part = target.with_name(f".part.{target.name}")
    try:
        if kind_of(source) == ".parquet":
            _copy_parquet(source, part, left_out)
        else:
            _copy_text(source, part, left_out)
        part.replace(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        part.unlink(missing_ok=True)


def _copy_text(source: Path, target: Path, left_out: Collection[int]) -> None:
    delimiter = DELIMITERS.get(kind_of(source) or "")
    encoding = "utf-8-sig" if _has_mark(source) else "utf-8"
    opened = gzip.open if target.name.endswith(".gz") else open
    with open_text(source) as stream, opened(target, "wt", encoding=encoding, newline="") as copy:
        number = 0
        for raw, is_row in _json_records(stream) if delimiter is None else _csv_records(stream, delimiter):
            if not is_row or number not in left_out:
                copy.write(raw)
            number += is_row


def _json_records(stream: TextIO) -> Iterator[tuple[str, bool]]:
    """Each line, and whether it is a row."""
    return ((line, bool(line.strip())) for line in stream)


def _csv_records(stream: TextIO, delimiter: str) -> Iterator[tuple[str, bool]]:
    """The lines of each record together, and whether it is a row: the header is none, nor is a blank line."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in stream:
            taken.append(line)
            yield line

    is_header = True
    for record in csv.reader(csv_lines(lines()), delimiter=delimiter):
        yield "".join(taken), bool(record) and not is_header
        taken.clear()
        is_header = False


def _has_mark(path: Path) -> bool:
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as stream:
        return bool(stream.read(len(_MARK)) == _MARK)


def _copy_parquet(source: Path, target: Path, left_out: Collection[int]) -> None:
    import pyarrow.parquet  # noqa: PLC0415  # optional; without it the source could not have been read

    with pyarrow.parquet.ParquetFile(source) as file:
        groups = range(file.num_row_groups)
        packing = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        with pyarrow.parquet.ParquetWriter(
            target, file.schema_arrow, compression="NONE" if packing == "UNCOMPRESSED" else packing
        ) as copy:
            first = 0
            for group in groups:
                table = file.read_row_group(group)
                stays = [number not in left_out for number in range(first, first + len(table))]
                copy.write_table(table.filter(stays))
                first += len(table)
