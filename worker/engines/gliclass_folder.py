"""A GLiClass model folder: what its config.json says, and what of it this worker does not compute."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.engines.artifact import CONFIG_FILE, TOKENIZER_FILE, ModelFolder, longest_pair, read_json_object
from worker.errors import EngineError
from worker.types import JsonValue, LabelRow, NliHead

HEAD: Final = NliHead(classes=2, entailment=0, contradiction=1)
"""A label's logit stands in the first column; the second is 0, so that a label alone gets the sigmoid of its own."""
_ROW_TOKENS: Final = 1024
"""What GLiClass' own pipeline cuts to, where an encoder has no table of positions."""
_SUPPORTED: Final = {
    "architecture_type": ("uni-encoder",),
    "scorer_type": ("simple", "weighted-dot", "mlp"),
    "pooling_strategy": ("first", "avg"),
    "class_token_pooling": ("first", "average"),
    "encoder_layer_id": (-1,),
    "use_lstm": (False,),
    "squeeze_layers": (False,),
    "use_calibrator": (False,),
    "multimodal": (False,),
}
"""What is computed, by key of config.json; other scorers and poolings depend on what else is in a batch."""
_DEFAULTS: Final[Mapping[str, JsonValue]] = {
    "architecture_type": "uni-encoder",
    "scorer_type": "simple",
    "pooling_strategy": "first",
    "class_token_pooling": "first",
    "encoder_layer_id": -1,
}
"""What GLiClass' own configuration takes for a key that is not there; False for the switches."""
_ENCODERS: Final = ("bert", "deberta-v2", "electra", "modernbert", "roberta", "xlm-roberta")


@dataclass(frozen=True, slots=True)
class GliclassConfig:
    """How a uni-encoder of this folder computes."""

    encoder: Mapping[str, JsonValue]
    """The encoder's own configuration, as transformers takes it."""
    row: LabelRow
    scorer: str
    pooling: str
    activation: str
    averages_labels: bool
    """Whether a label is the mean of its tokens; else its first one stands for it."""
    has_label_token: bool
    """Whether the token before a label counts as one of its own."""
    takes_text_alone: bool
    """Whether the text is pooled from its own token on; else the whole row is."""
    has_segments: bool
    normalizes: bool


def open_gliclass_folder(path: Path, name: str | None = None) -> tuple[ModelFolder, GliclassConfig]:
    """The GLiClass uni-encoder in the folder `path`, called `name` or like the folder.

    Raises:
        EngineError: a file is missing or broken, the model is no GLiClass model, or one that is not computed here.
    """
    config = read_json_object(path / CONFIG_FILE)
    encoder = config.get("encoder_config")
    if config.get("model_type") != "GLiClass" or not isinstance(encoder, dict):
        raise EngineError(f"{path}: not a GLiClass model; engine: gliclass takes uni-encoders of that library")
    if not (path / TOKENIZER_FILE).is_file():
        raise EngineError(f"{path}: no {TOKENIZER_FILE}: not a model folder")
    for key, supported in _SUPPORTED.items():
        _refuse_other(path, key, config.get(key, _DEFAULTS.get(key, False)), supported)
    _refuse_other(path, "encoder_config.model_type", encoder.get("model_type", "deberta-v2"), _ENCODERS)
    vocabulary = _count(config, "vocab_size") or _count(encoder, "vocab_size") or 0
    encoder = {"model_type": "deberta-v2", **encoder, "vocab_size": vocabulary}
    pad = encoder.get("pad_token_id")
    folder = ModelFolder(
        path=path,
        name=name or path.resolve().name,
        head=HEAD,
        max_pair_tokens=longest_pair(_with_positions(encoder), path),
        pad_token_id=pad if isinstance(pad, int) else 0,
        has_type_ids=True,  # they tell labels from text
    )
    return folder, _read(config, encoder, vocabulary)


def _read(config: Mapping[str, JsonValue], encoder: Mapping[str, JsonValue], vocabulary: int) -> GliclassConfig:
    most = config.get("max_labels_alloc", "dynamic")
    if not isinstance(most, int):
        most = None if most == "dynamic" else _count(config, "max_num_classes") or 25
    label, text = (_count(config, key) for key in ("class_token_index", "text_token_index"))
    return GliclassConfig(
        encoder=encoder,
        row=LabelRow(
            label_token=vocabulary if label is None else label,
            text_token=vocabulary + 1 if text is None else text,
            is_text_last=bool(config.get("prompt_first", False)),
            most_labels=most,
        ),
        scorer=str(config.get("scorer_type", "simple")),
        pooling=str(config.get("pooling_strategy", "first")),
        activation=str(config.get("projector_hidden_act", "gelu")),
        averages_labels=config.get("class_token_pooling", "first") == "average",
        has_label_token=bool(config.get("embed_class_token", True)),
        takes_text_alone=bool(config.get("extract_text_features", False)),
        has_segments=bool(config.get("use_segment_embeddings", False)),
        normalizes=bool(config.get("normalize_features", False)),
    )


def _refuse_other(path: Path, key: str, found: JsonValue, supported: tuple[str | int, ...]) -> None:
    if found not in supported:
        expected = " or ".join(map(str, supported)).lower()
        raise EngineError(f"{path}: {key}: {found} is not supported by engine: gliclass; it takes {expected}")


def _with_positions(encoder: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """DeBERTa's positions are relative: its table of them bounds nothing."""
    is_relative = encoder["model_type"] == "deberta-v2" and not encoder.get("position_biased_input", True)
    return {**encoder, "max_position_embeddings": _ROW_TOKENS} if is_relative else encoder


def _count(config: Mapping[str, JsonValue], key: str) -> int | None:
    """A number from 0 on; None where there is none, or -1 stands for it."""
    value = config.get(key)
    return value if isinstance(value, int) and value >= 0 else None
