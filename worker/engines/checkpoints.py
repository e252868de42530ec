"""Weights from a folder into a torch module of transformers: safetensors alone, all of them, no code of theirs."""

from typing import Any

from worker.engines.artifact import ModelFolder
from worker.errors import EngineError


def load_module(folder: ModelFolder, architecture: str, dtype: Any) -> Any:  # noqa: ANN401  # torch is optional
    """The model in `folder`, ready to compute; `architecture` is the name of one of transformers' Auto classes.

    Raises:
        EngineError: the folder holds no safetensors, or not all weights of its architecture.
    """
    import transformers  # noqa: PLC0415  # heavy, and not a requirement of the worker

    if not folder.safetensors_files():
        message = f"{folder.path}: no model.safetensors; other weight formats can run code and are not loaded"
        raise EngineError(message)
    transformers.utils.logging.disable_progress_bar()
    try:
        module, report = getattr(transformers, architecture).from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
        )
    except Exception as error:  # transformers and safetensors raise anything at all
        message = f"{folder.path}: transformers cannot load this model ({type(error).__name__})"
        raise EngineError(message) from error
    if report["missing_keys"]:
        # transformers would go on with random values in their place.
        message = (
            f"{folder.path}: {len(report['missing_keys'])} weights of its architecture are missing: not a whole model"
        )
        raise EngineError(message)
    return module.eval()
