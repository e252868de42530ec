"""The benchmark for GPUs goes through all of its stages where there is none, and goes on where it stopped."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "onnxscript")),
        reason="needs torch, transformers, onnxscript: uv run --group reference pytest -m reference",
    ),
]

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
PLANS = {"tensorrt padded", "tensorrt lengths", "tensorrt packed", "tensorrt packed float8"}
TORCH = {"torch transformers", "torch padded", "torch packed", "torch compiled"}


def _run(root: Path, *options: str) -> str:
    command = [sys.executable, str(SCRIPT), "--dry", "--seconds", "3600", "--root", str(root), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _rows(root: Path, stage: str) -> list[dict[str, Any]]:
    lines = (root / "dry" / "results.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["key"]["stage"] == stage]


def _done(rows: list[dict[str, Any]]) -> set[str]:
    """Engines with a result; what is not one of them has to say what it lacks."""
    assert [row for row in rows if "error" in row] == []
    return {row["key"]["engine"] for row in rows if "skipped" not in row}


@pytest.mark.soak
def test_every_stage_goes_through_without_a_gpu_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    for stage in ("build", "parity", "bench"):
        told = _run(tmp_path, "--stage", stage, "--model", "minilm")
    assert _done(_rows(tmp_path, "build")) == PLANS
    has_ort = importlib.util.find_spec("onnxruntime") is not None
    engines = PLANS | TORCH | ({"onnxruntime cuda"} if has_ort else set())
    assert _done(_rows(tmp_path, "parity")) == engines
    assert all(row["passed"] for row in _rows(tmp_path, "parity") if row["key"]["engine"] == "tensorrt packed")
    assert _done(_rows(tmp_path, "latency")) == engines
    assert _done(_rows(tmp_path, "bench")) == engines | {"transformers pipeline"}
    assert has_ort or "onnxruntime cuda: skipped: onnxruntime is not installed" in told
    assert "Nothing below is a measurement." in told
    assert "--stage bench --model minilm" in told
    assert "tensorrt 11.2.1.2" in told
    before = len(_rows(tmp_path, "bench"))
    _run(tmp_path, "--stage", "bench", "--model", "minilm")
    assert len(_rows(tmp_path, "bench")) == before


def test_the_probe_asks_every_question_in_a_process_of_its_own(tmp_path: Path) -> None:
    told = _run(tmp_path, "--stage", "probe")
    rows = {row["key"]["question"]: row for row in _rows(tmp_path, "probe")}
    assert [name for name, row in rows.items() if "error" in row] == []
    assert rows["builder"]["made"] is True
    assert rows["attention:packed:float16:64"]["recorded_differs_by"] == 0.0
    assert "probe, varlen: skipped: torch's packed attention runs on a GPU only" in told
