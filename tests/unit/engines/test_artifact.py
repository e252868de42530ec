import json
import shutil
import subprocess
from pathlib import Path

import pytest

from worker.engines.artifact import open_folder
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError
from worker.types import JsonValue, NliHead


def _folder(path: Path, config: dict[str, JsonValue], tokenizer_config: dict[str, JsonValue] | None = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    if tokenizer_config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return path


def _labels(*names: str) -> dict[str, JsonValue]:
    return {"id2label": {str(index): name for index, name in enumerate(names)}}


@pytest.mark.parametrize(
    ("labels", "head"),
    [
        (("entailment", "not_entailment"), NliHead(2, 0, 1)),
        (("NOT_ENTAILMENT", "ENTAILMENT"), NliHead(2, 1, 0)),
        (("non-entailment", "Entailment"), NliHead(2, 1, 0)),
        (("entailment", "neutral", "contradiction"), NliHead(3, 0, 2)),
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), NliHead(3, 2, 0)),
        (("contradiction", "entailment", "neutral"), NliHead(3, 1, 0)),
    ],
)
def test_the_head_is_read_from_id2label(tmp_path: Path, labels: tuple[str, ...], head: NliHead) -> None:
    assert open_folder(_folder(tmp_path, _labels(*labels))).head == head


@pytest.mark.parametrize(
    "config",
    [
        _labels("negative", "positive"),
        _labels("LABEL_0", "LABEL_1", "LABEL_2"),
        _labels("entailment", "neutral"),
        _labels("entailment", "entailment", "contradiction"),
        _labels("entailment", "neutral", "contradiction", "other"),
        {"id2label": {"0": "entailment", "2": "not_entailment"}},
        {"id2label": []},
        {},
    ],
)
def test_a_model_with_other_labels_is_no_nli_model(tmp_path: Path, config: dict[str, JsonValue]) -> None:
    with pytest.raises(EngineError, match=r"not an NLI model.*entailment and not_entailment, or"):
        open_folder(_folder(tmp_path, config))


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, None, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, {"model_max_length": 256}, 256),
        ({"model_type": "bert", "max_position_embeddings": 512}, {"model_max_length": 1e30}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512),
        (
            {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            {"model_max_length": 512},
            512,
        ),
        ({"model_type": "modernbert", "max_position_embeddings": 8192}, {}, 8192),
        ({"model_type": "bert"}, None, 512),
    ],
)
def test_the_longest_pair_is_what_the_position_table_has_room_for(
    tmp_path: Path, config: dict[str, JsonValue], tokenizer_config: dict[str, JsonValue] | None, longest: int
) -> None:
    folder = _folder(tmp_path, {**_labels("entailment", "not_entailment"), **config}, tokenizer_config)
    assert open_folder(folder).max_pair_tokens == longest


def test_the_digest_can_be_recomputed_with_sha256sum() -> None:
    folder = open_folder(BUNDLED_FOLDER)
    command = "LC_ALL=C; sha256sum openvino_model.bin config.json tokenizer.json | sort | sha256sum"
    done = subprocess.run(["bash", "-c", command], cwd=BUNDLED_FOLDER, capture_output=True, text=True, check=True)
    assert folder.digest(folder.openvino_weights()) == f"sha256:{done.stdout.split()[0]}"


def test_the_digest_changes_with_the_tokenizer(tmp_path: Path) -> None:
    folder = open_folder(_folder(tmp_path, _labels("entailment", "not_entailment")))
    before = folder.digest(())
    folder.tokenizer_file.write_text('{"version": "1.0"}')
    assert folder.digest(()) != before


def test_sharded_weights_all_count(tmp_path: Path) -> None:
    _folder(tmp_path, _labels("entailment", "not_entailment"))
    for shard in (1, 2):
        (tmp_path / f"model-0000{shard}-of-00002.safetensors").write_bytes(b"")
    assert [file.name[:11] for file in open_folder(tmp_path).safetensors_files()] == ["model-00001", "model-00002"]


def test_an_onnx_file_is_loaded_where_there_is_no_openvino_file(tmp_path: Path) -> None:
    folder = open_folder(_folder(tmp_path, _labels("entailment", "not_entailment")))
    assert folder.openvino_file() is None
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "model.onnx_data").write_bytes(b"")
    assert [file.name for file in folder.openvino_weights()] == ["model.onnx", "model.onnx_data"]
    shutil.copyfile(BUNDLED_FOLDER / "openvino_model.xml", tmp_path / "openvino_model.xml")
    (tmp_path / "openvino_model.bin").write_bytes(b"")
    assert [file.name for file in folder.openvino_weights()] == ["openvino_model.bin"]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_sound_config_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(EngineError, match=r"config\.json"):
        open_folder(tmp_path)


def test_a_folder_without_tokenizer_json_is_refused_with_the_way_to_write_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_labels("entailment", "not_entailment")))
    with pytest.raises(EngineError, match="save_pretrained"):
        open_folder(tmp_path)
