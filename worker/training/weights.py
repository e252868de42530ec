"""Models as torch holds them: loaded for training with a 2-class head, and written as a model folder."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.engines.artifact import CONFIG_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, read_head, read_json_object
from worker.engines.telemetry import silence_telemetry
from worker.errors import EngineError

INSTALL_HINT: Final = 'pip install "nli-stream-worker[train]"'
LABELS: Final = ("entailment", "not_entailment")
_NEW: Final = ("classifier", "pooler", "score", "head")
"""Parts of an architecture that a plain encoder comes without; they start from random values."""


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model that can learn."""

    module: Any
    """A torch module of transformers with two classes."""
    entailment: int
    """Which of the two."""
    pad_token_id: int
    has_type_ids: bool
    is_new_head: bool
    """Whether the head starts from random values."""


def need_torch() -> Any:  # noqa: ANN401  # torch is optional
    """The module torch.

    Raises:
        EngineError: it is not installed.
    """
    if not all(importlib.util.find_spec(module) for module in ("torch", "transformers", "safetensors")):
        raise EngineError(f"training needs packages that are not installed: {INSTALL_HINT}")
    silence_telemetry()
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    return torch


def load_trainable(folder: Path, seed: int) -> Trainable:
    """The encoder in `folder` with its 2-class NLI head, or with a new one drawn with `seed`.

    Raises:
        EngineError: torch is missing, or the folder holds no encoder in safetensors.
    """
    torch = need_torch()
    import transformers  # noqa: PLC0415  # heavy, and not a requirement of the worker

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    labels, entailment = _labels(folder)
    torch.manual_seed(seed)
    try:
        module, report = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise anything at all
        raise EngineError(
            f"{folder}: not an encoder that transformers can load from safetensors ({type(error).__name__})"
        ) from error
    missing = [key for key in report["missing_keys"] if not any(part in key for part in _NEW)]
    if missing:
        raise EngineError(f"{folder}: {len(missing)} weights of the encoder are missing: not a whole model")
    config = module.config
    types = getattr(config, "type_vocab_size", 0) or 0
    is_new = bool(report["missing_keys"]) or bool(report["mismatched_keys"])
    return Trainable(module, entailment, int(getattr(config, "pad_token_id", 0) or 0), types > 1, is_new)


def set_dropout(module: Any, probability: float) -> None:  # noqa: ANN401  # torch is optional
    """Let every layer of a torch module forget with `probability`; what is saved later does not say so."""
    torch = need_torch()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = probability
        if isinstance(getattr(layer, "attention_dropout", None), float):
            layer.attention_dropout = probability  # of architectures that give it to the attention as a number


def save_trained(trained: Trainable, base: Path, target: Path) -> None:
    """Write a model folder: weights, configuration, and the tokenizer of `base` without its own cutting and padding."""
    target.mkdir(parents=True, exist_ok=True)
    trained.module.save_pretrained(target, safe_serialization=True)
    tokenizer = json.loads((base / TOKENIZER_FILE).read_bytes())
    tokenizer["truncation"] = tokenizer["padding"] = None
    (target / TOKENIZER_FILE).write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    if (base / TOKENIZER_CONFIG_FILE).is_file():
        shutil.copyfile(base / TOKENIZER_CONFIG_FILE, target / TOKENIZER_CONFIG_FILE)


def _labels(folder: Path) -> tuple[tuple[str, ...], int]:
    """The two classes in the model's own order where it has such a head, else ours; and which is entailment."""
    if not (folder / TOKENIZER_FILE).is_file():
        raise EngineError(f"{folder}: no {TOKENIZER_FILE}: not a model folder")
    config = read_json_object(folder / CONFIG_FILE)
    try:
        head = read_head(config, folder)
    except EngineError:
        return LABELS, 0
    if head.classes != len(LABELS) or head.entailment == 0:
        return LABELS, 0
    return LABELS[::-1], 1
