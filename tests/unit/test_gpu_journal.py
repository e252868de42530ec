"""The GPU benchmark's results: kept as they come, taken up again, and never shown without what measured them."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_journal import Journal, SkippedError, table

KEY = {"stage": "bench", "model": "minilm", "engine": "tensorrt packed", "precision": "float16", "workload": "128"}
COMMAND = "python benchmarks/gpu.py --stage bench --model minilm"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def _speed(pairs: float) -> dict[str, Any]:
    return {"pairs_per_second": pairs}


def test_each_result_is_on_the_disk_before_the_next_begins_and_is_not_measured_again(file: Path) -> None:
    journal = Journal(file, 60.0)
    for budget in (2048, 4096):
        journal.measure({**KEY, "budget": budget}, lambda: {**_speed(len(file.read_bytes())), "at": ""})
    assert [json.loads(line)["key"]["budget"] for line in file.read_text().splitlines()] == [2048, 4096]
    again = Journal(file, 60.0)
    kept = again.measure({**KEY, "budget": 4096}, lambda: pytest.fail("measured again"))
    assert kept == again.rows[1]
    assert Journal(file, 60.0, again=True).measure({**KEY, "budget": 4096}, lambda: _speed(7.0)) != kept


def test_what_failed_or_was_skipped_is_told_and_tried_again_by_the_next_call(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, Any]:
        raise RuntimeError("not built: run --stage build first")

    def skip() -> dict[str, Any]:
        raise SkippedError("onnxruntime is not installed")

    journal = Journal(file, 60.0)
    journal.measure({"stage": "open", "engine": "tensorrt packed"}, fail)
    journal.measure({"stage": "open", "engine": "onnxruntime cuda"}, skip)
    told = table(journal.rows)
    assert "* open, tensorrt packed: failed: RuntimeError: not built: run --stage build first" in told
    assert "* open, onnxruntime cuda: skipped: onnxruntime is not installed" in told
    later = Journal(file, 60.0)
    assert later.measure({"stage": "open", "engine": "tensorrt packed"}, dict) is not None
    assert "failed" not in table(later.rows)
    assert "not built" in capsys.readouterr().err


def test_a_call_that_was_killed_while_it_wrote_costs_only_what_it_wrote(file: Path) -> None:
    Journal(file, 60.0).measure({**KEY, "budget": 2048}, lambda: _speed(5.0))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"key": {"stage": "ben')
    journal = Journal(file, 60.0)
    assert len(journal.rows) == 1
    journal.measure({**KEY, "budget": 4096}, lambda: _speed(6.0))
    assert [json.loads(line)["pairs_per_second"] for line in file.read_text().splitlines()] == [5.0, 6.0]


def test_nothing_new_begins_when_the_time_is_up(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Journal(file, -1.0).measure(KEY, lambda: pytest.fail("it began")) is None
    assert "run this stage again" in capsys.readouterr().out


def test_the_table_says_when_with_what_and_by_which_command(file: Path) -> None:
    assert table([]).startswith("Nothing was measured yet.")
    journal = Journal(file, 60.0)
    for pairs in (5.0, 9.0):
        journal.begin(COMMAND, {"GPU": "H200", "tensorrt": "11.2.1.2"})
        journal.measure({**KEY, "budget": int(pairs)}, lambda pairs=pairs: _speed(1000 * pairs))  # type: ignore[misc]  # bound
    said = table(Journal(file, 60.0).rows).splitlines()
    day = journal.rows[-1]["at"][:10]
    assert said[:5] == [f"Measured {day} with GPU H200, tensorrt 11.2.1.2, by", "", "```", COMMAND, "```"]
    assert "| minilm | tensorrt packed | float16 | 128 | 9,000 | 9 |" in said
