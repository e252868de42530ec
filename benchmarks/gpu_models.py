"""The models and the batches that the GPU benchmark runs: random weights of real shapes, pairs of real lengths."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.source import BUNDLED_FOLDER
from worker.types import Batch, PairRef

LENGTHS_FILE = Path(__file__).with_name("length_mix.json")
LABELS = ("entailment", "neutral", "contradiction")
PAIRS = 8192
"""How many pairs a workload has: enough for the largest budget, several times over."""
_COMMON: dict[str, Any] = {"max_position_embeddings": 512}
_DEBERTA: dict[str, Any] = {
    "vocab_size": 128_100,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
_MODERN: dict[str, Any] = {
    "vocab_size": 50_368,
    "local_attention": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Shape:
    """What a model is like."""

    config: str
    layers: int
    hidden: int
    heads: int
    intermediate: int
    more: dict[str, Any]
    pairs_per_second: int
    """To be reached on one H200 with 128 tokens a pair, engine alone."""
    layouts: tuple[str, ...]


SHAPES = {
    "minilm": Shape("BertConfig", 6, 384, 12, 1536, {}, 150_000, ("padded", "lengths", "packed")),
    "bert-base": Shape("BertConfig", 12, 768, 12, 3072, {}, 24_000, ("padded", "lengths", "packed")),
    "deberta-v3-base": Shape("DebertaV2Config", 12, 768, 12, 3072, _DEBERTA, 12_000, ("padded",)),
    "modernbert-base": Shape("ModernBertConfig", 22, 768, 12, 1152, _MODERN, 15_000, ("padded",)),
}


def make_model(root: Path, name: str, *, is_dry: bool) -> ModelFolder:
    """The folder of a model with random weights; written once."""
    import torch  # noqa: PLC0415  # only where the benchmark runs
    import transformers  # noqa: PLC0415  # as above

    folder = root / name
    if not (folder / "model.safetensors").is_file():
        shape = SHAPES[name]
        sizes = {
            "num_hidden_layers": shape.layers,
            "hidden_size": shape.hidden,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.intermediate,
        }
        options = {**_COMMON, **shape.more, **(_TINY if is_dry else sizes)}
        config = getattr(transformers, shape.config)(
            **options,
            # Rougher than usual, so that logits differ and a wrong engine shows.
            initializer_range=0.05,
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
        for weights_name, weights in model.named_parameters():
            if "classifier" in weights_name:
                torch.nn.init.normal_(weights, std=0.2)
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        shutil.copyfile(BUNDLED_FOLDER / "tokenizer.json", folder / "tokenizer.json")
    return open_folder(folder)


def lengths_of(workload: str, count: int = PAIRS) -> np.ndarray:
    """The token counts of a workload's pairs: `64`, `128` (all alike) or `mix` (as real texts are)."""
    if workload != "mix":
        return np.full(count, int(workload), dtype=np.int32)
    known = np.array(json.loads(LENGTHS_FILE.read_bytes())["lengths"], dtype=np.int32)
    return np.resize(np.random.default_rng(0).permutation(known), count)


def batches(workload: str, budget: int, *, is_padded: bool) -> list[Batch]:
    """A workload's pairs, in order of arrival, in batches of up to `budget` tokens with or without filling."""
    lengths = lengths_of(workload).tolist()
    cut: list[Batch] = []
    start = 0
    while start < len(lengths):
        stop, tokens, longest = start, 0, 0
        while stop < len(lengths):
            widest = max(longest, lengths[stop])
            needed = widest * (stop - start + 1) if is_padded else tokens + lengths[stop]
            if stop > start and needed > budget:
                break
            tokens, longest, stop = tokens + lengths[stop], widest, stop + 1
        cut.append(batch_of(np.array(lengths[start:stop], dtype=np.int32), seed=start))
        start = stop
    return cut[:-1] or cut


def batch_of(lengths: np.ndarray, seed: int = 0) -> Batch:
    """A batch of random tokens."""
    total = int(lengths.sum())
    ids = np.random.default_rng(seed).integers(1000, 30_000, total).astype(np.int32)
    refs = tuple(PairRef(0, row) for row in range(len(lengths)))
    return Batch(refs, ids, np.zeros(total, dtype=np.int32), lengths.astype(np.int32))


def write_length_mix(data: Path, texts: int = 2048) -> None:
    """Keep how long the pairs of real texts in `data` are (files `*.test.jsonl.gz`), not what they say."""
    import gzip  # noqa: PLC0415  # only here

    from tokenizers import Tokenizer  # noqa: PLC0415  # only here

    tokenizer = Tokenizer.from_file(str(BUNDLED_FOLDER / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512, strategy="only_first")
    files = sorted(data.glob("*.test.jsonl.gz"))
    each = -(-texts // len(files))
    lengths: list[int] = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for _, line in zip(range(20 * each), lines, strict=False)]
        picked = np.random.default_rng(0).permutation(len(rows))[:each]
        pairs = [(rows[row]["text"], "This text is about billing.") for row in picked]
        lengths += [len(encoding.ids) for encoding in tokenizer.encode_batch(pairs)]
    said = {"texts": len(lengths), "sets": len(files), "mean": round(float(np.mean(lengths)), 1), "lengths": lengths}
    LENGTHS_FILE.write_text(json.dumps(said) + "\n")
