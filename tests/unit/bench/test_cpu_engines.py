"""The comparison of ways to run a model on a CPU."""

import gzip
import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.support.batches import batch_of
from tests.support.tiny_openvino import TinyModel, write_tiny_model
from worker.bench.agreement import Case
from worker.bench.cpu_engines import OURS, REFERENCE, Contestant, _row, contestants, load_all, main, race
from worker.bench.tokenised import PairSet
from worker.engines.artifact import open_folder
from worker.engines.base import Engine
from worker.engines.fake import FakeEngine
from worker.errors import ConfigError, EngineError
from worker.types import Batch, PairScores


class CountingEngine(FakeEngine):
    """Tells how large the batches were that it scored."""

    def __init__(self, token_budget: int) -> None:
        super().__init__(token_budget=token_budget)
        self.scored: list[int] = []

    def score(self, batch: Batch) -> PairScores:
        self.scored.append(len(batch.lengths))
        return super().score(batch)


def unable() -> Engine:
    raise ConfigError("precision: this CPU does not compute in bfloat16")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "kinds.test.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number in range(9):
            stream.write(json.dumps({"text": f"text number {number}", "label": ("billing", "bug")[number % 2]}) + "\n")
    return tmp_path


def test_who_cannot_run_here_is_left_out_with_the_reason_and_the_others_are_closed_at_the_end() -> None:
    able = FakeEngine()
    with ExitStack() as until:
        engines, skipped = load_all([Contestant("able", lambda: able), Contestant("unable", unable)], until)
        assert {"able": able} == engines
        assert {"unable": "precision: this CPU does not compute in bfloat16"} == skipped
        able.score(batch_of([5, 6]))
    with pytest.raises(EngineError, match="closed"):
        able.score(batch_of([5, 6]))


@pytest.mark.parametrize("name", [OURS, REFERENCE])
def test_without_our_own_engine_there_is_nothing_to_compare_with(name: str) -> None:
    with ExitStack() as until, pytest.raises(ConfigError, match="bfloat16"):
        load_all([Contestant(name, unable)], until)


def test_every_engine_scores_all_pairs_in_every_round_in_batches_of_its_own_size() -> None:
    engines = {"small": CountingEngine(4), "large": CountingEngine(100)}
    pairs = PairSet(tuple(batch_of([5, 6]) for _ in range(5)))
    seconds = race(engines, pairs, 3, lambda _: None)
    assert {"small": 3, "large": 3} == {name: len(each) for name, each in seconds.items()}
    assert ([2, 2, 1] * 3, [5] * 3) == (engines["small"].scored, engines["large"].scored)


def test_speed_is_that_of_the_median_round_and_the_ratio_is_taken_within_a_round() -> None:
    cases = [Case("set", 2, "a text", "bug", ("billing", "bug"))] * 2
    reference = [np.array([[0, 2], [2, 0]], np.float32)] * 2
    candidate = [reference[0], np.array([[2.5, 0], [2, 0]], np.float32)]
    seconds = {OURS: [1.0, 4.0, 9.0], "other": [2.0, 2.0, 3.0]}

    found = _row(("other", "int8"), seconds, (cases, {REFERENCE: reference, "other": candidate}, 0))

    assert (2.0, 2.0) == (found.pairs_per_second, found.ratio)
    assert (0.5, 0.5, 2.5) == (found.same_all, found.same_sure, found.max_logit_error)
    assert found.mean_logit_error == pytest.approx((2.5 + 2) / 8)


def test_a_run_tells_of_everybody_a_row_or_why_there_is_none(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_model(data / "model", TinyModel(is_8bit=True))
    asked = ["--data", str(data), "--model", str(model), "--texts", "5", "--rounds", "2", "--threads", "1"]

    assert 0 == main([*asked, "--json"])
    report = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in report["found"]}
    everybody = [each.name for each in contestants(open_folder(model), data, 1)]
    assert sorted(everybody) == sorted([*rows, *report["skipped"]])
    # No export of a BERT: others find no weights in it that they could read.
    assert {"torch, float32", "ONNX Runtime, dynamic int8"} <= set(report["skipped"])
    assert all(report["skipped"].values())
    assert (5, 10) == (report["texts"], report["pairs"])
    assert (1.0, 1.0, 0.0) == tuple(rows[REFERENCE][key] for key in ("same_all", "same_sure", "max_logit_error"))
    assert 1.0 == rows[OURS]["ratio"]

    assert 0 == main(asked)
    table = capsys.readouterr().out
    assert len(rows) + 2 == sum(line.startswith("|") for line in table.splitlines())
    assert "left out: torch, float32: " in table
