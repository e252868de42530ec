"""Choosing the engine for a model, and handing it over only after it passed the gate."""

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import structlog

from worker.engines import export, gliclass, gliclass_folder, ov, ov_machine, pytorch, t5_rank, trt_open
from worker.engines.artifact import TOKENIZER_FILE, ModelFolder, file_sha256, open_folder
from worker.engines.base import Engine
from worker.engines.build import GateReport, verify, verify_singles
from worker.engines.choice import Attempt, EngineChoice, attempts, check_names
from worker.engines.fake import FakeEngine
from worker.engines.generic_torch import TorchOptions
from worker.engines.golden import (
    GOLDEN_FILE,
    Golden,
    golden_digest,
    golden_texts,
    one_pass_golden,
    ranking_golden,
    read_golden,
    score_alone,
)
from worker.engines.graph import REWRITES
from worker.engines.plan_gate import as_notes, measure_edges, verify_plan
from worker.engines.plans import PlanStore, StoredPlan
from worker.engines.source import BUNDLED_FOLDER, fetch_folder, fetch_model
from worker.engines.trt import TensorRtEngine
from worker.engines.trt_order import BuildOrder
from worker.engines.verdicts import default_cache_dir, keep_verdict, recall_verdict, verdict_key
from worker.errors import EngineError, EngineOutOfMemoryError
from worker.types import Float32Array

__all__ = ["EngineChoice", "LoadedModel", "load_engine"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine that may be used, and what belongs to it."""

    engine: Engine
    tokenizer_file: Path
    model_dir: Path
    why: str
    """One line for people: which engine was chosen, and why."""
    gate: GateReport | None
    """What the gate measured, now or when the engine was first loaded; None for the fake engine."""
    is_verified: bool
    """False where the model came without golden logits, so that it was compared only with itself."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """An engine before the gate, and what the gate's verdict on it depends on."""

    engine: Engine
    folder: ModelFolder
    environment: tuple[str, ...]
    """Library versions and the machine's capabilities."""
    has_8bit_weights: bool
    plan: StoredPlan | None = None
    """What a compiled engine was loaded from."""


def load_engine(choice: EngineChoice, *, is_fresh: bool = False) -> LoadedModel:
    """The engine for `choice`, loaded and found to agree with the float32 model. Blocks for seconds or minutes.

    With `is_fresh` the gate measures anew, whatever is remembered.

    Raises:
        ConfigError: the choice names something that does not exist, or that this machine or version cannot do.
        EngineError: no engine could be loaded, or none passed the gate.
    """
    check_names(choice)
    if choice.engine == "fake":
        engine = FakeEngine()
        why = "fake: asked for; its scores mean nothing"
        stamp = engine.info.stamp
        _log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, model=stamp.name, reason=why)
        return LoadedModel(engine, BUNDLED_FOLDER / TOKENIZER_FILE, BUNDLED_FOLDER, why, gate=None, is_verified=False)
    if choice.engine == "t5_rank":
        return _load_ranking(choice)
    if choice.engine == "gliclass":
        return _load_one_pass(choice)
    folder = fetch_model(choice.model)
    ways = attempts(folder, choice)
    for attempt in ways[:-1]:
        try:
            return _try_engine(folder, attempt, choice, is_fresh=is_fresh)
        except (EngineError, EngineOutOfMemoryError) as error:
            _log.warning("engine.refused", engine=attempt.engine, precision=attempt.precision, reason=str(error))
    return _try_engine(folder, ways[-1], choice, is_fresh=is_fresh)


def _load_ranking(choice: EngineChoice) -> LoadedModel:
    """An instruction model: nobody keeps golden logits of one, so its float32 form on a CPU is the reference."""
    folder = t5_rank.open_ranking_folder(fetch_folder(choice.model), choice.model)
    engine = t5_rank.T5RankEngine(folder, TorchOptions(choice.precision, threads=choice.threads))
    try:
        singles = ranking_golden(folder)
        plain = t5_rank.T5RankEngine(folder, TorchOptions("float32", "cpu", choice.threads))
        expected = np.concatenate([plain.score(single).logits for single in singles])
        plain.close()
        report = _checked(engine, verify_singles(engine, singles, expected))
    except BaseException:
        engine.close()
        raise
    stamp = engine.info.stamp
    why = f"t5_rank, {stamp.precision}: asked for"
    _log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, model=stamp.name, reason=why)
    return LoadedModel(engine, folder.tokenizer_file, folder.path, why, report, is_verified=True)


