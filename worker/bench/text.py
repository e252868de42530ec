"""A report as people read it on a terminal."""

from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The rows as lines, one column per key of the first row, numbers to the right."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def lines_of(report: Mapping[str, object], *, tables: Sequence[str] = ()) -> list[str]:
    """The whole report: what is a number or a text first, then each of `tables` under its name."""
    lines = [f"{key}: {_cell(value)}" for key, value in report.items() if not isinstance(value, Mapping | list)]
    for key, value in report.items():
        if isinstance(value, Mapping) and key not in tables:
            lines.append(f"{key}: {', '.join(f'{name} {_cell(each)}' for name, each in value.items())}")
    for name in tables:
        rows = report.get(name)
        if isinstance(rows, list) and rows:
            lines += ["", name, *table(rows)]
        elif isinstance(rows, Mapping) and rows:
            lines += ["", name, *table([{"": key, **each} for key, each in rows.items() if isinstance(each, Mapping)])]
    return lines


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping | list | tuple):
        return "…"
    return "-" if value is None else str(value)
