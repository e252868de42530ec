"""Token vectors on disk: what shortlists of labels are drawn up from, for the models of one vocabulary.

`python -m worker.engines.token_vectors MODEL_FOLDER` writes them for a model with another vocabulary than the bundled
one's, from the word embeddings in its safetensors.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.engines.artifact import ModelFolder, open_folder, read_json_object
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError
from worker.types import Float32Array, TokenVectors

VECTORS_FILE: Final = "token_vectors.npz"
SMOOTHING: Final = 1e-3
"""`a` of the weight a / (a + p) of a token of probability p (Arora, Liang and Ma 2017)."""
_EMBEDDINGS: Final = ("word_embeddings.weight", "tok_embeddings.weight", "embed_tokens.weight", "shared.weight")
_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LARGEST: Final = 7
"""Values are kept in 4 bits, from -7 to 7."""
_LARGEST_DEVIATIONS: Final = 2.5


def load_token_vectors(tokenizer_file: Path) -> TokenVectors | None:
    """The vectors beside `tokenizer_file`, else the bundled ones where the vocabulary is the same, else None.

    Raises:
        EngineError: those beside it cannot be read, or were made for another vocabulary.
    """
    vocabulary = vocabulary_digest(tokenizer_file)
    own = tokenizer_file.parent / VECTORS_FILE
    if own.is_file():
        found, made_for = _read(own)
        if made_for != vocabulary:
            raise EngineError(f"{own}: made for another vocabulary; write it anew or remove it")
        return found
    bundled = BUNDLED_FOLDER / VECTORS_FILE
    if bundled.is_file():
        found, made_for = _read(bundled)
        if made_for == vocabulary:
            return found
    return None


def write_token_vectors(file: Path, tokenizer_file: Path, vectors: Float32Array) -> None:
    """Keep `vectors`, float32 [tokens, dimensions], for the vocabulary of `tokenizer_file`; dimensions are even."""
    # Steps for what is usual: a single large value would leave too few for the others.
    largest = np.minimum(np.abs(vectors).max(axis=1), _LARGEST_DEVIATIONS * vectors.std(axis=1))
    scales = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float16)
    values = np.clip(np.rint(vectors / scales.astype(np.float32)[:, np.newaxis]), -_LARGEST, _LARGEST)
    nibbles = (values + _LARGEST + 1).astype(np.uint8)
    packed = nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)
    with file.open("wb") as stream:
        np.savez_compressed(
            stream, packed=packed, scales=scales, vocabulary=np.array(vocabulary_digest(tokenizer_file))
        )


def vocabulary_digest(tokenizer_file: Path) -> str:
    """What tells one vocabulary from another: a sha256 over its tokens in the order of their ids, in hex."""
    tokens = token_list(tokenizer_file)
    return hashlib.sha256("\n".join(tokens).encode("utf-8", "surrogatepass")).hexdigest()


def from_word_embeddings(folder: ModelFolder) -> Float32Array:
    """Vectors for the tokens of `folder`, float32 [tokens, dimensions]: its own embeddings, rare words weighing more.

    How frequent a token is is read off its id: vocabularies number words by falling frequency.

    Raises:
        EngineError: it has no safetensors, or no word embeddings in them.
    """
    tokens = token_list(folder.tokenizer_file)
    embeddings = _word_embeddings(folder)[: len(tokens)]
    centred = embeddings - embeddings.mean(axis=0)
    return np.asarray(centred * token_weights(tokens[: len(embeddings)])[:, np.newaxis], np.float32)


def token_weights(tokens: Sequence[str]) -> Float32Array:
    """float32 [tokens]: how much each says about a text, from its rank among those of two letters or more."""
    is_word = np.array([len(token.strip("#\u2581\u0120")) > 1 and not token.startswith(("[", "<")) for token in tokens])
    rank = np.where(is_word, np.cumsum(is_word), len(tokens) / 30)
    share = 1.0 / (rank + 1.0)
    share /= share[is_word].sum()
    return np.asarray(SMOOTHING / (SMOOTHING + share), np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the vectors of a model folder into it."""
    parser = argparse.ArgumentParser(prog="python -m worker.engines.token_vectors", description=__doc__)
    parser.add_argument("folder", type=Path, help="model folder with tokenizer.json and safetensors")
    asked = parser.parse_args(arguments)
    try:
        folder = open_folder(asked.folder)
        write_token_vectors(asked.folder / VECTORS_FILE, folder.tokenizer_file, from_word_embeddings(folder))
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read(file: Path) -> tuple[TokenVectors, str]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            packed, scales, vocabulary = arrays["packed"], arrays["scales"], str(arrays["vocabulary"])
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{file}: no token vectors; write it anew or remove it") from error
    values = np.empty((packed.shape[0], packed.shape[1] * 2), np.int8)
    values[:, 0::2] = (packed & 15).astype(np.int8) - (_LARGEST + 1)
    values[:, 1::2] = (packed >> 4).astype(np.int8) - (_LARGEST + 1)
    return TokenVectors(values, scales.astype(np.float32)), vocabulary


def token_list(tokenizer_file: Path) -> list[str]:
    """The tokens in the order of their ids."""
    document: Any = read_json_object(tokenizer_file)
    try:
        vocabulary = document["model"]["vocab"]
        if isinstance(vocabulary, list):  # a unigram model lists tokens with their scores, in the order of their ids
            return [str(token) for token, _ in vocabulary]
        return [str(token) for token, _ in sorted(vocabulary.items(), key=lambda item: int(item[1]))]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{tokenizer_file}: no vocabulary") from error


def _word_embeddings(folder: ModelFolder) -> Float32Array:
    for file in folder.safetensors_files():
        header, start = _header(file)
        for name, entry in header.items():
            if name.endswith(_EMBEDDINGS) and entry["dtype"] in _TYPES:
                return _tensor(file, entry, start)
    raise EngineError(f"{folder.path}: no word embeddings in safetensors; shortlists need them")


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds, and where its data begins."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(size)), 8 + size


def _tensor(file: Path, entry: dict[str, Any], start: int) -> Float32Array:
    kind = np.dtype(_TYPES[entry["dtype"]])
    begin, end = entry["data_offsets"]
    raw: npt.NDArray[Any] = np.fromfile(file, kind, (end - begin) // kind.itemsize, offset=start + begin)
    if entry["dtype"] == "BF16":  # the upper half of a float32
        raw = (raw.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(raw, np.float32).reshape(entry["shape"])


if __name__ == "__main__":
    raise SystemExit(main())
