"""The encoders written out here say what transformers says: every family, every row, in every layout and as a graph."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.batches import batch_of, random_pairs
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.encoders.deberta import DebertaShape
from worker.engines.layout import pad
from worker.errors import EngineError
from worker.types import Batch, Float32Array

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "onnxscript")),
        reason="needs torch, transformers, onnxscript: uv run --group reference pytest -m reference",
    ),
]

FAMILIES = ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")
BATCHES = [
    batch_of(*random_pairs(1, 3, 250)),
    batch_of(list(range(5, 165))),
    batch_of(*random_pairs(2, 20, 250, seed=2)),
    batch_of(*random_pairs(9, 120, 250, seed=3)),
    batch_of(*[list(range(9, 49))] * 4),
    batch_of([7, 8, 9], *random_pairs(1, 160, 250, seed=9)),
]
GRAPH_BOUNDS = {"float32": 1e-4, "float16": 5e-2, "bfloat16": 5e-1}
"""These tiny models have weights so rough that 16 bits show: a wrong graph is off by whole units."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ModelFolder, Any]]:
    """The tiny model of a family, as a folder and as transformers loads it."""
    import transformers  # noqa: PLC0415  # torch is optional

    from tests.support.tiny_torch import write_tiny_torch_model  # noqa: PLC0415  # torch is optional

    root = tmp_path_factory.mktemp("tiny")

    def find(family: str) -> tuple[ModelFolder, Any]:
        path = root / family
        folder = open_folder(path if path.is_dir() else write_tiny_torch_model(path, family))
        return folder, transformers.AutoModelForSequenceClassification.from_pretrained(path).eval()

    return find


def _expected(folder: ModelFolder, module: Any, batch: Batch) -> Float32Array:  # noqa: ANN401  # torch is optional
    import torch  # noqa: PLC0415  # torch is optional

    padded = pad(batch, folder.pad_token_id)
    feed = {"input_ids": torch.tensor(padded.input_ids), "attention_mask": torch.tensor(padded.attention_mask)}
    if folder.has_type_ids:
        feed["token_type_ids"] = torch.tensor(padded.type_ids)
    with torch.inference_mode():
        return np.asarray(module(**feed).logits.numpy(), dtype=np.float32)


def _scored(encoder: Any, folder: ModelFolder, batch: Batch, layout: str) -> Float32Array:  # noqa: ANN401  # as above
    import torch  # noqa: PLC0415  # torch is optional

    from worker.engines.encoders.feeding import packed, padded  # noqa: PLC0415  # torch is optional

    with torch.inference_mode():
        if layout == "packed":
            fed = packed(batch, "cpu", has_kernel=False)
        else:
            fed = padded(batch, "cpu", folder.pad_token_id, is_plain=layout == "plain")
        types = fed.types if folder.has_type_ids else None
        return np.asarray(encoder.score(fed.layout, fed.ids, types).numpy())


@pytest.mark.parametrize("layout", ["padded", "plain", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_gives_the_logits_of_transformers_in_every_layout(
    family: str, layout: str, tiny: Callable[[str], tuple[ModelFolder, Any]]
) -> None:
    from worker.engines.encoders.families import read_encoder  # noqa: PLC0415  # torch is optional

    folder, module = tiny(family)
    encoder = read_encoder(module, "float32")
    spread = 0.0
    for batch in BATCHES:
        expected = _expected(folder, module, batch)
        assert np.abs(_scored(encoder, folder, batch, layout) - expected).max() <= 1e-4
        spread = max(spread, float(np.ptp(expected, axis=0).max()))
    assert spread > 0.1, "the tiny model says the same of everything: this test could not fail"


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "modernbert"])
def test_a_packed_pair_does_not_see_its_neighbours(family: str, tiny: Callable[[str], tuple[ModelFolder, Any]]) -> None:
    from worker.engines.encoders.families import read_encoder  # noqa: PLC0415  # torch is optional

    folder, module = tiny(family)
    encoder = read_encoder(module, "float32")
    pairs = random_pairs(6, 90, 250, seed=5)
    together = _scored(encoder, folder, batch_of(*pairs), "packed")
    for index, pair in enumerate(pairs):
        alone = _scored(encoder, folder, batch_of(pair), "packed")
        assert np.abs(together[index] - alone[0]).max() <= 1e-4


def test_distances_are_put_in_place_by_shifting_as_by_gathering(
    tiny: Callable[[str], tuple[ModelFolder, Any]],
) -> None:
    from worker.engines.encoders.families import read_encoder  # noqa: PLC0415  # torch is optional

    folder, module = tiny("deberta-v2")
    gathering = read_encoder(module, "float32")
    assert isinstance(gathering.shape, DebertaShape)
    shifting = replace(gathering, shape=replace(gathering.shape, is_shifted=True))
    for batch in BATCHES:
        found = _scored(shifting, folder, batch, "plain")
        assert np.abs(found - _scored(gathering, folder, batch, "plain")).max() <= 1e-5


@pytest.mark.parametrize("precision", GRAPH_BOUNDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_graph_gives_the_logits_of_transformers_for_any_number_of_pairs_and_tokens(
    family: str, precision: str, tiny: Callable[[str], tuple[ModelFolder, Any]], tmp_path: Path
) -> None:
    import onnx  # noqa: PLC0415  # comes with torch's exporter
    import openvino  # noqa: PLC0415  # heavy

    from worker.engines.encoders.families import read_encoder  # noqa: PLC0415  # torch is optional
    from worker.engines.encoders.onnx import write_onnx  # noqa: PLC0415  # torch is optional

    folder, module = tiny(family)
    encoder = read_encoder(module, precision, has_wide_norms=True)
    write_onnx(encoder, tmp_path / "model.onnx", has_types=folder.has_type_ids)
    graph = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert {value.type.tensor_type.elem_type for value in graph.graph.input} == {onnx.TensorProto.INT32}
    assert [value.type.tensor_type.elem_type for value in graph.graph.output] == [onnx.TensorProto.FLOAT]
    norms = {node.input[1] for node in graph.graph.node if node.op_type == "LayerNormalization"}
    kinds = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert {kinds[name] for name in norms if name in kinds} <= {onnx.TensorProto.FLOAT}
    compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch in BATCHES:
        padded = pad(batch, folder.pad_token_id)
        feed = {"input_ids": padded.input_ids.astype(np.int32), "lengths": batch.lengths}
        if folder.has_type_ids:
            feed["token_type_ids"] = padded.type_ids.astype(np.int32)
        found = compiled(feed)[0]
        assert np.abs(found - _expected(folder, module, batch)).max() <= GRAPH_BOUNDS[precision]


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("bert", {"hidden_act": "mish"}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"model_type": "nystromformer"}),
        ("deberta-v2", {"conv_kernel_size": 3}),
        ("deberta-v2", {"relative_attention": False}),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}}),
    ],
)
def test_a_variant_that_is_not_built_is_refused_and_names_its_key(
    family: str, change: dict[str, Any], tiny: Callable[[str], tuple[ModelFolder, Any]]
) -> None:
    from worker.engines.encoders.families import read_encoder  # noqa: PLC0415  # torch is optional

    _, module = tiny(family)
    changed: dict[str, Any] = module.config.to_dict() | change

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return changed

    class Module:
        config = Config()
        state_dict = module.state_dict

    with pytest.raises(EngineError, match=r"config\.json: "):
        read_encoder(Module(), "float32")
