# ruff: noqa: ANN401, PT018  # untyped as the library is, and a call's several conditions are one assertion
"""The fake `tensorrt`: networks, layer by layer or from a graph."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.support.fake_tensorrt_values import (
    AttentionNormalizationOp,
    CausalMaskKind,
    DataType,
    ILogger,
    MatrixOperation,
    Permutation,
    Weights,
    state,
)


class Tensor:
    """A tensor of a network: a number, a type, a shape in which -1 is any size."""

    __slots__ = ("dtype", "name", "number", "shape")

    def __init__(self, number: int, dtype: Any, shape: tuple[int, ...], name: str = "") -> None:
        self.number, self.dtype, self.shape, self.name = number, dtype, shape, name


class Layer:
    """A layer; what may be set of it depends on its kind, and anything else is an error."""

    _ALLOWED: ClassVar[dict[str, set[str]]] = {
        "shuffle": {"first_transpose", "reshape_dims", "second_transpose"},
        "normalization": {"epsilon"},
        "attention": {
            "name", "decomposable", "query_form", "key_value_form", "query_lengths", "key_value_lengths",
        },
    }  # fmt: skip

    kind: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    options: dict[str, Any]

    def __init__(self, kind: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.__dict__.update(kind=kind, inputs=inputs, output=output, options={})

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._ALLOWED.get(self.kind, set()), f"{self.kind} has no {name}"
        assert not name.endswith("_transpose") or isinstance(value, Permutation)
        self.options[name] = value
        if name == "reshape_dims":
            before = self.inputs[0].shape
            transposed = self.options.get("first_transpose")
            before = before if transposed is None else tuple(before[axis] for axis in transposed)
            self.output.shape = tuple(before[index] if size == 0 else size for index, size in enumerate(value))
        if name == "second_transpose":
            self.output.shape = tuple(self.output.shape[axis] for axis in value)

    def get_output(self, index: int) -> Tensor:
        """The one output."""
        assert index == 0
        return self.output


class INetworkDefinition:
    """A network, checked as it grows: strongly typed, ranks equal, dimensions known to agree."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.steps: list[tuple[str, dict[str, Any], list[int], int]] = []
        self.layers: list[Layer] = []
        self.constants: dict[int, tuple[Weights, tuple[int, ...]]] = {}
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.graph: bytes | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def add_input(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Tensor | None:
        if state.told("add_input", name) is False:
            return None
        tensor = self._tensor(dtype, tuple(shape), name)
        self.inputs.append(tensor)
        return tensor

    def mark_output(self, tensor: Tensor) -> None:
        assert tensor.name, "an output has a name"
        self.outputs.append(tensor)

    def add_constant(self, shape: tuple[int, ...], weights: Weights) -> Layer | None:
        assert int(np.prod(shape, dtype=np.int64)) == weights.count
        layer = self._layer("constant", (), weights.kind, tuple(shape))
        if layer is not None:
            self.constants[layer.output.number] = (weights, tuple(shape))
        return layer

    def add_gather(self, table: Tensor, ids: Tensor, axis: int) -> Layer | None:
        assert ids.dtype is DataType.INT32
        shape = table.shape[:axis] + ids.shape + table.shape[axis + 1 :]
        return self._layer("gather", (table, ids), table.dtype, shape, axis=axis)

    def add_elementwise(self, left: Tensor, right: Tensor, operation: Any) -> Layer | None:
        assert left.dtype is right.dtype, f"strongly typed: {left.dtype} and {right.dtype}"
        return self._layer("sum", (left, right), left.dtype, _broadcast(left.shape, right.shape), of=operation.name)

    def add_matrix_multiply(self, left: Tensor, left_as: Any, right: Tensor, right_as: Any) -> Layer | None:
        assert left.dtype is right.dtype, f"strongly typed: {left.dtype} and {right.dtype}"
        assert (left_as, right_as) == (MatrixOperation.NONE, MatrixOperation.TRANSPOSE)
        assert len(left.shape) == len(right.shape) and left.shape[-1] == right.shape[-1]
        return self._layer("product", (left, right), left.dtype, (*left.shape[:-1], right.shape[-2]))

    def add_activation(self, values: Tensor, kind: Any) -> Layer | None:
        return self._layer("activation", (values,), values.dtype, values.shape, of=kind.name)

    def add_cast(self, values: Tensor, dtype: Any) -> Layer | None:
        return self._layer("cast", (values,), dtype, values.shape)

    def add_normalization_v2(self, values: Tensor, scale: Tensor, shift: Tensor, axes: int) -> Layer | None:
        assert values.dtype is scale.dtype is shift.dtype is DataType.FLOAT
        assert axes == 1 << (len(values.shape) - 1) and len(scale.shape) == len(values.shape)
        return self._layer("normalization", (values, scale, shift), values.dtype, values.shape)

    def add_shuffle(self, values: Tensor) -> Layer | None:
        return self._layer("shuffle", (values,), values.dtype, values.shape)

    def add_quantize(self, values: Tensor, scale: Tensor, dtype: Any) -> Layer | None:
        assert values.dtype is scale.dtype and scale.shape == () and dtype is DataType.FP8
        return self._layer("quantize", (values, scale), dtype, values.shape)

    def add_dequantize(self, values: Tensor, scale: Tensor, dtype: Any) -> Layer | None:
        assert values.dtype is DataType.FP8 and scale.dtype is dtype
        return self._layer("dequantize", (values, scale), dtype, values.shape)

    def add_attention_v2(self, q: Tensor, k: Tensor, v: Tensor, norm: Any, causal: Any) -> Layer | None:
        assert q.dtype is k.dtype is v.dtype and q.dtype in {DataType.HALF, DataType.BF16}
        assert (norm, causal) == (AttentionNormalizationOp.SOFTMAX, CausalMaskKind.NONE)
        return self._layer("attention", (q, k, v), q.dtype, q.shape)

    def _tensor(self, dtype: Any, shape: tuple[int, ...], name: str = "") -> Tensor:
        assert isinstance(dtype, DataType)
        self.tensors.append(Tensor(len(self.tensors), dtype, shape, name))
        return self.tensors[-1]

    def _layer(
        self, kind: str, inputs: tuple[Tensor, ...], dtype: Any, shape: tuple[int, ...], **options: Any
    ) -> Layer | None:
        if state.told(f"add_{kind}") is False:
            return None
        layer = Layer(kind, inputs, self._tensor(dtype, shape))
        layer.options.update(options)
        self.layers.append(layer)
        return layer


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    assert len(left) == len(right), f"ranks differ: {left} and {right}"
    for one, other in zip(left, right, strict=True):
        assert one == other or 1 in {one, other} or -1 in {one, other}, f"{left} and {right} do not go together"
    return tuple(other if one == 1 else one for one, other in zip(left, right, strict=True))


class _ParserError:
    def desc(self) -> str:
        return "no such operator"


class OnnxParser:
    """Takes a graph whole; OpenVINO reads and runs it."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        assert logger.is_initialised
        state.told("OnnxParser")
        self.network = network

    num_errors = 1

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()

    def parse_from_file(self, file: str) -> bool:
        if state.told("parse_from_file") is False:
            return False
        import openvino  # noqa: PLC0415  # heavy

        self.network.graph = Path(file).read_bytes()
        model = openvino.Core().read_model(file)
        for port in model.inputs:
            kind = {"i32": DataType.INT32}[port.get_element_type().get_type_name()]
            shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
            self.network.add_input(port.get_any_name(), kind, shape)
        (output,) = model.outputs
        tensor = self.network._tensor(DataType.FLOAT, (-1, 2), output.get_any_name())
        self.network.mark_output(tensor)
        return True
