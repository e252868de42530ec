"""The bundled model's weights as float32 in safetensors, for contestants that cannot read OpenVINO's format.

The values are those that the worker computes with; only how they are stored differs, so the speed is that of any
float32 model of this shape.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engines.artifact import ModelFolder
from worker.engines.ov import OpenVinoOptions, compile_for_cpu
from worker.errors import EngineError
from worker.types import Float32Array

_EMBEDDINGS: Final = ("word_embeddings", "token_type_embeddings", "position_embeddings")
_DENSE: Final = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""The products of one layer in the order of the graph."""
_NORMS: Final = ("attention.output.LayerNorm", "output.LayerNorm")
_FILES: Final = ("config.json", "tokenizer.json", "tokenizer_config.json")


def write_float32_copy(folder: ModelFolder, target: Path) -> Path:
    """Write a BERT model's OpenVINO weights to `target` as float32 safetensors, with configuration and tokenizer.

    Raises:
        EngineError: the graph is not that of an exported BERT.
    """
    graph = folder.openvino_file()
    if graph is None:
        raise EngineError(f"{folder.path}: no OpenVINO model to take weights from")
    import openvino  # noqa: PLC0415  takes a second

    tensors = _tensors(openvino.Core().read_model(graph))
    target.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, target / name)
    config = json.loads((target / "config.json").read_bytes())
    (target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}), encoding="utf-8")
    _write_safetensors(target / "model.safetensors", tensors)
    return target


def _tensors(model: Any) -> dict[str, Float32Array]:  # noqa: ANN401  the library is not typed for us
    nodes = list(model.get_ordered_ops())
    tensors: dict[str, Float32Array] = {}
    for name in _EMBEDDINGS:
        gathers = (n for n in nodes if n.get_type_name() == "Gather" and f".{name}." in _source_name(n))
        gather = next(gathers, None)
        if gather is None:
            raise EngineError("the graph is not that of an exported BERT")
        tensors[f"bert.embeddings.{name}.weight"] = _value(gather.input_value(0))
    products = [node for node in nodes if node.get_type_name() == "MatMul" and _is_constant(node.input_value(1))]
    norms = [_norm(node) for node in nodes if node.get_type_name() == "MVN"]
    layers, rest = divmod(len(products) - 2, len(_DENSE))
    if rest or len(norms) != 1 + len(_NORMS) * layers:
        raise EngineError("the graph is not that of an exported BERT")
    names = [f"bert.encoder.layer.{layer}.{part}" for layer in range(layers) for part in _in_order(products, layer)]
    for name, product in zip([*names, "bert.pooler.dense", "classifier"], products, strict=True):
        weight = _value(product.input_value(1))
        tensors[f"{name}.weight"] = np.ascontiguousarray(weight if _is_transposed(product) else weight.T)
        tensors[f"{name}.bias"] = _added(product)
    norm_names = [f"bert.encoder.layer.{layer}.{part}" for layer in range(layers) for part in _NORMS]
    for name, (scale, shift) in zip(["bert.embeddings.LayerNorm", *norm_names], norms, strict=True):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = scale, shift
    return tensors


def _in_order(products: list[Any], layer: int) -> list[str]:
    """The names of a layer's products in the order in which the graph has them: told apart by where they lead to."""
    of_layer = products[layer * len(_DENSE) : (layer + 1) * len(_DENSE)]
    heads = {id(product): _role(product) for product in of_layer[:3]}
    return [*(f"attention.self.{heads[id(product)]}" for product in of_layer[:3]), *_DENSE[3:]]


def _role(product: Any) -> str:  # noqa: ANN401  the library is not typed for us
    """Query, key or value: the side of which product of two activations its result comes in on."""
    output = product.output(0)
    while True:
        port = next(iter(output.get_target_inputs()))
        node = port.get_node()
        if node.get_type_name() == "MatMul":
            is_context = node.get_output_partial_shape(0)[-1].is_static
            return "value" if is_context else ("query", "key")[port.get_index()]
        output = node.output(0)


def _source_name(gather: Any) -> str:  # noqa: ANN401  the library is not typed for us
    return str(gather.input_value(0).get_node().get_friendly_name())


def _is_constant(value: Any) -> bool:  # noqa: ANN401  the library is not typed for us
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return True
    inputs = [node.input_value(number) for number in range(node.get_input_size())]
    return bool(inputs) and all(_is_constant(each) for each in inputs)


def _is_transposed(product: Any) -> bool:  # noqa: ANN401  the library is not typed for us
    return bool(product.get_attributes()["transpose_b"])


def _value(output: Any) -> Float32Array:  # noqa: ANN401  the library is not typed for us
    """What a part of the graph without inputs computes."""
    import openvino  # noqa: PLC0415  as above
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    model = openvino.Model([ops.convert(output, "f32")], [], "weights")
    found = compile_for_cpu(model, OpenVinoOptions("float32", 1))([])
    return np.array(found[0], dtype=np.float32)


def _added(node: Any) -> Float32Array:  # noqa: ANN401  the library is not typed for us
    """The constant that is added to the result of `node`."""
    add = next(iter(node.output(0).get_target_inputs())).get_node()
    if add.get_type_name() != "Add":
        raise EngineError("the graph is not that of an exported BERT")
    value = next(add.input_value(number) for number in (0, 1) if _is_constant(add.input_value(number)))
    return _value(value).reshape(-1)


def _norm(node: Any) -> tuple[Float32Array, Float32Array]:  # noqa: ANN401  the library is not typed for us
    multiply = next(iter(node.output(0).get_target_inputs())).get_node()
    scale = next(multiply.input_value(number) for number in (0, 1) if _is_constant(multiply.input_value(number)))
    return _value(scale).reshape(-1), _added(multiply)


def _write_safetensors(file: Path, tensors: dict[str, Float32Array]) -> None:
    """The format: the length of a JSON header, the header, the bytes of all tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    described = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(len(described).to_bytes(8, "little"))
        stream.write(described)
        for tensor in tensors.values():
            stream.write(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
