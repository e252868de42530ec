"""A TensorRT engine is opened by its plan, and used on what was measured of that very plan."""

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from structlog.testing import capture_logs
from typer.testing import CliRunner

from tests.support import fake_cuda, fake_tensorrt
from tests.support.batches import batch_of
from tests.support.plans import bert_source, compile_tiny, open_tiny
from worker.assembler import Assembler
from worker.cli.engine import form_of
from worker.cli.engine_text import form_as_text
from worker.cli.main import build_app
from worker.clock import ManualClock
from worker.config import fixed_config
from worker.engines import choice, cuda, load, plan_workshop, trt_builder
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.build import GateReport
from worker.engines.choice import Attempt
from worker.engines.golden import GOLDEN_FILE, Golden, golden_texts, score_alone, write_golden
from worker.engines.load import EngineChoice, load_engine
from worker.engines.plan_gate import Sample, verify_plan
from worker.engines.plan_workshop import Wish, build_checked
from worker.engines.plans import LAYERS_FILE, PLAN_FILE, StoredPlan
from worker.engines.trt_builder import ignore_progress
from worker.engines.trt_open import warn_of_unfused
from worker.engines.trt_order import PlanForm
from worker.errors import EngineError
from worker.scoring import score_or_isolate
from worker.types import JsonValue

LAYOUT, PRECISION = "lengths", "float16"
FORM = PlanForm(LAYOUT, 256, (16, 32))
CHILD = f"""
import json, pathlib, shutil, sys
order = json.load(sys.stdin)
shutil.copyfile(sys.argv[1], pathlib.Path(order["scratch"], {PLAN_FILE!r}))
for name in ("timings", {LAYERS_FILE!r}):
    pathlib.Path(order["scratch"], name).write_bytes(b"")
print(json.dumps({{"result": {{"fused_attention": 2}}}}))
"""


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fake_tensorrt.state.reset()
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setattr(cuda, "open_device", fake_cuda.HostDevice)
    # What float32 says of the longest pairs takes torch; the test of it is among those of the reference.
    for room in (load, plan_workshop):
        monkeypatch.setattr(room, "measure_edges", lambda *_: Sample())
    yield
    fake_tensorrt.state.reset()


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A model whose golden logits are those of the right plan."""
    engine = open_tiny(tmp_path, LAYOUT)
    folder = open_folder(tmp_path / "model")
    golden = Golden(golden_texts(), score_alone(engine, folder, golden_texts()))
    engine.close()
    write_golden(folder.path / GOLDEN_FILE, golden)
    return folder


def _plan(*, off_by: float = 0.0) -> bytes:
    """A plan whose every logit is wrong by so much."""
    source = bert_source(PRECISION)
    bias = source.weights["head.out.bias"] + np.float32(off_by)
    return compile_tiny(LAYOUT, dataclasses.replace(source, weights={**source.weights, "head.out.bias": bias})).plan


def _keep(folder: ModelFolder, cache_dir: Path, plan: bytes) -> StoredPlan:
    """Put a plan where the worker will look for its own."""
    facts = FORM.order(PRECISION).facts(folder, fake_tensorrt.__version__, fake_cuda.FACTS)
    return trt_builder.plan_store(cache_dir).put(facts, plan, {"fused_attention": 2})


def _choice(folder: ModelFolder, cache_dir: Path) -> EngineChoice:
    return EngineChoice(str(folder.path), "tensorrt", PRECISION, cache_dir=cache_dir, plan=FORM)


def _load(folder: ModelFolder, cache_dir: Path) -> str:
    loaded = load_engine(_choice(folder, cache_dir))
    loaded.engine.close()
    return loaded.why


def _build_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plan: bytes) -> None:
    """Whoever builds from now on gets this plan."""
    made = tmp_path / "made.plan"
    made.write_bytes(plan)
    monkeypatch.setattr(trt_builder, "_CHILD", (sys.executable, "-c", CHILD, str(made)))


def test_a_plan_that_passed_is_not_measured_again(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(folder, tmp_path, _plan())
    first = _load(folder, tmp_path)
    monkeypatch.setattr(load, "verify_plan", lambda *_: pytest.fail("measured again"))
    assert _load(folder, tmp_path) == first


def test_another_plan_of_the_same_facts_is_not_used_on_the_verdict_of_the_first(
    folder: ModelFolder, tmp_path: Path
) -> None:
    first = _keep(folder, tmp_path, _plan())
    _load(folder, tmp_path)
    second = _keep(folder, tmp_path, _plan(off_by=0.1))
    assert (second.folder, second.facts) == (first.folder, first.facts)
    with pytest.raises(EngineError, match=r"does not agree with the float32 model: .*logits differ from float32"):
        _load(folder, tmp_path)


def test_a_damaged_plan_that_is_built_anew_goes_through_the_gate(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _keep(folder, tmp_path, _plan())
    _load(folder, tmp_path)
    kept.plan_file.write_bytes(b"damaged")
    _build_with(monkeypatch, tmp_path, _plan(off_by=0.1))
    with pytest.raises(EngineError, match="does not agree"):
        _load(folder, tmp_path)


def test_a_plan_that_failed_the_gate_when_it_was_built_again_is_refused_by_workers(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(folder, tmp_path, _plan())
    _load(folder, tmp_path)
    _build_with(monkeypatch, tmp_path, _plan(off_by=0.1))
    wish = Wish(str(folder.path), PRECISION, FORM, 60.0, True, tmp_path)
    assert not build_checked(wish, ignore_progress).report.passed
    with pytest.raises(EngineError, match="does not agree"):
        _load(folder, tmp_path)


def test_a_plan_that_no_longer_passes_is_measured_whatever_it_did_before(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes, another outcome: the later one counts, however it was measured."""
    _keep(folder, tmp_path, _plan())
    _load(folder, tmp_path)

    def failing(*about: object) -> object:
        return dataclasses.replace(verify_plan(*about), passed=False, reason="for the test")  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(plan_workshop, "verify_plan", failing)
    monkeypatch.setattr(load, "verify_plan", failing)
    wish = Wish(str(folder.path), PRECISION, FORM, 60.0, False, tmp_path)
    assert not build_checked(wish, ignore_progress).report.passed
    with pytest.raises(EngineError, match="for the test"):
        _load(folder, tmp_path)
    monkeypatch.setattr(load, "verify_plan", verify_plan)
    assert _load(folder, tmp_path).startswith("tensorrt, float16")


