"""Engines on the same pairs: how fast, how close to float32, how soon alone."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_models import LABELS, SHAPES, batch_of, batches
from benchmarks.gpu_ort import OnnxRuntimeEngine
from worker.engines import cuda, trt_api
from worker.engines.artifact import ModelFolder
from worker.engines.base import Engine
from worker.engines.build import verify
from worker.engines.golden import Golden, golden_texts, score_alone
from worker.engines.plan_gate import measure_edges, verify_plan
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.trt import TensorRtEngine, TensorRtOptions
from worker.engines.trt_build import BuildOptions
from worker.engines.trt_builder import Builder, plan_store
from worker.engines.trt_order import BuildOrder

TORCH = {
    "torch transformers": PyTorchOptions("float16", layout="transformers"),
    "torch padded": PyTorchOptions("float16", layout="padded"),
    "torch packed": PyTorchOptions("float16", layout="packed"),
    "torch compiled": PyTorchOptions("float16", layout="padded", is_compiled=True),
}
ORT = "onnxruntime cuda"
_LEAST_SECONDS = 2.0
_LEAST_PASSES, _MOST_PASSES = 3, 50
_MESSAGES = 300


def orders(model: str, *, is_dry: bool) -> dict[str, BuildOrder]:
    """The plans of a model, by what the table calls them."""
    half = "bfloat16" if model == "modernbert-base" else "float16"
    budget = 512 if is_dry else 32_768
    buckets = (32, 64) if is_dry else (64, 128, 256, 512)
    made = {
        f"tensorrt {layout}": BuildOrder(half, layout, budget, buckets, BuildOptions(level=3))
        for layout in SHAPES[model].layouts
    }
    if model == "bert-base":
        # What buckets are measured against: every pair padded to the longest there is.
        made["tensorrt padded to the longest"] = BuildOrder(half, "padded", budget, (512,), BuildOptions(level=3))
    if "packed" in SHAPES[model].layouts:
        made["tensorrt packed float8"] = BuildOrder("float8", "packed", budget, (), BuildOptions(level=3))
    return made


def names(model: str, *, is_dry: bool) -> list[str]:
    """The engines of the table."""
    return [*orders(model, is_dry=is_dry), *TORCH, ORT]


def builder(root: Path, seconds: float) -> Builder:
    """Who builds plans here, within so many seconds."""
    return Builder(
        plan_store(root), str(trt_api.load_api().__version__), cuda.open_device().facts, _print_progress(), seconds
    )


def _print_progress() -> Callable[[str, float], None]:
    last = {"phase": ""}

    def show(phase: str, _done: float) -> None:
        if phase != last["phase"]:
            last["phase"] = phase
            print(f"  {phase}", flush=True)

    return show


def build(root: Path, folder: ModelFolder, order: BuildOrder, seconds: float) -> dict[str, Any]:
    """Build a plan, or find it."""
    stored = builder(root, seconds).build(folder, order)
    return {"plan": stored.folder.name, "bytes": stored.plan_file.stat().st_size, **stored.notes}


def open_engine(root: Path, folder: ModelFolder, name: str, *, is_dry: bool) -> Engine:
    """An engine of the table by its name; a plan must have been built."""
    if name in TORCH:
        options = replace(TORCH[name], device="cpu", precision="float32") if is_dry else TORCH[name]
        return PyTorchEngine(folder, replace(options, is_compiled=options.is_compiled and not is_dry))
    made = orders(folder.path.name, is_dry=is_dry)
    if name == ORT:
        budget = made["tensorrt padded"].token_budget
        return OnnxRuntimeEngine(root, folder, "float32" if is_dry else "float16", budget, is_dry=is_dry)
    found = builder(root, 1.0).find(folder, made[name])
    if found is None:
        raise RuntimeError(f"{name}: not built: run --stage build first")
    return TensorRtEngine(trt_api.load_api(), cuda.open_device(), folder, found, TensorRtOptions())


def parity(root: Path, folder: ModelFolder, name: str, golden: Golden, *, is_dry: bool) -> dict[str, Any]:
    """What the gate says of an engine."""
    engine = open_engine(root, folder, name, is_dry=is_dry)
    try:
        if isinstance(engine, TensorRtEngine):
            report = verify_plan(engine, folder, golden, measure_edges(engine, folder))
        else:
            report = verify(engine, folder, golden)
        return {name: getattr(report, name) for name in report.__slots__} | {"precision": engine.info.stamp.precision}
    finally:
        _close(engine)


def float32_golden(folder: ModelFolder) -> Golden:
    """What the float32 model says of the golden texts, on the CPU."""
    engine = PyTorchEngine(folder, PyTorchOptions(device="cpu"))
    try:
        return Golden(golden_texts(), score_alone(engine, folder, golden_texts()))
    finally:
        engine.close()


def speed(engine: Engine, workload: str, budget: int, *, is_dry: bool) -> dict[str, Any]:
    """Pairs a second of an engine alone, from token ids to logits: the middle of several passes."""
    is_padded = "packed" not in engine.info.details.get("layout", "")
    cut = batches(workload, budget, is_padded=is_padded)
    if is_dry:
        cut = cut[:2]
    for batch in cut[:3]:
        engine.score(batch)
    pairs = sum(len(batch.lengths) for batch in cut)
    tokens = sum(int(batch.lengths.sum()) for batch in cut)
    passes: list[float] = []
    while len(passes) < _LEAST_PASSES or (sum(passes) < _LEAST_SECONDS and len(passes) < _MOST_PASSES and not is_dry):
        began = time.perf_counter()
        for batch in cut:
            engine.score(batch)
        passes.append(time.perf_counter() - began)
        if is_dry or sum(passes) > 5 * _LEAST_SECONDS:
            break
    middle = float(np.median(passes))
    return {
        "pairs_per_second": round(pairs / middle, 1),
        "tokens_per_second": round(tokens / middle),
        "passes": len(passes),
        "spread": round((max(passes) - min(passes)) / middle, 3),
        "batches": len(cut),
    }


def latency(engine: Engine, *, is_dry: bool) -> dict[str, Any]:
    """One message with 8 labels, alone: from pairs to logits."""
    count = 12 if is_dry else _MESSAGES
    taken: list[float] = []
    for number in range(count):
        batch = batch_of(np.full(8, 48, dtype=np.int32), seed=number)
        began = time.perf_counter()
        engine.score(batch)
        taken.append(1000 * (time.perf_counter() - began))
    kept = taken[count // 4 :]
    return {
        "median_ms": round(float(np.median(kept)), 3),
        "p99_ms": round(float(np.percentile(kept, 99)), 3),
        "recordings_failed": engine.recordings_failed if isinstance(engine, TensorRtEngine) else None,
    }


def pipeline_speed(folder: ModelFolder, workload: str, size: int, *, is_dry: bool) -> dict[str, Any]:
    """Pairs a second of transformers' pipeline on texts of the same lengths, with batches of `size`."""
    import torch  # noqa: PLC0415  # only where the benchmark runs
    import transformers  # noqa: PLC0415  # as above

    from benchmarks.gpu_models import lengths_of  # noqa: PLC0415  # beside its use

    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder.tokenizer_file), **special)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    device = "cpu" if is_dry else "cuda:0"
    run = transformers.pipeline(
        "text-classification",
        model=transformers.AutoModelForSequenceClassification.from_pretrained(folder.path),
        tokenizer=tokenizer,
        device=device,
        dtype=torch.float32 if is_dry else torch.float16,
        batch_size=size,
        top_k=len(LABELS),
    )
    lengths = lengths_of(workload, 64 if is_dry else 4096)
    texts = [{"text": "word " * max(1, int(length) - 9), "text_pair": "this text is about it"} for length in lengths]
    run(texts[:size])
    began = time.perf_counter()
    run(texts)
    took = time.perf_counter() - began
    return {"pairs_per_second": round(len(texts) / took, 1), "batches": -(-len(texts) // size)}


def _close(engine: Engine) -> None:
    engine.close()
    gc.collect()
