"""The Hugging Face hub: files of a model at one commit."""

from pathlib import Path
from typing import Final

from worker.engines.telemetry import silence_telemetry
from worker.errors import EngineError

_WANTED_FILES: Final = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "openvino_model.xml",
    "openvino_model.bin",
    "golden.json",
    "README.md",
)
"""All that is ever fetched: data, no pickles and no code."""


def download(repository: str, commit: str) -> Path:
    """The folder of the hub's cache that holds the model; what it lacks is downloaded.

    Raises:
        EngineError: there is no such model, or the hub is out of reach.
    """
    silence_telemetry()
    import huggingface_hub  # noqa: PLC0415  # only a model on the hub needs the client
    import huggingface_hub.errors  # noqa: PLC0415  # as above

    try:
        folder = huggingface_hub.snapshot_download(repository, revision=commit, allow_patterns=list(_WANTED_FILES))
    # The client's own errors, and those of its transport, are OSErrors and ValueErrors too, but not all of them.
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise EngineError(
            f"model: {repository}@{commit} cannot be downloaded ({type(error).__name__}); check the id and the commit, "
            "and whether this machine reaches the hub; a downloaded folder can be named instead"
        ) from error
    return Path(folder)
