"""Model folders made in milliseconds: the logits are the mean of a table's rows, so numpy knows them too."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops

from worker.engines.artifact import OPENVINO_FILE, TOKENIZER_FILE, open_folder
from worker.engines.golden import GOLDEN_FILE, Golden, encode_pairs, golden_texts, write_golden
from worker.engines.source import BUNDLED_FOLDER

VOCABULARY = 30522
TWO_CLASSES = {"0": "entailment", "1": "not_entailment"}


@dataclass(frozen=True, slots=True)
class TinyModel:
    """What to write."""

    is_8bit: bool = False
    leaks_between_pairs: bool = False
    """The logits of a pair depend on its batch."""
    golden_offset: float | None = 0.0
    """How far the golden logits of entailment lie from the truth; None: no golden file."""


def write_tiny_model(folder: Path, tiny: TinyModel | None = None) -> Path:
    """A 2-class model with the bundled tokenizer in `folder`."""
    tiny = tiny or TinyModel()
    folder.mkdir(parents=True, exist_ok=True)
    table = np.random.default_rng(0).integers(0, 256, (VOCABULARY, 2)).astype(np.uint8)
    openvino.save_model(_graph(table, tiny), folder / OPENVINO_FILE, compress_to_fp16=False)
    shutil.copyfile(BUNDLED_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    config = {"model_type": "bert", "id2label": TWO_CLASSES, "max_position_embeddings": 64, "type_vocab_size": 2}
    (folder / "config.json").write_text(json.dumps(config))
    if tiny.golden_offset is not None:
        texts = golden_texts()
        singles = encode_pairs(open_folder(folder), texts)
        logits = np.stack([(table[single.token_ids].astype(np.float32) / 16 - 8).mean(axis=0) for single in singles])
        logits[:, 0] += tiny.golden_offset
        write_golden(folder / GOLDEN_FILE, Golden(texts, logits.astype(np.float32)))
    return folder


def _graph(table: np.typing.NDArray[np.uint8], tiny: TinyModel) -> openvino.Model:
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    mask = ops.parameter([-1, -1], np.int64, name="attention_mask")
    for port in (ids, mask):
        port.output(0).set_names({port.get_friendly_name()})
    values = ops.convert(ops.constant(table), "f32") if tiny.is_8bit else ops.constant(table.astype(np.float32))
    weights = ops.subtract(ops.divide(values, np.float32(16)), np.float32(8))
    rows = ops.gather(weights, ids, np.int64(0))
    seen = ops.unsqueeze(ops.convert(mask, "f32"), np.int64(2))
    total = ops.reduce_sum(ops.multiply(rows, seen), np.array([1]))
    mean = ops.divide(total, ops.reduce_sum(seen, np.array([1])))
    if tiny.leaks_between_pairs:
        mean = ops.add(mean, ops.reduce_mean(mean, np.array([0]), keep_dims=True))
    result = ops.result(mean, name="logits")
    return openvino.Model([result], [ids, mask], "tiny")
