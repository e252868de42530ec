"""What the GPU benchmark has measured so far: one JSON object a line, appended as it goes, never measured twice."""

import json
import os
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_SHOWN_CHARACTERS = 400


class SkippedError(Exception):
    """Something that cannot be measured here, and is no failure: the message says what it lacks."""


class Journal:
    """One file of results, and how long this call may still begin something new."""

    def __init__(self, file: Path, seconds: float, *, again: bool = False) -> None:
        self._file = file
        self._ends = time.monotonic() + seconds
        self._is_again = again
        self.rows: list[Row] = _read(file)

    def begin(self, command: str, versions: dict[str, Any]) -> None:
        """Keep what measures from now on, and with what."""
        self._keep({"key": {"stage": "run"}, "command": command, "versions": versions})

    def measure(self, key: dict[str, Any], run: Callable[[], Row]) -> Row | None:
        """Run and keep what `key` names, unless it is known or the time is up; failures and skips are kept too."""
        known = next((row for row in self.rows if row["key"] == key and not {"error", "skipped"} & set(row)), None)
        if known is not None and not self._is_again:
            return known
        if time.monotonic() > self._ends:
            print(f"no time left for {json.dumps(key)}: run this stage again", flush=True)
            return None
        return self.open(key, run)

    def open(self, key: dict[str, Any], run: Callable[[], Row]) -> Row:
        """As `measure`, of what has to be done each time."""
        began = time.monotonic()
        row: Row
        try:
            row = {"key": key, **run()}
        except SkippedError as reason:
            row = {"key": key, "skipped": str(reason)[:500]}
        except Exception as error:  # noqa: BLE001  # the next measurement is to be tried all the same
            row = {"key": key, "error": f"{type(error).__name__}: {error}"[:500]}
            traceback.print_exc()
        row["seconds"] = round(time.monotonic() - began, 2)
        return self._keep(row)

    def left(self) -> float:
        """Seconds in which something new may still begin."""
        return max(0.0, self._ends - time.monotonic())

    def _keep(self, row: Row) -> Row:
        row["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.rows.append(row)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{json.dumps(row)}\n")
            stream.flush()
            os.fsync(stream.fileno())
        shown = json.dumps({name: value for name, value in row.items() if name != "layers"})
        print(shown[:_SHOWN_CHARACTERS], flush=True)
        return row


def _read(file: Path) -> list[Row]:
    """The rows of earlier calls; a last line that is not whole, because its call was killed, is taken away."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with file.open("r+b") as stream:
            stream.truncate(len(whole))
    return [json.loads(line) for line in whole.splitlines() if line.strip()]


def table(rows: list[Row]) -> str:
    """The pairs per second that were measured, as Markdown, and what measured them; the last of each kind counts."""
    last: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = row["key"]
        if key.get("stage") == "bench" and "pairs_per_second" in row:
            last[key["model"], key["engine"], key["precision"], key["workload"], str(key["budget"])] = row
    best: dict[tuple[str, ...], tuple[float, str]] = {}
    for (model, engine, precision, workload, budget), row in last.items():
        name = (model, engine, precision, workload)
        best[name] = max(best.get(name, (0.0, "")), (float(row["pairs_per_second"]), budget))
    return "\n".join([*_provenance(rows), *_HEAD, *_speeds(best), *_latencies(rows), *_missing(rows)])


_HEAD = ("| model | engine | precision | tokens | pairs/s | at budget |", "| --- | --- | --- | --- | --- | --- |")


def _provenance(rows: list[Row]) -> list[str]:
    """When, with which versions and by which commands; each of them once."""
    days = sorted({row["at"][:10] for row in rows if row["key"].get("stage") != "run" and "at" in row})
    if not days:
        return ["Nothing was measured yet.", ""]
    runs = [row for row in rows if row["key"].get("stage") == "run"]
    versions = dict.fromkeys(", ".join(f"{name} {said}" for name, said in row["versions"].items()) for row in runs)
    commands = dict.fromkeys(row["command"] for row in runs)
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return [f"Measured {span} with {'; '.join(versions)}, by", "", "```", *commands, "```", ""]


def _speeds(best: dict[tuple[str, ...], tuple[float, str]]) -> list[str]:
    return [f"| {' | '.join(name)} | {speed:,.0f} | {budget} |" for name, (speed, budget) in sorted(best.items())]


def _latencies(rows: list[Row]) -> list[str]:
    last = {tuple(row["key"].values()): row for row in rows if row["key"].get("stage") == "latency"}
    return [
        f"| {row['key']['model']} | {row['key']['engine']} | {row['key']['precision']} | 8 labels alone | "
        f"{row['median_ms']:.2f} ms (99 %: {row['p99_ms']:.2f}) | |"
        for row in last.values()
        if "median_ms" in row
    ]


def _missing(rows: list[Row]) -> list[str]:
    """What was tried last without a result: a table without these would look as if nobody had asked."""
    last = {json.dumps(row["key"], sort_keys=True): row for row in rows if row["key"].get("stage") != "run"}
    lines = []
    for row in last.values():
        told = f"skipped: {row['skipped']}" if "skipped" in row else f"failed: {row['error']}" if "error" in row else ""
        if told:
            lines.append(f"* {', '.join(str(value) for value in row['key'].values())}: {told}")
    return ["", *lines] if lines else []
