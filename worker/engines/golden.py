"""Golden pairs: texts with the float32 logits of the original model, which every engine has to reproduce."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from worker.engines.artifact import ModelFolder, read_json_object
from worker.engines.base import Engine
from worker.errors import EngineError
from worker.types import Batch, Float32Array, JsonValue, LabelRow, PairRef

GOLDEN_FILE: Final = "golden.json"
MIN_GOLDEN_PAIRS: Final = 64
_GOLDEN_LABELS: Final = 16
_EDGE_PAIRS: Final = 2
_TEXTS_FILE: Final = Path(__file__).with_name("golden_texts.json")


@dataclass(frozen=True, slots=True)
class TextPair:
    """A premise and a hypothesis."""

    premise: str
    hypothesis: str


@dataclass(frozen=True, slots=True)
class Golden:
    """Pairs and what the float32 model says of them: logits float32 [pairs, classes]."""

    pairs: tuple[TextPair, ...]
    logits: Float32Array


def golden_texts() -> tuple[TextPair, ...]:
    """The pairs that every export is measured on: many kinds of text, from one word to longer than most models take."""
    groups = json.loads(_TEXTS_FILE.read_bytes())
    return tuple(TextPair(group["premise"], hypothesis) for group in groups for hypothesis in group["hypotheses"])


def read_golden(folder: ModelFolder) -> Golden | None:
    """The folder's golden pairs; None where it has none.

    Raises:
        EngineError: the file is broken, has too few pairs, or is of another head.
    """
    file = folder.path / GOLDEN_FILE
    if not file.is_file():
        return None
    rows = read_json_object(file).get("pairs")
    if not isinstance(rows, list) or len(rows) < MIN_GOLDEN_PAIRS:
        message = (
            f"{file}: expected a list `pairs` of at least {MIN_GOLDEN_PAIRS}; write it anew by exporting the model"
        )
        raise EngineError(message)
    try:
        pairs = tuple(_pair(row) for row in rows)
        logits = np.array([row["logits"] for row in rows if isinstance(row, dict)], dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        message = f"{file}: each pair needs `premise`, `hypothesis` and `logits`; write it anew by exporting the model"
        raise EngineError(message) from error
    if logits.shape != (len(pairs), folder.head.classes) or not np.isfinite(logits).all():
        message = f"{file}: expected {folder.head.classes} finite logits for each pair; write it anew by exporting"
        raise EngineError(message)
    return Golden(pairs, logits)


def write_golden(file: Path, golden: Golden) -> None:
    """Write `golden` to `file`, one pair a line."""
    rows = (
        {"premise": pair.premise, "hypothesis": pair.hypothesis, "logits": [round(x, 6) for x in row]}
        for pair, row in zip(golden.pairs, golden.logits.astype(float).tolist(), strict=True)
    )
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text(f'{{"pairs": [\n{lines}\n]}}\n', encoding="utf-8")


def golden_digest(golden: Golden) -> str:
    """The sha256 of texts and logits, in hex."""
    texts = json.dumps([[pair.premise, pair.hypothesis] for pair in golden.pairs])
    return hashlib.sha256(texts.encode() + golden.logits.tobytes()).hexdigest()


def encode_pairs(folder: ModelFolder, pairs: Sequence[TextPair]) -> tuple[Batch, ...]:
    """Each pair as a batch of its own, the premise cut where the pair is too long for the model."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    tokenizer.no_padding()
    # The premise is cut; a hypothesis only where it has more than half of the room, in models for very short pairs.
    tokenizer.enable_truncation(folder.max_pair_tokens, strategy="longest_first")
    encodings = tokenizer.encode_batch([(pair.premise, pair.hypothesis) for pair in pairs])
    return tuple(_single(index, encoding.ids, encoding.type_ids) for index, encoding in enumerate(encodings))


