"""The form of a trained model that a worker runs on a CPU, past its gate."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.engines.artifact import open_folder
from worker.engines.build import GateReport
from worker.engines.export import export_model
from worker.engines.load import EngineChoice, load_engine
from worker.errors import EngineError
from worker.training.card import PROVENANCE_FILE

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """The form that a worker runs."""

    folder: Path
    weights: str
    """`int8` or `float32`."""
    gate: GateReport | None


def export_bundled(model: Path, cache_dir: Path | None) -> Exported:
    """The form of `model` that a worker runs on a CPU, beside it, past its gate.

    It has 8-bit weights; where those change labels that the float32 model is sure of, float32 ones.

    Raises:
        EngineError: it cannot be exported, or does not agree with the original in float32 either.
    """
    try:
        return _exported(model, "int8", cache_dir)
    except GateError as error:
        _log.warning("export.widened", reason=str(error))
        return _exported(model, "float32", cache_dir)


class GateError(EngineError):
    """An exported form does not agree with the original."""


def _exported(model: Path, weights: str, cache_dir: Path | None) -> Exported:
    target = model.parent / "openvino"
    if target.is_dir():
        shutil.rmtree(target)  # of an earlier run: the model may have changed since
    export_model(open_folder(model), target, weights=weights)
    try:
        loaded = load_engine(EngineChoice(str(target), "openvino", cache_dir=cache_dir))
    except EngineError as error:
        raise GateError(f"with {weights} weights: {error}") from None
    loaded.engine.close()
    shutil.copyfile(model / PROVENANCE_FILE, target / PROVENANCE_FILE)
    return Exported(target, weights, loaded.gate)
