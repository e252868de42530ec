"""Those whom the CPU bench compares ours with compute what ours computes."""

import importlib.util
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from worker.bench.cpu_engines import REFERENCE, contestants, load_all
from worker.engines.artifact import open_folder
from worker.engines.golden import encode_pairs, golden_texts, join_batches
from worker.engines.source import BUNDLED_FOLDER

INT8 = "ONNX Runtime, dynamic int8"
NAMES = {REFERENCE, "torch, float32", "torch, bfloat16", "ONNX Runtime, float32", INT8}


def test_torch_and_onnx_runtime_compute_with_the_weights_of_our_engine(tmp_path: Path) -> None:
    model = open_folder(BUNDLED_FOLDER)
    batch = join_batches(encode_pairs(model, golden_texts()[:6]))
    with ExitStack() as until:
        wanted = [each for each in contestants(model, tmp_path, threads=1) if each.name in NAMES]
        engines, skipped = load_all(wanted, until)
        logits = {name: engine.score(batch).logits for name, engine in engines.items()}
    has_ort = importlib.util.find_spec("onnxruntime") is not None
    assert (set() if has_ort else {"ONNX Runtime, float32", INT8}) == set(skipped)
    assert all("pip install onnxruntime" in reason for reason in skipped.values())
    for name in logits.keys() - {INT8, "torch, bfloat16"}:
        assert np.abs(logits[name] - logits[REFERENCE]).max() < 1e-4
    assert 1e-4 < np.abs(logits["torch, bfloat16"] - logits[REFERENCE]).max() < 0.5
    if has_ort:
        assert np.abs(logits[INT8] - logits["ONNX Runtime, float32"]).max() > 1e-4
