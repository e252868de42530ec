"""A rewritten graph says what the original says."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import openvino
import pytest
from openvino import opset13 as ops

from worker.engines.graph import simplify
from worker.engines.source import BUNDLED_FOLDER

GRAPH = BUNDLED_FOLDER / "openvino_model.xml"
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
LENGTHS = (7, 33, 20, 33)


def feed() -> Mapping[str, npt.NDArray[np.int64]]:
    draw = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    is_token = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    return {
        "input_ids": np.where(is_token, draw.integers(1000, 20000, shape), 0),
        "attention_mask": is_token.astype(np.int64),
        "token_type_ids": (np.arange(shape[1]) > 4).astype(np.int64) * is_token,
    }


def logits(model: openvino.Model) -> npt.NDArray[np.float32]:
    return np.array(openvino.Core().compile_model(model, "CPU", FLOAT32)(feed())[0])


def kinds(model: openvino.Model) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


@pytest.fixture
def model() -> openvino.Model:
    return openvino.Core().read_model(GRAPH)


def test_the_bundled_model_gives_the_same_logits_in_fewer_steps(model: openvino.Model) -> None:
    expected, before = logits(model), len(kinds(model))
    assert ("weights", "attention", "first_token") == simplify(model)
    assert len(kinds(model)) < before
    assert 6 == kinds(model).count("ScaledDotProductAttention")
    assert not {"Softmax", "IsNaN"} & set(kinds(model))
    assert np.abs(logits(model) - expected).max() < 2e-6


def test_weights_stay_packed_where_that_is_asked_for_and_the_rest_is_rewritten(model: openvino.Model) -> None:
    expected = logits(model)
    assert ("attention", "first_token") == simplify(model, unpacks=False)
    assert 8 * 6 <= sum("u8" == node.get_output_element_type(0).get_type_name() for node in model.get_ops())
    assert np.abs(logits(model) - expected).max() < 2e-6


def test_nothing_is_left_to_rewrite_the_second_time(model: openvino.Model) -> None:
    simplify(model)
    before = kinds(model)
    assert () == simplify(model)
    assert before == kinds(model)


def test_a_graph_that_is_no_encoder_stays_as_it_is() -> None:
    given = ops.parameter([-1, 4], np.float32, name="input_ids")
    weights = ops.constant(np.eye(4, dtype=np.float32))
    product = ops.matmul(given, weights, False, False)
    model = openvino.Model([ops.softmax(product, axis=-1)], [given], "other")
    before = kinds(model)
    assert () == simplify(model)
    assert before == kinds(model)
