import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_openvino import write_tiny_model
from worker.bench.dequantised import write_float32_copy
from worker.engines.artifact import open_folder
from worker.engines.source import BUNDLED_FOLDER
from worker.errors import EngineError


def read(file: Path) -> dict[str, np.ndarray]:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    body = content[8 + size :]
    return {
        name: np.frombuffer(body[each["data_offsets"][0] : each["data_offsets"][1]], "<f4").reshape(each["shape"])
        for name, each in header.items()
        if name != "__metadata__"
    }


def test_every_weight_of_the_bundled_model_is_there_under_its_own_name_and_shape(tmp_path: Path) -> None:
    folder = write_float32_copy(open_folder(BUNDLED_FOLDER), tmp_path / "float32")
    tensors = read(folder / "model.safetensors")
    layer = "bert.encoder.layer.5"
    expected = {
        "bert.embeddings.word_embeddings.weight": (30522, 384),
        "bert.embeddings.LayerNorm.bias": (384,),
        f"{layer}.attention.self.query.weight": (384, 384),
        f"{layer}.attention.self.value.bias": (384,),
        f"{layer}.intermediate.dense.weight": (1536, 384),
        f"{layer}.output.dense.weight": (384, 1536),
        f"{layer}.output.LayerNorm.weight": (384,),
        "classifier.weight": (2, 384),
    }
    assert expected == {name: tensors[name].shape for name in expected}
    assert 3 + 2 + 6 * (6 * 2 + 2 * 2) + 2 * 2 == len(tensors)
    assert all(np.isfinite(tensor).all() and tensor.any() for tensor in tensors.values())


def test_the_copy_is_a_model_folder_that_transformers_can_read(tmp_path: Path) -> None:
    folder = open_folder(write_float32_copy(open_folder(BUNDLED_FOLDER), tmp_path / "float32"))
    assert folder.safetensors_files()
    assert "float32" == json.loads((folder.path / "config.json").read_text())["dtype"]
    assert folder.tokenizer_file.is_file()


def test_another_graph_than_that_of_an_exported_bert_is_a_typed_error(tmp_path: Path) -> None:
    model = open_folder(write_tiny_model(tmp_path / "model"))
    with pytest.raises(EngineError, match="not that of an exported BERT"):
        write_float32_copy(model, tmp_path / "float32")
    assert not (tmp_path / "float32").exists()