def edge_pairs(folder: ModelFolder, lengths: Iterable[int]) -> tuple[Batch, ...]:
    """Pairs of exactly so many tokens, two of each length that has room for a hypothesis, as batches of their own."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    tokenizer.no_padding()
    texts = golden_texts()
    premise = max((pair.premise for pair in texts), key=len)
    hypotheses = sorted({pair.hypothesis for pair in texts}, key=len)[:_EDGE_PAIRS]
    tokenizer.no_truncation()
    least = [len(tokenizer.encode("", hypothesis).ids) for hypothesis in hypotheses]
    batches: list[Batch] = []
    for length in sorted({min(length, folder.max_pair_tokens) for length in lengths}):
        tokenizer.enable_truncation(length, strategy="only_first")
        # No word is less than a token.
        text = " ".join([premise] * (length // len(premise.split()) + 1))
        for hypothesis, needed in zip(hypotheses, least, strict=True):
            if needed < length:
                made = tokenizer.encode(text, hypothesis)
                batches.append(_single(len(batches), made.ids, made.type_ids))
    return tuple(batches)


def ranking_golden(folder: ModelFolder) -> tuple[Batch, ...]:
    """The golden texts as an instruction model gets them: prompts of type 0, options of type 1, a batch each."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    batches = []
    for index, pair in enumerate(golden_texts()):
        prompt, option = (tokenizer.encode(text).ids for text in (pair.premise, pair.hypothesis))
        prompt = prompt[: max(1, folder.max_pair_tokens - len(option))]
        ids = np.array([*prompt, *option], np.int32)
        types = np.repeat(np.array([0, 1], np.int32), (len(prompt), len(option)))
        batches.append(Batch((PairRef(0, index),), ids, types, np.array([len(ids)], np.int32)))
    return tuple(batches)


def one_pass_golden(folder: ModelFolder, row: LabelRow) -> tuple[Batch, ...]:
    """The golden texts as a one-pass model gets them: a text with all its hypotheses, a batch each."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(folder.max_pair_tokens, direction="right" if row.is_text_last else "left")
    label, end = (tokenizer.id_to_token(token) for token in (row.label_token, row.text_token))
    if label is None or end is None:
        raise EngineError(f"{folder.path}: its tokenizer lacks the tokens that mark labels: not a whole GLiClass model")
    most = row.most_labels or _GOLDEN_LABELS
    batches: list[Batch] = []
    for premise, pairs in groupby(golden_texts(), key=lambda pair: pair.premise):
        hypotheses = [pair.hypothesis for pair in pairs][:most]
        labels = "".join(f"{label}{hypothesis}" for hypothesis in hypotheses) + end
        ids = np.array(tokenizer.encode(labels + premise if row.is_text_last else premise + labels).ids, np.int32)
        types = (ids == row.label_token).astype(np.int32) + 2 * (ids == row.text_token).astype(np.int32)
        asked = np.array([len(hypotheses)], np.int32)
        batches.append(Batch((PairRef(0, len(batches)),), ids, types, np.array([len(ids)], np.int32), asked))
    return tuple(batches)


def score_alone(engine: Engine, folder: ModelFolder, pairs: Sequence[TextPair]) -> Float32Array:
    """Logits of `pairs`, float32 [pairs, classes], each scored alone so that nothing is padded."""
    return np.concatenate([engine.score(single).logits for single in encode_pairs(folder, pairs)])


def join_batches(batches: Sequence[Batch]) -> Batch:
    """The pairs of all `batches`, in order, as one batch."""
    counts = [np.ones(len(batch.refs), np.int32) if batch.hypotheses is None else batch.hypotheses for batch in batches]
    return Batch(
        refs=tuple(ref for batch in batches for ref in batch.refs),
        token_ids=np.concatenate([batch.token_ids for batch in batches]),
        type_ids=np.concatenate([batch.type_ids for batch in batches]),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        hypotheses=None if all(batch.hypotheses is None for batch in batches) else np.concatenate(counts),
    )


def _single(index: int, ids: Sequence[int], types: Sequence[int]) -> Batch:
    """One pair as a batch."""
    token_ids, type_ids, lengths = (np.array(each, dtype=np.int32) for each in (ids, types, [len(ids)]))
    return Batch((PairRef(0, index),), token_ids, type_ids, lengths)


def _pair(row: JsonValue) -> TextPair:
    if not isinstance(row, dict):
        message = "a pair is not an object"
        raise TypeError(message)
    return TextPair(str(row["premise"]), str(row["hypothesis"]))
