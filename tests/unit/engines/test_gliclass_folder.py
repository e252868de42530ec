"""What of GLiClass is computed, and what is refused by its name."""

import json
from pathlib import Path

import pytest

from tests.support import small_tokenizers
from tests.support.tiny_gliclass import marked
from worker.engines.choice import EngineChoice
from worker.engines.gliclass_folder import open_gliclass_folder
from worker.engines.load import load_engine
from worker.errors import EngineError
from worker.types import JsonValue, LabelRow

ENCODER: dict[str, JsonValue] = {"model_type": "bert", "vocab_size": 200, "max_position_embeddings": 128}
CONFIG: dict[str, JsonValue] = {
    "model_type": "GLiClass",
    "architecture_type": "uni-encoder",
    "class_token_index": 198,
    "text_token_index": 199,
    "prompt_first": True,
    "encoder_config": ENCODER,
}


def _folder(path: Path, config: dict[str, JsonValue]) -> Path:
    small_tokenizers.save(marked(small_tokenizers.bert_style()), path)
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_tells_layout_and_longest_row(tmp_path: Path) -> None:
    folder, config = open_gliclass_folder(_folder(tmp_path, CONFIG), "mine")
    assert ("mine", 128) == (folder.name, folder.max_pair_tokens)
    assert LabelRow(198, 199) == config.row


def test_relative_positions_bound_nothing_but_the_tokenizer_does(tmp_path: Path) -> None:
    encoder = {**ENCODER, "model_type": "deberta-v2", "position_biased_input": False}
    folder, _ = open_gliclass_folder(_folder(tmp_path, CONFIG | {"encoder_config": encoder}))
    assert 1024 == folder.max_pair_tokens
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 300}')
    folder, _ = open_gliclass_folder(tmp_path)
    assert 300 == folder.max_pair_tokens


@pytest.mark.parametrize(
    ("allocated", "most"), [("dynamic", None), ("fixed", 25), (7, 7)], ids=["dynamic", "fixed", "number"]
)
def test_places_for_labels_are_those_of_the_configuration(tmp_path: Path, allocated: JsonValue, most: int) -> None:
    _, config = open_gliclass_folder(_folder(tmp_path, CONFIG | {"max_labels_alloc": allocated}))
    assert most == config.row.most_labels


def test_tokens_without_a_number_stand_behind_the_vocabulary(tmp_path: Path) -> None:
    _, config = open_gliclass_folder(_folder(tmp_path, CONFIG | {"class_token_index": -1, "text_token_index": -1}))
    assert LabelRow(200, 201) == config.row


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture_type", "bi-encoder"),
        ("architecture_type", "encoder-decoder"),
        ("scorer_type", "hopfield"),
        ("scorer_type", "cross-attn"),
        ("pooling_strategy", "last"),
        ("class_token_pooling", "max"),
        ("encoder_layer_id", 3),
        ("use_lstm", True),
        ("squeeze_layers", True),
        ("use_calibrator", True),
    ],
)
def test_what_is_not_computed_is_refused_by_its_name(tmp_path: Path, key: str, value: JsonValue) -> None:
    _folder(tmp_path, CONFIG | {key: value})
    with pytest.raises(EngineError, match=f"{key}: {value} is not supported by engine: gliclass"):
        load_engine(EngineChoice(str(tmp_path), "gliclass"))


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_an_encoder_of_another_kind_is_refused_by_its_name(tmp_path: Path, family: str) -> None:
    _folder(tmp_path, CONFIG | {"encoder_config": {**ENCODER, "model_type": family}})
    with pytest.raises(EngineError, match=rf"encoder_config.model_type: {family} is not supported"):
        open_gliclass_folder(tmp_path)


def test_what_is_no_gliclass_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EngineError, match="not a GLiClass model"):
        open_gliclass_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(EngineError, match=r"no tokenizer\.json"):
        open_gliclass_folder(tmp_path)
