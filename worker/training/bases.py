"""The model that training starts from, and what it had seen before."""

import hashlib
import json
from pathlib import Path

from worker.engines.artifact import SAFETENSORS_FILE, TOKENIZER_FILE, file_sha256
from worker.engines.hub import download
from worker.engines.source import BUNDLED_FOLDER, HubModel, parse_source
from worker.errors import ConfigError
from worker.training.card import Provenance
from worker.training.prepare import HeldOut
from worker.training.recipe import Recipe


def base_folder(base: str | None) -> Path:
    """The folder of the model that training starts from.

    Raises:
        ConfigError: none is named, or it names nothing.
        EngineError: it cannot be downloaded.
    """
    if base is None:
        raise ConfigError("base: expected a folder or a Hugging Face id@commit, in the recipe or as --base")
    source = parse_source(base)
    if isinstance(source, HubModel):
        return download(source.repository, source.commit)
    if source == BUNDLED_FOLDER or not (source / SAFETENSORS_FILE).is_file():
        raise ConfigError(f"base: {base}: no {SAFETENSORS_FILE}; training starts from the original weights")
    return source


def base_name(named: str, folder: Path) -> str:
    """What a card calls the base: its Hugging Face id@commit, or the folder's name and the digest of its weights."""
    if isinstance(parse_source(named), HubModel):
        return named
    return f"{folder.resolve().name}, {SAFETENSORS_FILE} sha256:{file_sha256(folder / SAFETENSORS_FILE)}"


def base_digest(folder: Path) -> str:
    """A name for the weights and the tokenizer of a folder that need not be an NLI model yet."""
    files = (folder / SAFETENSORS_FILE, folder / TOKENIZER_FILE)
    digests = [file_sha256(file) for file in files if file.is_file()]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def check_fits(base: Provenance, recipe: Recipe, held_out: HeldOut) -> None:
    """Nothing, where the base had seen nothing that a training must not.

    Raises:
        ConfigError: otherwise.
    """
    seen = sorted({use.name for use in base.uses if use.name in held_out.sets or use.cluster in held_out.clusters})
    if seen:
        raise ConfigError(f"held out: the base was trained on {', '.join(seen)}; start from one that was not")
    unfit = sorted(use.name for use in base.uses if use.ship != "yes")
    if recipe.only == "shippable" and unfit:
        raise ConfigError(f"only: the base was trained on sets that may not be given away: {', '.join(unfit)}")