def test_a_fresh_look_that_fails_is_not_forgotten_for_an_older_pass(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = _keep(folder, tmp_path, _plan())
    _load(folder, tmp_path)
    monkeypatch.setattr(
        load,
        "verify_plan",
        lambda *about: dataclasses.replace(verify_plan(*about), passed=False, reason="for the test"),
    )
    with pytest.raises(EngineError, match="for the test"):
        load_engine(_choice(folder, tmp_path), is_fresh=True)
    trt_builder.plan_store(tmp_path).amend(kept, {"gate": None})
    with pytest.raises(EngineError, match="for the test"):
        _load(folder, tmp_path)


def test_a_plan_that_is_replaced_while_it_is_loaded_is_not_used(folder: ModelFolder, tmp_path: Path) -> None:
    kept = _keep(folder, tmp_path, _plan())
    kept.plan_file.write_bytes(_plan(off_by=0.1))
    with pytest.raises(EngineError, match="changed or replaced while it was loaded; start again"):
        kept.read()
    kept.plan_file.unlink()
    with pytest.raises(EngineError, match=r"cannot be read .*; start again"):
        kept.read()


@pytest.mark.parametrize(
    "case",
    [
        ("Runtime", TypeError("factory function returned nullptr"), "cannot use this machine's GPU"),
        ("deserialize_cuda_engine", RuntimeError("serialization"), r"refused: the plan in .* \(RuntimeError: serial"),
        ("create_execution_context", False, "refused: an execution context"),
        ("set_device_memory", RuntimeError("too small"), r"refused: the plan in .* \(RuntimeError: too small\)"),
        ("execute_async_v3", False, "did not run this batch"),
    ],
)
def test_where_tensorrt_cannot_be_used_the_next_engine_is_and_the_log_says_why(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[str, object, str]
) -> None:
    call, answer, error = case
    next_one = load._Opened(open_tiny(tmp_path, LAYOUT), folder, (), has_8bit_weights=False)

    def open_next(*_: object) -> load._Opened:
        fake_tensorrt.state.answers.clear()
        return next_one

    ways = [Attempt("tensorrt", PRECISION, "for the test"), Attempt("next", PRECISION, "for the test")]
    monkeypatch.setattr(load, "attempts", lambda *_: ways)
    monkeypatch.setattr(load, "_exported", lambda *_: folder)
    monkeypatch.setattr(load, "_open_openvino", open_next)
    _keep(folder, tmp_path, _plan())
    fake_tensorrt.state.answers[call] = answer
    with capture_logs() as logs:
        loaded = load_engine(EngineChoice(str(folder.path), cache_dir=tmp_path, plan=FORM))
    assert loaded.engine is next_one.engine
    loaded.engine.close()
    (refused,) = [entry for entry in logs if entry["event"] == "engine.refused"]
    assert re.search(error, refused["reason"])


@pytest.mark.parametrize(("fused", "is_warned_of"), [(2, False), (1, True), (0, True), (6, True), (None, True)])
def test_attention_that_is_not_one_kernel_in_every_layer_is_warned_of(
    folder: ModelFolder, tmp_path: Path, fused: int | None, *, is_warned_of: bool
) -> None:
    kept = _keep(folder, tmp_path, b"plan")
    noted = dataclasses.replace(kept, notes={} if fused is None else {"fused_attention": fused})
    with capture_logs() as logs:
        warn_of_unfused(folder, noted)
    said = {"event": "engine.attention_not_fused", "model": "model", "fused": fused, "layers": 2}
    assert logs == ([{**said, "log_level": "warning"}] if is_warned_of else [])


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_strict_ends_with_the_reason_where_the_gpu_is_gone_by_the_time_it_is_opened(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """It was there when the engine was chosen; nothing else is tried in its stead."""
    monkeypatch.setattr(choice, "cuda_absence", lambda: None)
    monkeypatch.setattr(cuda, "open_device", gone)
    for room in ("_open_pytorch", "_open_openvino"):
        monkeypatch.setattr(load, room, lambda *_: pytest.fail("another engine was tried"))
    wanted = EngineChoice(str(folder.path), engine, strict=True, cache_dir=tmp_path, plan=FORM)
    with pytest.raises(EngineError, match="no GPU: it has fallen off the bus"):
        load_engine(wanted)


def gone() -> cuda.Device:
    raise EngineError("engine: no GPU: it has fallen off the bus")


def test_a_gpu_that_goes_away_while_the_worker_runs_fails_every_batch_and_never_gives_old_logits(
    folder: ModelFolder, tmp_path: Path
) -> None:
    """What then becomes of the worker is `engine_retry`'s: tried again for a while, then the end; never a CPU."""
    _keep(folder, tmp_path, _plan())
    loaded = load_engine(dataclasses.replace(_choice(folder, tmp_path), strict=True))
    fake_tensorrt.state.answers |= {"execute_async_v3": False, "replay": False}
    fake_tensorrt.state.complaint = "Error Code 1: Cuda Runtime (CUDA-capable device(s) is/are busy or unavailable)"
    launched, recorded = batch_of(*[[5, 6, 7]] * 3), batch_of([5, 6, 7])
    for batch, error in (
        (launched, "did not run this batch: Error Code 1: Cuda"),
        (recorded, "the device is gone"),
    ) * 2:
        with pytest.raises(RuntimeError, match=error):
            loaded.engine.score(batch)
        with pytest.raises(EngineError, match="the engine fails"):
            score_or_isolate(loaded.engine, batch)
    loaded.engine.close()


def _configured(folder: ModelFolder, cache_dir: Path, **plan: JsonValue) -> EngineChoice:
    """What a worker takes from its configuration."""
    document: dict[str, JsonValue] = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1", "group_id": "g"},
        "model": str(folder.path),
        "engine": "tensorrt",
        "precision": PRECISION,
        "cache_dir": str(cache_dir),
        "topics": [{"input": "in"}],
        "tensorrt": plan,
    }
    return Assembler(fixed_config(document), ManualClock()).engine_choice()


def test_the_plan_that_the_command_builds_is_the_one_that_a_worker_of_the_same_form_loads(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the gate says is not what this is about: it is taken as passed."""
    cache_dir = tmp_path / "cache"
    for room in (load, plan_workshop):
        monkeypatch.setattr(room, "verify_plan", lambda *_: GateReport(1, 0.0, 0.0, 0, 0.0, passed=True, reason=""))
    _build_with(monkeypatch, tmp_path, _plan())
    options = [
        "--precision",
        PRECISION,
        "--layout",
        LAYOUT,
        "--max-tokens",
        "256",
        "--buckets",
        "16,32",
        "--level",
        "4",
    ]
    command = ["engine", "build", str(folder.path), "--cache-dir", str(cache_dir), *options]
    told = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    assert told.exit_code == 0
    form = "tensorrt: {layout: lengths, max_tokens: 256, buckets: [16, 32], level: 4}"
    assert f"a worker uses it with  {form}" in told.stdout
    (kept,) = trt_builder.plan_store(cache_dir).plans()
    monkeypatch.setattr(trt_builder, "_CHILD", ("false",))
    loaded = load_engine(_configured(folder, cache_dir, **yaml.safe_load(form)["tensorrt"]))
    loaded.engine.close()
    assert loaded.engine.info.details["plan"] == kept.folder.name
    for other in ({"layout": "packed"}, {"max_tokens": 512}, {"buckets": [16]}, {"level": 3}):
        said = {**yaml.safe_load(form)["tensorrt"], **other}
        with pytest.raises(EngineError, match=r"the process that builds the plan died"):
            load_engine(_configured(folder, cache_dir, **said))
    for name in ("info", "verify"):
        command = ["engine", name, str(folder.path), "--engine", "tensorrt", "--cache-dir", str(cache_dir), *options]
        assert kept.folder.name in CliRunner().invoke(build_app(), command, catch_exceptions=False).stdout


def test_a_configuration_that_says_nothing_of_plans_means_what_the_command_builds_by_itself(
    folder: ModelFolder, tmp_path: Path
) -> None:
    assert _configured(folder, tmp_path).plan == form_of("padded", 16_384, None, 3) == PlanForm()
    assert form_as_text(PlanForm()) == ""
