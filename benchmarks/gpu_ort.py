"""ONNX Runtime on CUDA beside the others: the graph that TensorRT is built from, on the same pairs."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_journal import SkippedError
from worker.engines.artifact import ModelFolder
from worker.engines.encoders.families import read_encoder
from worker.engines.encoders.onnx import write_onnx
from worker.engines.layout import checked_logits
from worker.engines.profiles import Shape, choose_profiles, cut, inputs
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.types import Batch, EngineInfo, ModelStamp, PairScores

CUDA = "CUDAExecutionProvider"
BUCKETS = (64, 128, 256, 512)


class OnnxRuntimeEngine:
    """A graph, padded to the buckets of the plans; arrays of the host go in and come out, as everywhere else."""

    def __init__(self, root: Path, folder: ModelFolder, precision: str, budget: int, *, is_dry: bool) -> None:
        """Write the graph where there is none yet, and load it; takes a minute.

        Raises:
            SkippedError: ONNX Runtime is not installed, or not the one for CUDA.
            RuntimeError: it loads the graph, and not onto the GPU.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise SkippedError("onnxruntime is not installed: pip install onnxruntime-gpu")
        import onnxruntime  # noqa: PLC0415  # not a requirement of anything else

        provider = "CPUExecutionProvider" if is_dry else CUDA
        if provider not in onnxruntime.get_available_providers():
            raise SkippedError(f"this onnxruntime has no {provider}: pip install onnxruntime-gpu")
        if hasattr(onnxruntime, "preload_dlls") and not is_dry:
            # Finds the libraries that torch brought along.
            onnxruntime.preload_dlls()
        self._session: Any = onnxruntime.InferenceSession(_graph(root, folder, precision), providers=[provider])
        if self._session.get_providers()[0] != provider:
            raise RuntimeError(f"onnxruntime uses {self._session.get_providers()[0]}, not {provider}: its log says why")
        self._names = [given.name for given in self._session.get_inputs()]
        self._pad_id = folder.pad_token_id
        self._profiles = choose_profiles("padded", folder.max_pair_tokens, budget, BUCKETS)
        self.info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.safetensors_files()), "onnxruntime", precision),
            head=folder.head,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=budget,
            details={"layout": "padded", "provider": provider, "version": str(onnxruntime.__version__)},
        )

    def warm_up(self) -> None:
        """Nothing: the benchmark's first batches do."""

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks."""
        logits = np.empty((len(batch.lengths), self.info.head.classes), dtype=np.float32)
        for chunk in cut(batch, "padded", self._profiles):
            rows, kind = list(chunk.rows), self._profiles[chunk.profile]
            fed = inputs(batch.take(rows), "padded", Shape(len(rows), kind.tokens), self._pad_id)
            (logits[rows],) = self._session.run(["logits"], {name: fed[name] for name in self._names})
        return PairScores(checked_logits(logits, len(batch.lengths), self.info.head))

    def close(self) -> None:
        """Give back memory."""
        self._session = None


def _graph(root: Path, folder: ModelFolder, precision: str) -> str:
    """The file of the graph; written once, whole or not at all."""
    place = root / "onnx" / f"{folder.path.name}-{precision}"
    if not place.is_dir():
        made = place.with_name(f"{place.name}.part{os.getpid()}")
        made.mkdir(parents=True)
        engine = PyTorchEngine(folder, PyTorchOptions(device="cpu", layout="transformers"))
        try:
            encoder = read_encoder(engine.module, precision, has_wide_norms=True)
            write_onnx(encoder, made / "model.onnx", has_types=folder.has_type_ids)
        finally:
            engine.close()
        made.rename(place)
    return str(place / "model.onnx")
