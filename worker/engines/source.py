"""Where a model comes from: bundled with the worker, a folder, or a pinned revision on the Hugging Face hub."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.hub import download
from worker.errors import ConfigError

BUNDLED: Final = "bundled"
BUNDLED_NAME: Final = "minilm-nli"
BUNDLED_FOLDER: Final = Path(__file__).parent.parent / "bundled" / "model"
_HUB_ID: Final = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub at one commit."""

    repository: str
    commit: str


def parse_source(model: str) -> Path | HubModel:
    """What `model` names: a folder (the bundled one too), or a model on the hub.

    Raises:
        ConfigError: neither, or a hub id without a pinned commit.
    """
    if model == BUNDLED:
        return BUNDLED_FOLDER
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        return folder
    repository, _, revision = model.partition("@")
    if not _HUB_ID.fullmatch(repository) or repository.startswith("."):
        raise ConfigError(f"model: no such folder: {model}; expected {BUNDLED}, a folder, or a Hugging Face id@commit")
    if not _COMMIT.fullmatch(revision):
        raise ConfigError(
            f"model: {model}: no such folder, and as a Hugging Face id it needs a pinned revision: "
            f"{repository}@<the commit's 40 hexadecimal digits>, from the model page's history"
        )
    return HubModel(repository, revision)


def fetch_folder(model: str) -> Path:
    """The folder of what `model` names, whatever kind of model it is; downloads what the hub's cache does not hold.

    Raises:
        ConfigError: it names nothing.
        EngineError: it cannot be downloaded.
    """
    source = parse_source(model)
    return download(source.repository, source.commit) if isinstance(source, HubModel) else source


def fetch_model(model: str) -> ModelFolder:
    """The model that `model` names, opened; downloads what the hub's cache does not hold.

    Raises:
        ConfigError: it names nothing.
        EngineError: it cannot be downloaded, or is no NLI model.
    """
    source = parse_source(model)
    if isinstance(source, HubModel):
        return open_folder(download(source.repository, source.commit), model)
    return open_folder(source, BUNDLED_NAME if model == BUNDLED else None)