def _load_one_pass(choice: EngineChoice) -> LoadedModel:
    """A GLiClass model, held against its float32 form on a CPU; where no precision is asked for it may fall back."""
    folder, config = gliclass_folder.open_gliclass_folder(fetch_folder(choice.model), choice.model)
    is_open = choice.precision == "auto" and not choice.strict
    precisions = (choice.precision, "float32") if is_open and pytorch.has_cuda() else (choice.precision,)
    singles = one_pass_golden(folder, config.row)
    plain = gliclass.GliclassEngine(folder, config, TorchOptions("float32", "cpu", choice.threads))
    expected = np.concatenate([plain.score(single).logits for single in singles])
    plain.close()
    for precision in precisions:
        engine = gliclass.GliclassEngine(folder, config, TorchOptions(precision, threads=choice.threads))
        try:
            report = _checked(engine, verify_singles(engine, singles, expected))
        except BaseException as error:
            engine.close()
            if not isinstance(error, EngineError) or precision == precisions[-1]:
                raise
            _log.warning("engine.refused", engine="gliclass", precision=precision, reason=str(error))
        else:
            break
    stamp = engine.info.stamp
    why = f"gliclass, {stamp.precision}: asked for"
    _log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, model=stamp.name, reason=why)
    return LoadedModel(engine, folder.tokenizer_file, folder.path, why, report, is_verified=True)


def _try_engine(folder: ModelFolder, attempt: Attempt, choice: EngineChoice, *, is_fresh: bool) -> LoadedModel:
    cache_dir = choice.cache_dir or default_cache_dir()
    if attempt.engine == "tensorrt":
        opened = _open_tensorrt(folder, choice.plan.order(attempt.precision), cache_dir)
    elif attempt.engine == "pytorch":
        opened = _open_pytorch(folder, attempt, choice)
    else:
        opened = _open_openvino(_exported(folder, cache_dir), attempt, choice)
    try:
        golden, is_verified = _golden(opened)
        report = _gate(opened, golden, cache_dir, is_fresh=is_fresh)
    except BaseException:
        opened.engine.close()
        raise
    stamp = opened.engine.info.stamp
    doubt = "" if is_verified else f"; unverified: the model came without {GOLDEN_FILE}"
    why = f"{stamp.engine}, {stamp.precision}: {attempt.why}{doubt}"
    where = opened.folder
    _log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, model=stamp.name, reason=why)
    return LoadedModel(opened.engine, where.tokenizer_file, where.path, why, report, is_verified)


def _open_tensorrt(folder: ModelFolder, order: BuildOrder, cache_dir: Path) -> _Opened:
    engine, plan = trt_open.open_tensorrt(folder, order, cache_dir)
    # The plan's name stands for library, driver, GPU; its digest for its kernels, which are others in every build.
    return _Opened(engine, folder, (plan.folder.name, plan.digest), order.precision == "float8", plan)


def _open_openvino(folder: ModelFolder, attempt: Attempt, choice: EngineChoice) -> _Opened:
    engine = ov.OpenVinoEngine(folder, ov.OpenVinoOptions(attempt.precision, choice.threads))
    graph = folder.openvino_file()
    # The model's digest names the weights; the same weights in another graph are another model to the gate.
    graph_digest = "" if graph is None else file_sha256(graph)
    environment = (ov_machine.library_version(), *ov_machine.cpu_capabilities(), graph_digest, f"rewrites {REWRITES}")
    return _Opened(engine, folder, environment, engine.has_8bit_weights)


