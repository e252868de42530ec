"""Token vectors on disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support import small_tokenizers
from worker.engines.artifact import open_folder
from worker.engines.source import BUNDLED_FOLDER
from worker.engines.token_vectors import (
    VECTORS_FILE,
    from_word_embeddings,
    load_token_vectors,
    main,
    token_weights,
    write_token_vectors,
)
from worker.errors import EngineError

CONFIG = {"id2label": {"0": "entailment", "1": "not_entailment"}, "max_position_embeddings": 64}


@pytest.fixture
def tokenizer_file(tmp_path: Path) -> Path:
    return small_tokenizers.save(small_tokenizers.bert_style(), tmp_path)


def write_safetensors(file: Path, name: str, values: np.typing.NDArray[np.float32], dtype: str) -> None:
    if dtype == "BF16":
        raw = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    else:
        raw = values.astype("<f4" if dtype == "F32" else "<f2").tobytes()
    other = np.zeros(3, "<f4").tobytes()
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, len(other)]},
            name: {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(other), len(other) + len(raw)]},
        }
    ).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + other + raw)


def test_vectors_come_back_within_half_a_step_but_for_the_largest_values(tokenizer_file: Path) -> None:
    given = np.random.default_rng(0).normal(size=(225, 10)).astype(np.float32)
    given[3] = 0
    write_token_vectors(tokenizer_file.parent / VECTORS_FILE, tokenizer_file, given)
    found = load_token_vectors(tokenizer_file)
    assert found is not None
    assert ((225, 10), "int8", "float32") == (found.values.shape, str(found.values.dtype), str(found.scales.dtype))
    most = np.minimum(np.abs(given).max(axis=1), 2.5 * given.std(axis=1))[:, np.newaxis]
    error = np.abs(found.values * found.scales[:, np.newaxis] - np.clip(given, -most, most))
    assert (error <= 0.51 * most / 7 + 1e-6).all()


def test_there_are_none_for_a_vocabulary_that_nobody_made_them_for(tokenizer_file: Path) -> None:
    assert None is load_token_vectors(tokenizer_file)


def test_vectors_for_another_vocabulary_are_refused(tokenizer_file: Path) -> None:
    write_token_vectors(tokenizer_file.parent / VECTORS_FILE, tokenizer_file, np.ones((5, 2), np.float32))
    small_tokenizers.save(small_tokenizers.roberta_style(), tokenizer_file.parent)
    with pytest.raises(EngineError, match="another vocabulary"):
        load_token_vectors(tokenizer_file)


def test_a_file_that_holds_something_else_is_refused(tokenizer_file: Path) -> None:
    (tokenizer_file.parent / VECTORS_FILE).write_bytes(b"PK")
    with pytest.raises(EngineError, match="write it anew"):
        load_token_vectors(tokenizer_file)


def test_the_bundled_model_and_every_other_of_its_vocabulary_have_vectors(tmp_path: Path) -> None:
    own = load_token_vectors(BUNDLED_FOLDER / "tokenizer.json")
    shutil.copy(BUNDLED_FOLDER / "tokenizer.json", tmp_path)
    other = load_token_vectors(tmp_path / "tokenizer.json")
    assert own is not None
    assert other is not None
    assert 30522 == len(own.values)
    assert np.array_equal(own.values, other.values)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_command_writes_vectors_from_a_models_own_embeddings(tokenizer_file: Path, dtype: str) -> None:
    folder = tokenizer_file.parent
    (folder / "config.json").write_text(json.dumps(CONFIG))
    embeddings = np.random.default_rng(0).normal(size=(225, 8)).astype(np.float32)
    name = "bert.embeddings.word_embeddings.weight"
    write_safetensors(folder / "model.safetensors", name, embeddings, dtype)
    expected = (embeddings - embeddings.mean(axis=0)) * from_weights(tokenizer_file)
    assert np.allclose(expected, from_word_embeddings(open_folder(folder)), atol=2e-2)
    assert 0 == main([str(folder)])
    assert load_token_vectors(tokenizer_file) is not None


def from_weights(tokenizer_file: Path) -> np.typing.NDArray[np.float32]:
    vocabulary = json.loads(tokenizer_file.read_text(encoding="utf-8"))["model"]["vocab"]
    return token_weights(sorted(vocabulary, key=vocabulary.__getitem__))[:, np.newaxis]


def test_a_folder_without_embeddings_is_refused_with_exit_1(
    tokenizer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tokenizer_file.parent / "config.json").write_text(json.dumps(CONFIG))
    assert 1 == main([str(tokenizer_file.parent)])
    assert "no word embeddings" in capsys.readouterr().err


def test_frequent_words_weigh_less_than_rare_ones() -> None:
    weights = token_weights(["[PAD]", ",", "the", "of", *(f"word{number}" for number in range(1000))])
    assert weights[2] < weights[3] < weights[500] < weights[1003] <= 1.0
