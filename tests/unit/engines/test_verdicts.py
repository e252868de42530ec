from pathlib import Path

import pytest

from worker.engines.build import GateReport
from worker.engines.verdicts import default_cache_dir, keep_verdict, recall_verdict, verdict_key

PASSED = GateReport(88, 0.01, 0.001, 0, 1e-6, passed=True, reason="")
KEY = verdict_key({"model": "a"})


def test_a_kept_pass_is_recalled_under_its_key_alone(tmp_path: Path) -> None:
    keep_verdict(tmp_path, KEY, PASSED)
    assert recall_verdict(tmp_path, KEY) == PASSED
    assert recall_verdict(tmp_path, verdict_key({"model": "b"})) is None


def test_the_key_depends_on_every_fact_but_not_on_their_order() -> None:
    assert verdict_key({"a": 1, "b": ("x", "y")}) == verdict_key({"b": ("x", "y"), "a": 1})
    assert len({verdict_key(facts) for facts in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1})}) == 4


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pairs": 1}', '{"passed": true}'])
def test_a_damaged_verdict_counts_as_none(tmp_path: Path, content: str) -> None:
    keep_verdict(tmp_path, KEY, PASSED)
    (kept,) = (tmp_path / "gate").iterdir()
    kept.write_text(content)
    assert recall_verdict(tmp_path, KEY) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    keep_verdict(taken, KEY, PASSED)
    assert recall_verdict(taken, KEY) is None


def test_the_default_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "nli-stream-worker"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_cache_dir() == Path("/home/somebody/.cache/nli-stream-worker")
