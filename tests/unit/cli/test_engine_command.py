import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.plans import build_tiny, write_folder
from worker.cli.engine import lengths_in
from worker.cli.engine_text import BuildPrinter, plan_as_text
from worker.cli.main import build_app
from worker.engines import trt_api
from worker.errors import ConfigError, EngineError
from worker.types import JsonValue


def _run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(build_app(), ["engine", *arguments])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    return outcome.exit_code, outcome.stdout


def test_an_engine_is_described_with_what_the_gate_measured(tmp_path: Path) -> None:
    code, said = _run("info", "bundled", "--cache-dir", str(tmp_path), "--json")
    described = json.loads(said)
    assert code == 0
    assert (described["engine"], described["gate"]["passed"], described["gate"]["label_flips"]) == ("openvino", True, 0)
    code, said = _run("info", "bundled", "--cache-dir", str(tmp_path))
    assert code == 0
    for promised in ("gate: passed", "largest logit error", "between batches", "labels changed"):
        assert promised in said


def test_verifying_measures_anew(tmp_path: Path) -> None:
    """What is remembered is made to lie: a fresh look does not believe it."""
    _run("info", "bundled", "--cache-dir", str(tmp_path))
    (verdict,) = (tmp_path / "gate").glob("*.json")
    told = json.loads(verdict.read_text())
    verdict.write_text(json.dumps(told | {"pairs": 1_000_000}))
    assert json.loads(_run("info", "bundled", "--cache-dir", str(tmp_path), "--json")[1])["gate"]["pairs"] == 1_000_000
    verified = json.loads(_run("verify", "bundled", "--cache-dir", str(tmp_path), "--json")[1])
    assert verified["gate"] == told


def test_the_kept_plans_are_listed_with_their_gate(tmp_path: Path) -> None:
    assert _run("info", "--cache-dir", str(tmp_path)) == (0, "no plan is kept\n")
    stored = build_tiny(tmp_path / "plans", "packed")
    code, said = _run("info", "--cache-dir", str(tmp_path), "--json")
    (kept,) = json.loads(said)
    assert (code, kept["plan"], kept["layout"], kept["fused_attention"]) == (0, stored.folder.name, "packed", 2)
    assert "gate: not yet measured; not used before it is" in _run("info", "--cache-dir", str(tmp_path))[1]


def test_a_plan_that_did_not_pass_says_why() -> None:
    gate: dict[str, JsonValue] = {
        "passed": False,
        "reason": "logits differ",
        "largest_logit_error": 0.5,
        "label_flips": 3,
    }
    said = plan_as_text({"plan": "abc", "gpu": ["H200"], "gate": gate})
    assert "NOT passed: logits differ; logits within 0.5 of float32, 3 labels changed" in said


def test_building_without_the_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt_api, "_MODULES", ("no_such_module",))
    folder = write_folder(tmp_path / "model")
    with pytest.raises(EngineError, match=r"nli-stream-worker\[tensorrt\]"):
        _run("build", str(folder.path), "--cache-dir", str(tmp_path))


@pytest.mark.parametrize("text", ["64,x", "0", "-3", "64,,y"])
def test_buckets_that_are_no_lengths_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--buckets"):
        lengths_in(text)


def test_buckets_are_read_from_a_line() -> None:
    assert lengths_in("64, 128,256") == (64, 128, 256)
    assert lengths_in(None) == ()


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildPrinter(is_quiet=False) as printer:
        printer.show("reading", 0.0)
        printer.show("building", 0.5)
        printer.show("building", 1.0)
    assert capsys.readouterr() == ("", "")
