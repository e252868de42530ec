"""The TensorRT engine for a model: its plan from the store or built now, loaded on the GPU."""

from pathlib import Path
from typing import Any

import structlog

from worker.engines import cuda, trt_api
from worker.engines.artifact import CONFIG_FILE, ModelFolder, read_json_object
from worker.engines.plans import StoredPlan
from worker.engines.trt import TensorRtEngine, TensorRtOptions
from worker.engines.trt_builder import Builder, Progress, ignore_progress, plan_store
from worker.engines.trt_order import BUILD_SECONDS, BuildOrder

_log = structlog.get_logger(__name__)


def open_builder(cache_dir: Path, progress: Progress = ignore_progress, seconds: float = BUILD_SECONDS) -> Builder:
    """Who builds plans on this machine.

    Raises:
        EngineError: the library or the GPU is not there.
    """
    api, device = trt_api.load_api(), cuda.open_device()
    return Builder(plan_store(cache_dir), str(api.__version__), device.facts, progress, seconds)


def open_plan(folder: ModelFolder, stored: StoredPlan, options: TensorRtOptions | None = None) -> TensorRtEngine:
    """A kept plan, loaded.

    Raises:
        EngineError: the library or the GPU is not there, or the library refuses the plan.
        EngineOutOfMemoryError: the GPU has not enough memory.
    """
    api, device = trt_api.load_api(), cuda.open_device()
    with trt_api.translated(f"the plan in {stored.folder}"):
        return TensorRtEngine(api, device, folder, stored, options or TensorRtOptions())


def open_tensorrt(folder: ModelFolder, order: BuildOrder, cache_dir: Path) -> tuple[TensorRtEngine, StoredPlan]:
    """The engine for `order`, not yet through the gate; blocks for minutes where its plan has to be built.

    Raises:
        ConfigError: an order that makes no sense.
        EngineError: it cannot be built or loaded.
    """
    builder = open_builder(cache_dir)
    stored = builder.find(folder, order)
    if stored is None:
        _log.info("engine.building", engine="tensorrt", precision=order.precision, model=folder.name)
        stored = builder.build(folder, order)
    warn_of_unfused(folder, stored)
    return open_plan(folder, stored), stored


def warn_of_unfused(folder: ModelFolder, stored: StoredPlan) -> None:
    """Say so in the log where attention is not one kernel in every layer, or nobody knows: it works, but slower."""
    fused, layers = stored.notes.get("fused_attention"), attention_layers(folder)
    if layers is not None and fused != layers:
        _log.warning("engine.attention_not_fused", model=folder.name, fused=fused, layers=layers)


def attention_layers(folder: ModelFolder) -> int | None:
    """How many layers with attention the model has; None where its configuration does not say."""
    layers: Any = read_json_object(folder.path / CONFIG_FILE).get("num_hidden_layers")
    return layers if isinstance(layers, int) else None
