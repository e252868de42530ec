"""Tokenised pairs on disk: training reads them in any order and holds none of them in memory."""

import itertools
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from worker.pipeline.tokenization import PairTemplate
from worker.training.pairs import LabelledPair
from worker.types import Int32Array

_TOKENS: Final = "tokens.i32"
_TYPES: Final = "types.u8"
_INDEX: Final = "index.npz"
_FACTS: Final = "facts.json"
_CHUNK_PAIRS: Final = 2_048
_PADDED_TO: Final = 8
"""Tokens: libraries of matrix products prepare, and keep, something for every shape that they meet."""
_CHUNKS_SORTED: Final = 50
"""Batches that are cut from one sorted stretch: pairs of like length share a batch, and batches still come mixed."""


@dataclass(frozen=True, slots=True)
class PairStore:
    """Pairs in a folder, memory-mapped."""

    token_ids: npt.NDArray[np.int32]
    """int32 [tokens of all pairs]."""
    type_ids: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    """int64 [pairs + 1]: where each pair begins in both."""
    is_entailment: npt.NDArray[np.bool_]
    dropped: int
    """Pairs that were left out: their hypothesis leaves no room for text."""

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.is_entailment)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each pair."""
        return np.diff(self.offsets)

    def padded(self, rows: npt.NDArray[np.int64], pad_id: int) -> tuple[npt.NDArray[np.int64], ...]:
        """`input_ids`, `attention_mask` and `type_ids` of some pairs, each int64 [rows, longest and a few]."""
        lengths = self.lengths[rows]
        longest = int(lengths.max(initial=0))
        shape = (len(rows), longest + -longest % _PADDED_TO)
        ids, types = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
        for place, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            start = self.offsets[row]
            ids[place, :length] = self.token_ids[start : start + length]
            types[place, :length] = self.type_ids[start : start + length]
        mask = (np.arange(shape[1]) < lengths[:, None]).astype(np.int64)
        return ids, mask, types


class PairJoiner:
    """Joins pairs as the worker does: the text is cut to fit, the hypothesis never."""

    def __init__(self, tokenizer_file: Path, max_pair_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._template = PairTemplate.learn(self._tokenizer)
        self._most = max_pair_tokens

    def join(self, pairs: Sequence[LabelledPair]) -> list[tuple[Int32Array, npt.NDArray[np.uint8]] | None]:
        """Token ids and type ids of each pair; None where the hypothesis leaves no room for text."""
        texts = [text for pair in pairs for text in (pair.premise, pair.hypothesis)]
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._joined(encoded[i].ids, encoded[i + 1].ids) for i in range(0, len(encoded), 2)]

    def _joined(self, premise: list[int], hypothesis: list[int]) -> tuple[Int32Array, npt.NDArray[np.uint8]] | None:
        template = self._template
        room = self._most - template.special_tokens - len(hypothesis)
        if room < 1:
            return None
        kept = premise[:room]
        ids = (template.prefix, np.array(kept, np.int32), template.middle, np.array(hypothesis, np.int32))
        types = (
            template.prefix_types,
            np.full(len(kept), template.premise_type),
            template.middle_types,
            np.full(len(hypothesis), template.hypothesis_type),
            template.suffix_types,
        )
        return np.concatenate((*ids, template.suffix)).astype(np.int32), np.concatenate(types).astype(np.uint8)


def write_store(folder: Path, pairs: Iterable[LabelledPair], joiner: PairJoiner) -> PairStore:
    """Tokenise `pairs` into the new folder as they come; memory holds a chunk of them and eight bytes of each."""
    folder.mkdir(parents=True, exist_ok=True)
    offsets, is_true, dropped = array("q", [0]), array("b"), 0
    with (folder / _TOKENS).open("wb") as tokens, (folder / _TYPES).open("wb") as types:
        waiting = iter(pairs)
        while chunk := list(itertools.islice(waiting, _CHUNK_PAIRS)):
            for pair, joined in zip(chunk, joiner.join(chunk), strict=True):
                if joined is None:
                    dropped += 1
                    continue
                tokens.write(joined[0].tobytes())
                types.write(joined[1].tobytes())
                offsets.append(offsets[-1] + len(joined[0]))
                is_true.append(pair.is_entailment)
    np.savez(folder / _INDEX, offsets=np.array(offsets, np.int64), is_entailment=np.array(is_true, np.bool_))
    (folder / _FACTS).write_text(json.dumps({"dropped": dropped, "pairs": len(is_true)}), encoding="utf-8")
    return open_store(folder)


def open_store(folder: Path) -> PairStore:
    """The pairs that `write_store` left in `folder`."""
    with np.load(folder / _INDEX) as index:
        offsets, is_entailment = index["offsets"], index["is_entailment"]
    facts = json.loads((folder / _FACTS).read_bytes())
    if len(is_entailment) == 0:
        return PairStore(np.empty(0, np.int32), np.empty(0, np.uint8), offsets, is_entailment, facts["dropped"])
    tokens = np.memmap(folder / _TOKENS, np.int32, "r")
    types = np.memmap(folder / _TYPES, np.uint8, "r")
    return PairStore(tokens, types, offsets, is_entailment, facts["dropped"])


def is_stored(folder: Path) -> bool:
    """Whether `write_store` was once done with `folder`."""
    return (folder / _FACTS).is_file()


def length_grouped(lengths: npt.NDArray[np.int64], batch_pairs: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Every pair once, in batches of like length and in a drawn order; the same for the same seed."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(lengths))
    batches: list[npt.NDArray[np.int64]] = []
    for stretch in _stretches(order, batch_pairs * _CHUNKS_SORTED):
        by_length = stretch[np.argsort(-lengths[stretch], kind="stable")]
        batches += list(_stretches(by_length, batch_pairs))
    return [batches[place] for place in draw.permutation(len(batches))]


def _stretches(order: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    return (order[start : start + size] for start in range(0, len(order), size))
