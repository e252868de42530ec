"""A model small enough to be trained in a test."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.support import tiny_models
from worker.engines.artifact import SAFETENSORS_FILE


def write_base(folder: Path) -> Path:
    """An NLI model with random weights in `folder`, small enough to learn from; gives the folder."""
    tiny_models.build(folder, tiny_models.bert(), ("entailment", "not_entailment"))
    weights = load_file(folder / SAFETENSORS_FILE)
    rough = {name: each if "Norm" in name else each / 10 for name, each in weights.items()}
    save_file(rough, folder / SAFETENSORS_FILE, {"format": "pt"})
    return folder
