import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_openvino import TinyModel, write_tiny_model
from worker.engines.artifact import open_folder
from worker.engines.golden import (
    GOLDEN_FILE,
    MIN_GOLDEN_PAIRS,
    Golden,
    TextPair,
    encode_pairs,
    golden_texts,
    join_batches,
    read_golden,
    write_golden,
)
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copyfile(BUNDLED_FOLDER / "tokenizer.json", tmp_path / "tokenizer.json")
    shutil.copyfile(BUNDLED_FOLDER / "config.json", tmp_path / "config.json")
    return tmp_path


def _golden(pairs: int, classes: int = 2) -> Golden:
    logits = np.random.default_rng(0).normal(size=(pairs, classes)).astype(np.float32)
    return Golden(tuple(TextPair(f"premise {i}", f"hypothesis é {i}") for i in range(pairs)), logits)


def test_there_are_enough_golden_texts_and_they_reach_from_a_few_tokens_to_more_than_the_model_takes() -> None:
    model = open_folder(BUNDLED_FOLDER)
    lengths = [int(single.lengths[0]) for single in encode_pairs(model, golden_texts())]
    assert len(lengths) >= MIN_GOLDEN_PAIRS
    assert min(lengths) <= 10
    assert max(lengths) == model.max_pair_tokens


def test_what_is_written_is_read_back(folder: Path) -> None:
    golden = _golden(MIN_GOLDEN_PAIRS)
    write_golden(folder / GOLDEN_FILE, golden)

    found = read_golden(open_folder(folder))

    assert found is not None
    assert found.pairs == golden.pairs
    assert np.abs(found.logits - golden.logits).max() < 1e-6


def test_a_folder_without_golden_pairs_has_none(folder: Path) -> None:
    assert read_golden(open_folder(folder)) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"pairs": []},
        {"pairs": [{"premise": "a", "hypothesis": "b", "logits": [0, 1]}] * (MIN_GOLDEN_PAIRS - 1)},
        {"pairs": [{"premise": "a", "hypothesis": "b", "logits": [0, 1, 2]}] * MIN_GOLDEN_PAIRS},
        {"pairs": [{"premise": "a", "hypothesis": "b", "logits": [0, float("nan")]}] * MIN_GOLDEN_PAIRS},
        {"pairs": [{"premise": "a", "logits": [0, 1]}] * MIN_GOLDEN_PAIRS},
        {"pairs": ["a"] * MIN_GOLDEN_PAIRS},
    ],
)
def test_a_broken_golden_file_is_refused_by_name(folder: Path, content: object) -> None:
    (folder / GOLDEN_FILE).write_text(json.dumps(content))
    with pytest.raises(EngineError, match=GOLDEN_FILE):
        read_golden(open_folder(folder))


def test_joined_batches_hold_the_pairs_in_order(tmp_path: Path) -> None:
    model = open_folder(write_tiny_model(tmp_path, TinyModel(golden_offset=None)))
    singles = encode_pairs(model, [TextPair("one", "two"), TextPair("a longer one", "three")])
    joined = join_batches(singles)
    assert joined.lengths.tolist() == [5, 7]
    assert joined.token_ids.tolist() == [*singles[0].token_ids.tolist(), *singles[1].token_ids.tolist()]
    assert joined.type_ids.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]
