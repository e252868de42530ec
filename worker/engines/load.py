"""Choosing the engine for a model, and handing it over only after it passed the gate."""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from worker.engines import export, ov, pytorch, t5_rank
from worker.engines.artifact import TOKENIZER_FILE, ModelFolder, file_sha256, open_folder
from worker.engines.base import Engine
from worker.engines.build import GateReport, verify, verify_singles
from worker.engines.fake import FakeEngine
from worker.engines.golden import (
    GOLDEN_FILE,
    Golden,
    golden_digest,
    golden_texts,
    ranking_golden,
    read_golden,
    score_alone,
)
from worker.engines.graph import REWRITES
from worker.engines.source import BUNDLED, BUNDLED_FOLDER, fetch_folder, fetch_model
from worker.engines.verdicts import default_cache_dir, keep_verdict, recall_verdict, verdict_key
from worker.errors import ConfigError, EngineError
from worker.types import Float32Array

ENGINES: Final = ("openvino", "pytorch", "t5_rank", "fake")
KNOWN_ENGINES: Final = ("tensorrt", "gliclass")
"""Names that the configuration knows but this version has not."""
PRECISIONS: Final = ("auto", "float32", "float16", "bfloat16", "int8", "float8")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the configuration says of model and engine."""

    model: str = BUNDLED
    """`bundled`, a folder, or a Hugging Face id@commit."""
    engine: str = "auto"
    precision: str = "auto"
    strict: bool = False
    """No falling back to another engine or precision than the first choice."""
    cache_dir: Path | None = None
    """None: the user's cache folder."""
    threads: int | None = None
    """None: every core this process may use."""


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
class _Attempt:
    """One way to run the model."""

    engine: str
    precision: str
    why: str


@dataclass(frozen=True, slots=True)
class _Opened:
    """An engine before the gate, and what the gate's verdict on it depends on."""

    engine: Engine
    folder: ModelFolder
    environment: tuple[str, ...]
    """Library versions and the machine's capabilities."""
    has_8bit_weights: bool


def load_engine(choice: EngineChoice) -> LoadedModel:
    """The engine for `choice`, loaded and found to agree with the float32 model. Blocks for seconds or minutes.

    Raises:
        ConfigError: the choice names something that does not exist, or that this machine or version cannot do.
        EngineError: no engine could be loaded, or none passed the gate.
    """
    _check_names(choice)
    if choice.engine == "fake":
        engine = FakeEngine()
        why = "fake: asked for; its scores mean nothing"
        return LoadedModel(engine, BUNDLED_FOLDER / TOKENIZER_FILE, BUNDLED_FOLDER, why, gate=None, is_verified=False)
    if choice.engine == "t5_rank":
        return _load_ranking(choice)
    folder = fetch_model(choice.model)
    attempts = _attempts(folder, choice)
    for attempt in attempts[:-1]:
        try:
            return _try_engine(folder, attempt, choice)
        except EngineError as error:
            _log.warning("engine.refused", engine=attempt.engine, precision=attempt.precision, reason=str(error))
    return _try_engine(folder, attempts[-1], choice)


def _load_ranking(choice: EngineChoice) -> LoadedModel:
    """An instruction model: nobody keeps golden logits of one, so its float32 form on a CPU is the reference."""
    folder = t5_rank.open_ranking_folder(fetch_folder(choice.model), choice.model)
    engine = t5_rank.T5RankEngine(folder, t5_rank.T5RankOptions(choice.precision, threads=choice.threads))
    try:
        singles = ranking_golden(folder)
        plain = t5_rank.T5RankEngine(folder, t5_rank.T5RankOptions("float32", "cpu", choice.threads))
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


def _check_names(choice: EngineChoice) -> None:
    if choice.engine in KNOWN_ENGINES:
        raise ConfigError(f"engine: {choice.engine} is not built yet; this version has auto, {', '.join(ENGINES)}")
    if choice.engine not in {"auto", *ENGINES}:
        raise ConfigError(f"engine: {choice.engine!r} is unknown; expected auto, {', '.join(ENGINES)}")
    if choice.precision not in PRECISIONS:
        raise ConfigError(f"precision: {choice.precision!r} is unknown; expected {', '.join(PRECISIONS)}")
    if choice.model == BUNDLED and choice.engine in {"pytorch", "t5_rank"}:
        raise ConfigError(
            f"engine: the bundled model runs on openvino only; for {choice.engine} name a folder or a hub id"
        )


