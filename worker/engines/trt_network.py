"""BERT, MiniLM and RoBERTa in the network calls of TensorRT: attention that pays for no filling.

Strongly typed: every tensor has the type it is given here. What graphs cannot say is said by the attention layer:
how long each row is (`lengths`), or where each pair ends in a row of all tokens (`packed`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.engines.encoders.bert import BertShape
from worker.engines.trt_api import Api, checked
from worker.types import Float32Array

LARGEST_FLOAT8: Final = 448.0
"""Of the kind with 4 bits of exponent."""
_FLOAT8_PARTS: Final = ("qkv", "mixed", "up", "down")

Tensor = Any
"""A tensor of a network; the library is not typed for us."""


@dataclass(frozen=True, slots=True)
class BertSource:
    """What a network is made of."""

    shape: BertShape
    weights: Mapping[str, Float32Array]
    """By the names of `worker.engines.encoders.bert`."""
    has_types: bool
    precision: str
    """`float16` or `bfloat16`; `float8` computes the products of layers in float8, all else in float16."""
    largest_inputs: Mapping[str, float]
    """For `float8`: the largest value that each layer was seen to be given, by layer."""


class BertWriter:
    """Writes one network; keeps the weights alive, which the library holds by reference until it is built."""

    def __init__(self, api: Api, network: Any, source: BertSource, layout: str) -> None:  # noqa: ANN401  # as above
        self._api = api
        self._network = network
        self._source = source
        self._is_packed = layout == "packed"
        self._half = api.DataType.BF16 if source.precision == "bfloat16" else api.DataType.HALF
        self._leading = 1 if self._is_packed else 2
        self._kept: list[npt.NDArray[Any]] = []

    def write(self) -> None:
        """The whole network, from its inputs to `logits` float32 [pairs, classes].

        Raises:
            EngineError: the library refuses a layer.
        """
        fed = self._inputs()
        hidden = self._embed(fed)
        for index in range(self._source.shape.layers):
            hidden = self._layer(f"layers.{index}", hidden, fed)
        first = self._first(hidden, fed)
        pooled = self._linear("head.dense", first, self._api.DataType.FLOAT)
        pooled = self._activate(pooled, "tanh")
        logits = self._linear("head.out", pooled, self._api.DataType.FLOAT)
        logits.name = "logits"
        self._network.mark_output(logits)

    def _inputs(self) -> dict[str, Tensor]:
        tokens = (-1,) * self._leading
        shapes: dict[str, tuple[int, ...]] = {"input_ids": tokens, "position_ids": tokens}
        if self._source.has_types:
            shapes["token_type_ids"] = tokens
        shapes |= {"cumulative_lengths": (-1,), "first_tokens": (-1,)} if self._is_packed else {"lengths": (-1,)}
        kind = self._api.DataType.INT32
        return {
            name: checked(self._network.add_input(name, kind, shape), f"the input {name}")
            for name, shape in shapes.items()
        }

    def _embed(self, fed: Mapping[str, Tensor]) -> Tensor:
        weights = self._source.weights
        positions = weights["embeddings.positions"]
        if not self._source.has_types:
            # The one kind of token there is, added once and for all.
            positions = positions + weights["embeddings.types"][:1]
        summed = self._add(
            self._rows(weights["embeddings.words"], fed["input_ids"]), self._rows(positions, fed["position_ids"])
        )
        if self._source.has_types:
            summed = self._add(summed, self._rows(weights["embeddings.types"], fed["token_type_ids"]))
        return self._norm("embeddings.norm", summed)

    def _layer(self, name: str, hidden: Tensor, fed: Mapping[str, Tensor]) -> Tensor:
        mixed = self._linear(f"{name}.mixed", self._attend(name, hidden, fed), self._half)
        hidden = self._norm(f"{name}.mixed_norm", self._add(hidden, mixed))
        raised = self._activate(self._linear(f"{name}.up", hidden, self._half), self._source.shape.activation)
        return self._norm(f"{name}.down_norm", self._add(hidden, self._linear(f"{name}.down", raised, self._half)))

    def _attend(self, name: str, hidden: Tensor, fed: Mapping[str, Tensor]) -> Tensor:
        api, heads = self._api, self._source.shape.heads
        weight, bias = self._source.weights[f"{name}.qkv.weight"], self._source.weights[f"{name}.qkv.bias"]
        size = weight.shape[0] // 3 // heads
        # The layer does not scale: the queries' weights do it once and for all.
        scales = (np.float32(size) ** np.float32(-0.5), np.float32(1), np.float32(1))
        parts = zip(np.split(weight, 3), np.split(bias, 3), scales, strict=True)
        q, k, v = (
            self._heads_apart(self._product(f"{name}.qkv", hidden, (w * scale, b * scale), self._half), size)
            for w, b, scale in parts
        )
        softmax, causal = api.AttentionNormalizationOp.SOFTMAX, api.CausalMaskKind.NONE
        layer = checked(self._network.add_attention_v2(q, k, v, softmax, causal), f"the attention of {name}")
        layer.name = f"{name}.attention"
        if self._is_packed:
            form = api.AttentionIOForm.PACKED_NHD
            layer.query_form = form
            layer.key_value_form = form
            layer.query_lengths = fed["cumulative_lengths"]
            layer.key_value_lengths = fed["cumulative_lengths"]
        else:
            # Where no fused kernel takes the shape, the same is computed in single steps.
            layer.decomposable = True
            layer.key_value_lengths = fed["lengths"]
        return self._heads_together(layer.get_output(0), heads * size)

    def _heads_apart(self, values: Tensor, size: int) -> Tensor:
        shuffle = checked(self._network.add_shuffle(values), "a reshape")
        # 0 copies a dimension.
        shuffle.reshape_dims = (*(0,) * self._leading, self._source.shape.heads, size)
        if not self._is_packed:
            shuffle.second_transpose = self._api.Permutation((0, 2, 1, 3))
        return shuffle.get_output(0)

    def _heads_together(self, values: Tensor, width: int) -> Tensor:
        shuffle = checked(self._network.add_shuffle(values), "a reshape")
        if not self._is_packed:
            shuffle.first_transpose = self._api.Permutation((0, 2, 1, 3))
        shuffle.reshape_dims = (*(0,) * self._leading, width)
        return shuffle.get_output(0)

    def _first(self, hidden: Tensor, fed: Mapping[str, Tensor]) -> Tensor:
        """Float32 [pairs, hidden]: each pair's first token."""
        if self._is_packed:
            rows = fed["first_tokens"]
        else:
            rows = self._constant(np.zeros((), dtype=np.int32), self._api.DataType.INT32)
        picked = checked(self._network.add_gather(hidden, rows, 0 if self._is_packed else 1), "a gather").get_output(0)
        return self._cast(picked, self._api.DataType.FLOAT)

    def _rows(self, table: Float32Array, ids: Tensor) -> Tensor:
        return checked(self._network.add_gather(self._constant(table, self._half), ids, 0), "a gather").get_output(0)

    def _linear(self, name: str, values: Tensor, kind: Any) -> Tensor:  # noqa: ANN401  # the library is not typed
        weights = self._source.weights
        return self._product(name, values, (weights[f"{name}.weight"], weights[f"{name}.bias"]), kind)

    def _product(self, name: str, values: Tensor, weights: tuple[Float32Array, Float32Array], kind: Any) -> Tensor:  # noqa: ANN401  # as above
        weight, bias = weights
        rank = len(values.shape)
        fixed = self._constant(weight.reshape((1,) * (rank - 2) + weight.shape), kind)
        if self._source.precision == "float8" and name.endswith(_FLOAT8_PARTS):
            values = self._through_float8(values, self._source.largest_inputs[name])
            fixed = self._through_float8(fixed, float(np.abs(weight).max()))
        none, transpose = self._api.MatrixOperation.NONE, self._api.MatrixOperation.TRANSPOSE
        product = checked(self._network.add_matrix_multiply(values, none, fixed, transpose), f"the product of {name}")
        return self._add(product.get_output(0), self._constant(bias.reshape((1,) * (rank - 1) + bias.shape), kind))

    def _through_float8(self, values: Tensor, largest: float) -> Tensor:
        """Values rounded to float8 on a fixed scale: one for all batches, so that no pair depends on another."""
        # The smallest scale that float16 holds in full precision.
        scale = self._constant(np.array(max(largest / LARGEST_FLOAT8, 2.0**-14), dtype=np.float32), self._half)
        small = checked(self._network.add_quantize(values, scale, self._api.DataType.FP8), "a quantisation")
        return checked(
            self._network.add_dequantize(small.get_output(0), scale, self._half), "a dequantisation"
        ).get_output(0)

    def _norm(self, name: str, values: Tensor) -> Tensor:
        """LayerNorm, computed in float32."""
        wide = self._cast(values, self._api.DataType.FLOAT)
        rank = len(values.shape)
        scale, shift = (
            self._constant(part.reshape((1,) * (rank - 1) + part.shape), self._api.DataType.FLOAT)
            for part in (self._source.weights[f"{name}.weight"], self._source.weights[f"{name}.bias"])
        )
        layer = checked(self._network.add_normalization_v2(wide, scale, shift, 1 << (rank - 1)), f"the norm {name}")
        layer.epsilon = self._source.shape.epsilon
        return self._cast(layer.get_output(0), self._half)

    def _activate(self, values: Tensor, name: str) -> Tensor:
        kinds = self._api.ActivationType
        known = {"gelu": "GELU_ERF", "gelu_new": "GELU_TANH", "gelu_pytorch_tanh": "GELU_TANH", "relu": "RELU"}
        kind = getattr(kinds, {**known, "tanh": "TANH"}[name])
        return checked(self._network.add_activation(values, kind), f"the activation {name}").get_output(0)

    def _add(self, left: Tensor, right: Tensor) -> Tensor:
        operation = self._api.ElementWiseOperation.SUM
        return checked(self._network.add_elementwise(left, right, operation), "a sum").get_output(0)

    def _cast(self, values: Tensor, kind: Any) -> Tensor:  # noqa: ANN401  # the library is not typed for us
        return checked(self._network.add_cast(values, kind), "a cast").get_output(0)

    def _constant(self, values: npt.NDArray[Any], kind: Any) -> Tensor:  # noqa: ANN401  # as above
        types = self._api.DataType
        if kind == types.BF16:
            stored = _bfloat16_bits(values)
        elif kind == types.HALF:
            stored = values.astype(np.float16)
        else:
            stored = values
        # A copy: the library reads the memory when it builds, and wants it without gaps.
        stored = np.array(stored, order="C")
        self._kept.append(stored)
        weights = self._api.Weights(kind, stored.ctypes.data, stored.size)
        return checked(self._network.add_constant(stored.shape, weights), "a constant").get_output(0)


def _bfloat16_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The bits of values as bfloat16, rounded to the nearest, ties to even; numpy has no such type."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded >> np.uint32(16)).astype(np.uint16)
