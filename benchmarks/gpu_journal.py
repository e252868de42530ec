"""What the GPU benchmark has measured so far: one JSON object a line, appended as it goes, never measured twice."""

import json
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Journal:
    """One file of results, and how long this call may still begin something new."""

    def __init__(self, file: Path, seconds: float, *, again: bool = False) -> None:
        self._file = file
        self._ends = time.monotonic() + seconds
        self._is_again = again
        self.rows: list[Row] = []
        if file.is_file():
            self.rows = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]

    def measure(self, key: dict[str, Any], run: Callable[[], Row]) -> Row | None:
        """Run and keep what `key` names, unless it is known or the time is up; a failure is kept too."""
        known = next((row for row in self.rows if row["key"] == key and "error" not in row), None)
        if known is not None and not self._is_again:
            return known
        if time.monotonic() > self._ends:
            print(f"no time left for {json.dumps(key)}: run this stage again", flush=True)
            return None
        began = time.monotonic()
        try:
            row = {"key": key, **run()}
        except Exception as error:  # noqa: BLE001  # the next measurement is to be tried all the same
            row = {"key": key, "error": f"{type(error).__name__}: {error}"[:500]}
            traceback.print_exc()
        row["seconds"] = round(time.monotonic() - began, 2)
        row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.rows.append(row)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(row)}\n")
        print(json.dumps({name: value for name, value in row.items() if name != "layers"})[:400], flush=True)
        return row

    def left(self) -> float:
        """Seconds in which something new may still begin."""
        return max(0.0, self._ends - time.monotonic())


def table(rows: list[Row]) -> str:
    """The pairs per second that were measured, as Markdown; the last of each kind counts."""
    last: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = row["key"]
        if key.get("stage") == "bench" and "pairs_per_second" in row:
            last[key["model"], key["engine"], key["precision"], key["workload"], str(key["budget"])] = row
    best: dict[tuple[str, ...], tuple[float, str]] = {}
    for (model, engine, precision, workload, budget), row in last.items():
        name = (model, engine, precision, workload)
        best[name] = max(best.get(name, (0.0, "")), (float(row["pairs_per_second"]), budget))
    return "\n".join([*_HEAD, *_speeds(best), *_latencies(rows)])


_HEAD = ("| model | engine | precision | tokens | pairs/s | at budget |", "| --- | --- | --- | --- | --- | --- |")


def _speeds(best: dict[tuple[str, ...], tuple[float, str]]) -> list[str]:
    return [f"| {' | '.join(name)} | {speed:,.0f} | {budget} |" for name, (speed, budget) in sorted(best.items())]


def _latencies(rows: list[Row]) -> list[str]:
    return [
        f"| {row['key']['model']} | {row['key']['engine']} | {row['key']['precision']} | 8 labels alone | "
        f"{row['median_ms']:.2f} ms (99 %: {row['p99_ms']:.2f}) | |"
        for row in rows
        if row["key"].get("stage") == "latency" and "median_ms" in row
    ]