def _attempts(folder: ModelFolder, choice: EngineChoice) -> list[_Attempt]:
    """What to try, best first: one way only where engine and precision are named, or with `strict`."""
    if choice.engine == "pytorch":
        return [_Attempt("pytorch", choice.precision, "asked for")]
    attempts: list[_Attempt] = []
    if choice.engine == "openvino":
        why = "asked for"
    elif folder.openvino_file():
        why = "the model is stored for it"
    else:
        if pytorch.has_cuda():
            attempts.append(_Attempt("pytorch", choice.precision, "there is a CUDA device"))
        why = "the best engine for a CPU"
    if choice.precision == "auto" and ov.has_fast_bfloat16():
        attempts.append(_Attempt("openvino", "bfloat16", f"{why}; this CPU computes in bfloat16"))
    precision = "float32" if choice.precision == "auto" else choice.precision
    attempts.append(_Attempt("openvino", precision, why))
    return attempts[:1] if choice.strict else attempts


def _try_engine(folder: ModelFolder, attempt: _Attempt, choice: EngineChoice) -> LoadedModel:
    cache_dir = choice.cache_dir or default_cache_dir()
    if attempt.engine == "pytorch":
        opened = _open_pytorch(folder, attempt, choice)
    else:
        opened = _open_openvino(_exported(folder, cache_dir), attempt, choice)
    try:
        golden, is_verified = _golden(opened)
        report = _gate(opened, golden, cache_dir)
    except BaseException:
        opened.engine.close()
        raise
    stamp = opened.engine.info.stamp
    doubt = "" if is_verified else f"; unverified: the model came without {GOLDEN_FILE}"
    why = f"{stamp.engine}, {stamp.precision}: {attempt.why}{doubt}"
    where = opened.folder
    _log.info("engine.loaded", engine=stamp.engine, precision=stamp.precision, model=stamp.name, reason=why)
    return LoadedModel(opened.engine, where.tokenizer_file, where.path, why, report, is_verified)


def _open_openvino(folder: ModelFolder, attempt: _Attempt, choice: EngineChoice) -> _Opened:
    engine = ov.OpenVinoEngine(folder, ov.OpenVinoOptions(attempt.precision, choice.threads))
    graph = folder.openvino_file()
    # The model's digest names the weights; the same weights in another graph are another model to the gate.
    graph_digest = "" if graph is None else file_sha256(graph)
    environment = (ov.library_version(), *ov.cpu_capabilities(), graph_digest, f"rewrites {REWRITES}")
    return _Opened(engine, folder, environment, engine.has_8bit_weights)


def _open_pytorch(folder: ModelFolder, attempt: _Attempt, choice: EngineChoice) -> _Opened:
    engine = pytorch.PyTorchEngine(folder, pytorch.PyTorchOptions(attempt.precision, threads=choice.threads))
    environment = (pytorch.library_version(), engine.info.details["device"])
    return _Opened(engine, folder, environment, has_8bit_weights=False)


def _exported(folder: ModelFolder, cache_dir: Path) -> ModelFolder:
    """The folder as OpenVINO loads it: as it is, or exported once into the cache."""
    if folder.openvino_file():
        return folder
    weights = folder.safetensors_files()
    if not weights:
        raise EngineError(f"{folder.path}: no openvino_model.xml, model.onnx or model.safetensors: not a model folder")
    key = verdict_key({"model": folder.digest(weights), "openvino": ov.library_version(), "weights": "float32"})
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


def _gate(opened: _Opened, golden: Golden, cache_dir: Path) -> GateReport:
    stamp = opened.engine.info.stamp
    key = verdict_key(
        {"stamp": astuple(stamp), "environment": opened.environment, "golden": golden_digest(golden)},
    )
    kept = recall_verdict(cache_dir, key)
    if kept is not None:
        return kept
    report = verify(opened.engine, opened.folder, golden, has_8bit_weights=opened.has_8bit_weights)
    _checked(opened.engine, report)
    keep_verdict(cache_dir, key, report)
    return report


def _checked(engine: Engine, report: GateReport) -> GateReport:
    if not report.passed:
        stamp = engine.info.stamp
        raise EngineError(
            f"{stamp.name}: the {stamp.engine} engine in {stamp.precision} does not agree with the float32 model: "
            f"{report.reason}; use precision: float32, or another engine"
        )
    return report