def _open_pytorch(folder: ModelFolder, attempt: Attempt, choice: EngineChoice) -> _Opened:
    options = pytorch.PyTorchOptions(
        attempt.precision, threads=choice.threads, layout=choice.torch_layout, is_compiled=choice.torch_compiled
    )
    engine = pytorch.PyTorchEngine(folder, options)
    details = engine.info.details
    environment = (pytorch.library_version(), details["device"], details["layout"], details["compiled"])
    return _Opened(engine, folder, environment, has_8bit_weights=False)


def _exported(folder: ModelFolder, cache_dir: Path) -> ModelFolder:
    """The folder as OpenVINO loads it: as it is, or exported once into the cache."""
    if folder.openvino_file():
        return folder
    weights = folder.safetensors_files()
    if not weights:
        raise EngineError(f"{folder.path}: no openvino_model.xml, model.onnx or model.safetensors: not a model folder")
    key = verdict_key({"model": folder.digest(weights), "openvino": ov_machine.library_version(), "weights": "float32"})
    target = cache_dir / "models" / key
    if not target.is_dir():
        try:
            export.export_model(folder, target)
        except EngineError:
            # Another process may have been faster.
            if not target.is_dir():
                raise
    return open_folder(target, folder.name)


def _golden(opened: _Opened) -> tuple[Golden, bool]:
    """The float32 logits to compare with, and whether they come from somewhere else than the engine itself."""
    folder = opened.folder
    stored = read_golden(folder)
    if stored is not None:
        return stored, True
    pairs = golden_texts()
    stamp = opened.engine.info.stamp
    if folder.safetensors_files() and pytorch.has_torch():
        return Golden(pairs, _logits(pytorch.PyTorchEngine(folder, pytorch.PyTorchOptions(device="cpu")), folder)), True
    if opened.has_8bit_weights:
        raise EngineError(
            f"{folder.path}: a model with 8-bit weights and without {GOLDEN_FILE} cannot be checked; "
            "export it anew from its safetensors, which writes one"
        )
    if stamp.precision == "float32":
        return Golden(pairs, score_alone(opened.engine, folder, pairs)), False
    return Golden(pairs, _logits(ov.OpenVinoEngine(folder, ov.OpenVinoOptions("float32")), folder)), False


def _logits(engine: Engine, folder: ModelFolder) -> Float32Array:
    """The golden texts' logits by a float32 engine made for it."""
    try:
        return score_alone(engine, folder, golden_texts())
    finally:
        engine.close()


def _gate(opened: _Opened, golden: Golden, cache_dir: Path, *, is_fresh: bool) -> GateReport:
    stamp = opened.engine.info.stamp
    key = verdict_key(
        {"stamp": astuple(stamp), "environment": opened.environment, "golden": golden_digest(golden)},
    )
    kept = None if is_fresh or _is_doubted(opened.plan) else recall_verdict(cache_dir, key)
    if kept is not None:
        return kept
    try:
        report = _measured(opened, golden)
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"{stamp.name}: the {stamp.engine} engine in {stamp.precision} cannot score the golden pairs "
            f"({str(error)[:200]}); use precision: float32, or another engine"
        ) from error
    # Whatever was remembered, from now on this measurement counts: one that did not pass is not recalled.
    keep_verdict(cache_dir, key, report)
    return _checked(opened.engine, report)


def _is_doubted(plan: StoredPlan | None) -> bool:
    """Whether the plan did not pass when it was last measured."""
    gate = None if plan is None else plan.notes.get("gate")
    return isinstance(gate, dict) and gate.get("passed") is not True


def _checked(engine: Engine, report: GateReport) -> GateReport:
    if not report.passed:
        stamp = engine.info.stamp
        raise EngineError(
            f"{stamp.name}: the {stamp.engine} engine in {stamp.precision} does not agree with the float32 model: "
            f"{report.reason}; use precision: float32, or another engine"
        )
    return report


def _measured(opened: _Opened, golden: Golden) -> GateReport:
    if opened.plan is None or not isinstance(opened.engine, TensorRtEngine):
        return verify(opened.engine, opened.folder, golden, has_8bit_weights=opened.has_8bit_weights)
    report = verify_plan(opened.engine, opened.folder, golden, measure_edges(opened.engine, opened.folder))
    PlanStore(opened.plan.folder.parent).amend(opened.plan, as_notes(report))
    return report
