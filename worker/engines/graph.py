"""The same model in fewer steps: what an exporter writes down and no score depends on is taken out before compiling.

Every rewrite looks for exactly what our export makes of a BERT-like encoder, and leaves alone what differs. A rewritten
model passes the same gate as any other: its logits are compared with those of the float32 original.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

REWRITES: Final = "1"
"""Rises with every change of what is rewritten: a verdict on an engine holds for one value of it."""
_EIGHT_BITS: Final = frozenset({"u8", "i8"})
_HEADS_FIRST: Final = [0, 2, 1, 3]
"""The order that turns [pairs, tokens, heads, size] into [pairs, heads, tokens, size]."""

Node = Any  # a node, a port or a model of OpenVINO, which is not typed for us


@dataclass(frozen=True, slots=True)
class _Attention:
    """One attention as the exporter writes it down; the first three are outputs [pairs, heads, tokens, size]."""

    query: Node
    key: Node
    value: Node
    scale: float
    product: Node
    """The node that gives its result, [pairs, heads, tokens, size]."""


def simplify(model: Node, *, unpacks: bool = True) -> tuple[str, ...]:
    """Rewrite `model` in place; the names of the rewrites that found what they look for.

    Without `unpacks` 8-bit weights stay packed: OpenVINO quantises only what is multiplied with such ones.
    """
    done = {"weights": unpacks and _unpack_weights(model)}
    found = [_attention(node) for node in _of_type(model, "Softmax")]
    attentions = [each for each in found if each is not None]
    mask = _mask(model)
    if mask is not None and attentions and len(attentions) == len(found):
        for attention in attentions:
            _fuse(attention, mask)
        done["attention"] = True
        done["first_token"] = _keep_first_token(model)
    model.validate_nodes_and_infer_types()
    return tuple(name for name, is_done in done.items() if is_done)


def _unpack_weights(model: Node) -> bool:
    """8-bit weights as plain ones: they are few enough to be unpacked once instead of at every call."""
    import openvino  # noqa: PLC0415  takes a second
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    packed = [node.input(1) for node in _of_type(model, "MatMul") if _is_packed(node.input_value(1))]
    if not packed:
        return False
    weights = [ops.convert(port.get_source_output(), "f32") for port in packed]
    unpacking = openvino.Core().compile_model(
        openvino.Model(weights, [], "weights"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for port, values in zip(packed, unpacking([]).values(), strict=True):
        port.replace_source_output(ops.constant(np.array(values, np.float32)).output(0))
    return True


def _is_packed(weights: Node) -> bool:
    return any(_type_name(node.output(0)) in _EIGHT_BITS for node in _constants(weights))


def _attention(softmax: Node) -> _Attention | None:
    masked, user = _source(softmax, 0), _user(softmax, "Select")
    product = _user(user or softmax, "MatMul")
    if masked.get_type_name() != "Add" or product is None:
        return None
    scores = next((each for each in map(masked.input_value, (0, 1)) if _is_kind(each, "MatMul")), None)
    if scores is None:
        return None
    query, query_scale = _heads(scores.get_node().input_value(0))
    key, key_scale = _heads(scores.get_node().input_value(1))
    value, value_scale = _heads(product.input_value(1))
    if query is None or key is None or value is None or value_scale != 1.0:
        return None
    return _Attention(query, key, value, query_scale * key_scale, product)


def _heads(output: Node) -> tuple[Node | None, float]:
    """The [pairs, heads, tokens, size] behind scaling and reordering, and the scale; None where that is unclear."""
    scale = 1.0
    while not _is_split_into_heads(output):
        node = output.get_node()
        if _is_kind(output, "Multiply"):
            factor = next((side for side in (0, 1) if _is_kind(node.input_value(side), "Constant")), None)
            if factor is None or _source(node, factor).data.size != 1:
                return None, scale
            scale *= float(_source(node, factor).data.reshape(-1)[0])
            output = node.input_value(1 - factor)
        elif _is_kind(output, "Reshape") or _is_kind(output, "Transpose"):
            output = node.input_value(0)
        else:
            return None, scale
    return output, scale


def _is_split_into_heads(output: Node) -> bool:
    if not _is_kind(output, "Transpose"):
        return False
    node = output.get_node()
    order, split = node.input_value(1), node.input_value(0)
    return (
        _is_kind(order, "Constant")
        and list(order.get_node().data.reshape(-1)) == _HEADS_FIRST
        and _is_kind(split, "Reshape")
        and _is_kind(split.get_node().input_value(0), "Add")
    )


def _mask(model: Node) -> Node | None:
    """What is added to the scores, [pairs, 1, 1, tokens]: nothing for a token, minus infinity for padding."""
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    given = next((port for port in model.inputs if port.get_any_name() == "attention_mask"), None)
    if given is None:
        return None
    is_token = ops.convert(given, "boolean")
    added = ops.select(is_token, ops.constant(np.float32(0)), ops.constant(np.float32(-np.inf)))
    return ops.unsqueeze(added, ops.constant(np.array([1, 2], np.int64))).output(0)


def _fuse(attention: _Attention, mask: Node) -> None:
    """One attention for product, scale, mask, softmax, the guard against rows without a token, and product.

    No batch of ours has such a row.
    """
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    scale = ops.constant(np.float32(attention.scale))
    fused = ops.scaled_dot_product_attention(attention.query, attention.key, attention.value, mask, scale)
    _replace(attention.product.output(0), fused.output(0))


def _keep_first_token(model: Node) -> bool:
    """Behind the last attention, compute for the first token alone: the only one that the head looks at."""
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    last = _of_type(model, "ScaledDotProductAttention")[-1]
    residual = _residual(last)
    pick = next(iter(_of_type(model, "Gather")[::-1]), None)
    if residual is None or pick is None or not _is_first_of_tokens(pick):
        return False
    add, side = residual
    hidden = add.input_value(side)
    query = _source(_source(last, 0), 0)  # the reshape in front of the transposition
    linear = _source(query, 0)
    projection = next((each for each in map(linear.input_value, (0, 1)) if _is_kind(each, "MatMul")), None)
    bias = next((each for each in map(linear.input_value, (0, 1)) if not _is_kind(each, "MatMul")), None)
    if projection is None or bias is None or not _is_same(projection.get_node().input_value(0), hidden):
        return False
    first = ops.gather(hidden, ops.constant(np.array([0], np.int64)), ops.constant(np.int64(1)))
    weights, attributes = projection.get_node().input_value(1), projection.get_node().get_attributes()
    ours = ops.add(ops.matmul(first, weights, False, attributes["transpose_b"]), bias)  # noqa: FBT003  its own flags
    width, size = linear.get_output_partial_shape(0)[2], query.get_output_partial_shape(0)[3]
    if width.is_dynamic or size.is_dynamic:
        return False
    heads = [0, 1, width.get_length() // size.get_length(), size.get_length()]
    reshaped = ops.reshape(ours, ops.constant(np.array(heads, np.int64)), special_zero=True)
    turned = ops.transpose(reshaped, ops.constant(np.array(_HEADS_FIRST, np.int64)))
    last.input(0).replace_source_output(turned.output(0))
    add.input(side).replace_source_output(first.output(0))
    return True


def _residual(attention: Node) -> tuple[Node, int] | None:
    """The addition behind an attention's output projection, and the side on which the layer's input comes in."""
    node = attention
    for kind in ("Transpose", "Reshape", "MatMul", "Add", "Add"):
        user = _user(node, kind)
        if user is None or len(node.output(0).get_target_inputs()) != 1:
            return None
        came_from, node = node, user
    side = next(side for side in (0, 1) if not _is_same(node.input_value(side), came_from.output(0)))
    return node, side


def _is_first_of_tokens(gather: Node) -> bool:
    chosen, axis = gather.input_value(1), gather.input_value(2)
    return all(_is_kind(each, "Constant") for each in (chosen, axis)) and (
        chosen.get_node().data.reshape(-1).tolist() == [0] and axis.get_node().data.reshape(-1).tolist() == [1]
    )


def _of_type(model: Node, kind: str) -> list[Node]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _source(node: Node, side: int) -> Node:
    return node.input_value(side).get_node()


def _user(node: Node, kind: str) -> Node | None:
    users = (port.get_node() for port in node.output(0).get_target_inputs())
    return next((user for user in users if user.get_type_name() == kind), None)


def _is_kind(output: Node, kind: str) -> bool:
    return bool(output.get_node().get_type_name() == kind)


def _is_same(one: Node, other: Node) -> bool:
    return bool(one.get_node().get_name() == other.get_node().get_name() and one.get_index() == other.get_index())


def _replace(old: Node, new: Node) -> None:
    for port in list(old.get_target_inputs()):
        port.replace_source_output(new)


def _constants(output: Node) -> Iterable[Node]:
    """The constants of a part of the graph that has no inputs; nothing where it has."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return [node]
    if node.get_output_partial_shape(0).is_dynamic:  # what comes of an input is, and may be the whole model
        return []
    parts = [list(_constants(node.input_value(side))) for side in range(node.get_input_size())]
    return [each for part in parts for each in part] if parts and all(parts) else []


def _type_name(output: Node) -> str:
    return str(output.get_element_type().get_type_name())
