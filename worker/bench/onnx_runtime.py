"""ONNX Runtime on a CPU: what the bench of the CPU engines compares ours with. No engine of the worker."""

import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.encoders.families import read_encoder
from worker.engines.encoders.onnx import IDS, LOGITS, MASK, TYPES, without_noise, write_onnx
from worker.engines.layout import checked_logits, pad
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.errors import EngineError
from worker.types import Batch, EngineInfo, ModelStamp, PairScores

PRECISIONS: Final = ("float32", "dynamic int8")
_NEEDED: Final = ("onnxruntime", "onnx", "onnxscript", "torch", "transformers")
_TOKEN_BUDGET: Final = 2048
"""As torch has on a CPU."""


class OnnxRuntimeEngine:
    """A model in safetensors as one ONNX graph: the one that TensorRT is built from, with the mask as an input."""

    def __init__(self, folder: ModelFolder, scratch: Path, precision: str, threads: int) -> None:
        """Write the graph into `scratch` where it is not there yet, and load it; takes half a minute.

        With `dynamic int8` weights are quantised when the graph is written, activations anew for every batch.

        Raises:
            EngineError: a package is missing, or the model's family cannot be written as a graph.
        """
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if missing:
            raise EngineError(f"ONNX Runtime needs packages that are not installed: pip install {' '.join(missing)}")
        import onnxruntime  # noqa: PLC0415  not a requirement of the worker

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads would go on waiting busily while another one is measured.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        file = _graph(folder, scratch, precision)
        self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [given.name for given in self._session.get_inputs()]
        self._pad_id = folder.pad_token_id
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.safetensors_files()), "onnxruntime", precision),
            head=folder.head,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(_TOKEN_BUDGET, folder.max_pair_tokens),
            details={"threads": str(threads), "version": str(onnxruntime.__version__)},
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    def warm_up(self) -> None:
        """Nothing: whatever is measured was scored once before."""

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks."""
        padded = pad(batch, self._pad_id)
        fed = {IDS: padded.input_ids, TYPES: padded.type_ids, MASK: padded.attention_mask}
        (logits,) = self._session.run([LOGITS], {name: fed[name].astype(np.int32) for name in self._names})
        return PairScores(checked_logits(logits, len(batch.lengths), self._info.head))

    def close(self) -> None:
        """Give back memory. Not to be used after."""
        self._session = None


def _graph(folder: ModelFolder, scratch: Path, precision: str) -> Path:
    """The file of the graph in `precision`; written once."""
    scratch.mkdir(parents=True, exist_ok=True)
    plain, quantised = scratch / "float32.onnx", scratch / "int8.onnx"
    if not plain.is_file():
        engine = PyTorchEngine(folder, PyTorchOptions(device="cpu", layout="transformers"))
        try:
            encoder = read_encoder(engine.module, "float32")
            write_onnx(encoder, plain, has_types=folder.has_type_ids, mask_input=MASK)
        finally:
            engine.close()
    if precision == "float32":
        return plain
    if not quantised.is_file():
        from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415  as above

        with without_noise():
            quantize_dynamic(plain, quantised)
    return quantised
