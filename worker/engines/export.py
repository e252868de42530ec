"""From a folder of safetensors to one that OpenVINO loads. Needs the extra `export`."""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engines.artifact import (
    CONFIG_FILE,
    OPENVINO_FILE,
    TOKENIZER_CONFIG_FILE,
    TOKENIZER_FILE,
    ModelFolder,
    open_folder,
)
from worker.engines.encoders.onnx import without_noise
from worker.engines.golden import GOLDEN_FILE, Golden, golden_texts, score_alone, write_golden
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.telemetry import silence_telemetry
from worker.errors import EngineError

INSTALL_HINT: Final = 'pip install "nli-stream-worker[export]"'
_MODULES: Final = ("torch", "transformers", "onnx", "onnxscript", "nncf")
_CARD: Final = "README.md"
_OPSET: Final = 20


def can_export() -> bool:
    """Whether the extra `export` is installed."""
    return all(importlib.util.find_spec(module) for module in _MODULES)


def export_model(source: ModelFolder, target: Path, *, weights: str = "float32") -> ModelFolder:
    """Write `source` to the new folder `target` as OpenVINO loads it, with golden pairs; takes a minute or more.

    `weights` is `float32` or `int8` (asymmetric, one scale per channel; activations stay as they are). The folder
    appears whole or not at all.

    Raises:
        EngineError: the extra `export` is missing, `target` exists, or the model cannot be exported.
    """
    if not can_export():
        message = f"{source.path}: exporting needs packages that are not installed: {INSTALL_HINT}"
        raise EngineError(message)
    if weights not in {"float32", "int8"}:
        message = f"weights: {weights!r} is neither float32 nor int8"
        raise EngineError(message)
    if target.exists():
        message = f"{target}: exists already; remove it or name another folder"
        raise EngineError(message)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        _write_files(source, made, weights)
        # Renaming is atomic: two processes that export at once leave one whole folder.
        try:
            made.rename(target)
        except OSError as error:
            message = f"{target}: cannot be put in place ({error.strerror}); another process may have made it"
            raise EngineError(message) from error
    return open_folder(target, source.name)


def _write_files(source: ModelFolder, made: Path, weights: str) -> None:
    engine = PyTorchEngine(source, PyTorchOptions(device="cpu"))
    try:
        pairs = golden_texts()
        write_golden(made / GOLDEN_FILE, Golden(pairs, score_alone(engine, source, pairs)))
        with without_noise():
            _write_graph(engine.module, source, made, weights)
    finally:
        engine.close()
    for name in (CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, _CARD):
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, made / name)


def _write_graph(module: Any, source: ModelFolder, made: Path, weights: str) -> None:  # noqa: ANN401  # a torch module
    silence_telemetry()
    import openvino  # noqa: PLC0415  # heavy, and only exporting needs it here

    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        onnx_file = Path(scratch) / "model.onnx"
        try:
            _write_onnx(module, source, onnx_file)
            model = openvino.convert_model(onnx_file)
            if weights == "int8":
                import nncf  # noqa: PLC0415  # heavy, and only 8-bit weights need it

                model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
            openvino.save_model(model, made / OPENVINO_FILE, compress_to_fp16=False)
        except Exception as error:  # the exporter raises anything at all
            message = f"{source.path}: this architecture cannot be exported ({type(error).__name__})"
            raise EngineError(message) from error


def _write_onnx(module: Any, source: ModelFolder, file: Path) -> None:  # noqa: ANN401  # a torch module
    """A float32 graph with any number of pairs and tokens."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is optional, so untyped to mypy
        """Nothing but logits, from inputs named as the engines feed them."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:  # noqa: ANN401
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.module(input_ids=input_ids, attention_mask=attention_mask, **types).logits.float()

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if source.has_type_ids else [])]
    # Sizes of 0 and 1 would be taken as fixed.
    shape = (3, min(24, source.max_pair_tokens))
    example = tuple(np.zeros(shape, dtype=np.int64) if name == "token_type_ids" else np.ones(shape) for name in names)
    any_size = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        Logits().eval(),
        tuple(torch.tensor(values, dtype=torch.int64) for values in example),
        file,
        dynamo=True,
        opset_version=_OPSET,
        input_names=names,
        output_names=["logits"],
        dynamic_shapes=dict.fromkeys(names, any_size),
        external_data=False,
        verbose=False,
    )
