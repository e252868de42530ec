"""A model folder on disk: which files count, what its head means, how long its pairs may be, its digest."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import EngineError
from worker.types import JsonValue, NliHead

CONFIG_FILE: Final = "config.json"
TOKENIZER_FILE: Final = "tokenizer.json"
TOKENIZER_CONFIG_FILE: Final = "tokenizer_config.json"
OPENVINO_FILE: Final = "openvino_model.xml"
OPENVINO_WEIGHTS_FILE: Final = "openvino_model.bin"
ONNX_FILE: Final = "model.onnx"
ONNX_WEIGHTS_FILES: Final = ("model.onnx.data", "model.onnx_data")
SAFETENSORS_FILE: Final = "model.safetensors"
SAFETENSORS_INDEX_FILE: Final = "model.safetensors.index.json"
SAFETENSORS_SHARDS: Final = "model-*-of-*.safetensors"

_POSITIONS_START_AFTER_PADDING: Final = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"}
    | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
)
"""Model types that number positions from pad_token_id + 1, so that the table holds that many fewer tokens."""
_DEFAULT_POSITIONS: Final = 512
_ENTAILMENT: Final = re.compile(r"entail(s|ed|ment)?")
_NOT_ENTAILMENT: Final = re.compile(r"(not?|non)[ _-]?entail(s|ed|ment)?")
_CONTRADICTION: Final = re.compile(r"contradict(s|ed|ion|ory)?")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that holds an NLI model, its configuration read and found sound."""

    path: Path
    name: str
    """How predictions call the model."""
    head: NliHead
    max_pair_tokens: int
    """Longest pair the model takes, special tokens included."""
    pad_token_id: int
    has_type_ids: bool
    """Whether the model tells premise from hypothesis by token type ids."""

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer, in the format of the `tokenizers` library."""
        return self.path / TOKENIZER_FILE

    def openvino_file(self) -> Path | None:
        """The graph OpenVINO reads: its own format first, else ONNX; None where there is neither."""
        if (self.path / OPENVINO_FILE).is_file() and (self.path / OPENVINO_WEIGHTS_FILE).is_file():
            return self.path / OPENVINO_FILE
        return self.path / ONNX_FILE if (self.path / ONNX_FILE).is_file() else None

    def openvino_weights(self) -> tuple[Path, ...]:
        """The files that hold the weights of `openvino_file`."""
        graph = self.openvino_file()
        if graph is None:
            return ()
        if graph.name == OPENVINO_FILE:
            return (self.path / OPENVINO_WEIGHTS_FILE,)
        beside = (self.path / name for name in ONNX_WEIGHTS_FILES)
        return (graph, *(file for file in beside if file.is_file()))

    def safetensors_files(self) -> tuple[Path, ...]:
        """The files of the original weights, one or in shards; empty where there are none."""
        whole = self.path / SAFETENSORS_FILE
        return (whole,) if whole.is_file() else tuple(sorted(self.path.glob(SAFETENSORS_SHARDS)))

    def digest(self, weights: Iterable[Path]) -> str:
        """What names this model in predictions: `sha256sum WEIGHTS config.json tokenizer.json | sort | sha256sum`."""
        files = (*weights, self.path / CONFIG_FILE, self.tokenizer_file)
        lines = sorted(f"{file_sha256(file)}  {file.name}\n" for file in files)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def open_folder(path: Path, name: str | None = None) -> ModelFolder:
    """The NLI model in the folder `path`, called `name` or like the folder.

    Raises:
        EngineError: a file is missing or broken, or the model is no NLI model.
    """
    config = read_json_object(path / CONFIG_FILE)
    if not (path / TOKENIZER_FILE).is_file():
        message = (
            f"{path}: no {TOKENIZER_FILE}; write one with "
            "transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
        raise EngineError(message)
    pad_token_id = config.get("pad_token_id")
    return ModelFolder(
        path=path,
        name=name or path.resolve().name,
        head=read_head(config, path),
        max_pair_tokens=longest_pair(config, path),
        pad_token_id=pad_token_id if isinstance(pad_token_id, int) else 0,
        has_type_ids=_number(config, "type_vocab_size", 0) > 1,
    )


def read_head(config: Mapping[str, JsonValue], path: Path) -> NliHead:
    """What the model's classes mean, from `id2label`; `path` is for the message.

    Raises:
        EngineError: the labels are not those of an NLI model.
    """
    id2label = config.get("id2label")
    names = (
        {int(index): str(label).strip().lower() for index, label in id2label.items() if index.isdecimal()}
        if (isinstance(id2label, dict))
        else {}
    )
    entailment = [index for index, label in names.items() if _ENTAILMENT.fullmatch(label)]
    against_pattern = _NOT_ENTAILMENT if len(names) == 2 else _CONTRADICTION  # noqa: PLR2004  # two classes or three
    against = [index for index, label in names.items() if against_pattern.fullmatch(label)]
    neutral = [index for index, label in names.items() if label == "neutral"]
    is_complete = sorted(names) == list(range(len(names))) and len(neutral) == len(names) - 2
    if not (is_complete and len(names) in {2, 3} and len(entailment) == len(against) == 1):
        found = ", ".join(names[index] for index in sorted(names)[:10]) or "none"
        message = (
            f"{path}: not an NLI model: {CONFIG_FILE} names the labels {found}; expected "
            "entailment and not_entailment, or entailment, neutral and contradiction"
        )
        raise EngineError(message)
    return NliHead(classes=len(names), entailment=entailment[0], contradiction=against[0])


def read_json_object(file: Path) -> dict[str, JsonValue]:
    """The JSON object in `file`.

    Raises:
        EngineError: there is no such file, or it holds something else.
    """
    try:
        value: JsonValue = json.loads(file.read_bytes())
    except OSError as error:
        message = f"{file.parent}: no readable {file.name}: not a model folder"
        raise EngineError(message) from error
    except ValueError as error:
        message = f"{file}: not valid JSON"
        raise EngineError(message) from error
    if not isinstance(value, dict):
        message = f"{file}: expected a JSON object"
        raise EngineError(message)
    return value


def file_sha256(file: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def longest_pair(config: Mapping[str, JsonValue], path: Path) -> int:
    """Tokens that an encoder of this configuration takes, and the tokenizer in the folder `path` allows."""
    positions = _number(config, "max_position_embeddings", _DEFAULT_POSITIONS)
    if config.get("model_type") in _POSITIONS_START_AFTER_PADDING:
        positions -= _number(config, "pad_token_id", 1) + 1
    tokenizer_config = path / TOKENIZER_CONFIG_FILE
    if tokenizer_config.is_file():
        # transformers writes 1e30 for "no limit", which is above any table.
        positions = min(positions, _number(read_json_object(tokenizer_config), "model_max_length", positions))
    return positions


def _number(config: Mapping[str, JsonValue], key: str, default: int) -> int:
    value = config.get(key)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
