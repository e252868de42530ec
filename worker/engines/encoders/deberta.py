"""DeBERTa-v2 and v3: attention that also scores the distance between tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.engines.encoders.arithmetic import (
    Tensor,
    Weights,
    activate,
    checked_activation,
    heads_apart,
    linear,
    norm,
    rows,
)
from worker.engines.encoders.bert import joined_projections, renamed
from worker.engines.encoders.layouts import Layout
from worker.errors import EngineError


@dataclass(frozen=True, slots=True)
class DebertaShape:
    """What a DeBERTa's weights do not say."""

    layers: int
    heads: int
    epsilon: float
    activation: str
    pooler_activation: str
    max_tokens: int
    parts: int
    """Of which the scores are a sum: content, and each kind of distance."""
    is_shifted: bool = False
    """Bring scores of distances into place by padding and cutting rather than by a gather."""


def read_deberta(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[DebertaShape, dict[str, Tensor]]:
    """The shape, and the weights by this package's names; scores of distances are constants of each layer.

    Raises:
        EngineError: a variant that is not built.
    """
    if int(config.get("conv_kernel_size") or 0) > 0 or not config.get("relative_attention"):
        raise EngineError("config.json: of this family only relative attention without a convolution is built")
    found = {"embeddings.words": state["deberta.embeddings.word_embeddings.weight"]}
    for old, new in (("position_embeddings", "positions"), ("token_type_embeddings", "types")):
        if f"deberta.embeddings.{old}.weight" in state:
            found[f"embeddings.{new}"] = state[f"deberta.embeddings.{old}.weight"]
    names = {
        "deberta.embeddings.embed_proj": "embeddings.wider",
        "deberta.embeddings.LayerNorm": "embeddings.norm",
        "pooler.dense": "head.dense",
        "classifier": "head.out",
    }
    layers, max_tokens = int(config["num_hidden_layers"]), int(config["max_position_embeddings"])
    kinds = tuple(config.get("pos_att_type") or ())
    distances = _distance_embeddings(config, state, max_tokens)
    for index in range(layers):
        old, new = f"deberta.encoder.layer.{index}", f"layers.{index}"
        at = f"{old}.attention.self"
        found |= joined_projections(state, at, ("query_proj", "key_proj", "value_proj"), f"{new}.qkv")
        is_shared = bool(config.get("share_att_key"))
        for kind, own, shared in (("c2p", "pos_key_proj", "key_proj"), ("p2c", "pos_query_proj", "query_proj")):
            if kind in kinds:
                # A row's tokens are queries in one, keys in the other: both tables go by column minus row.
                table = distances.flip(0) if kind == "c2p" else distances
                layer = f"{at}.{shared if is_shared else own}"
                found[f"{new}.{kind}"] = _projected(state, layer, table, int(config["num_attention_heads"]))
        names |= {
            f"{old}.attention.output.dense": f"{new}.mixed",
            f"{old}.attention.output.LayerNorm": f"{new}.mixed_norm",
            f"{old}.intermediate.dense": f"{new}.up",
            f"{old}.output.dense": f"{new}.down",
            f"{old}.output.LayerNorm": f"{new}.down_norm",
        }
    shape = DebertaShape(
        layers=layers,
        heads=int(config["num_attention_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-7)),
        activation=checked_activation(config, "hidden_act"),
        pooler_activation=checked_activation(config, "pooler_hidden_act"),
        max_tokens=max_tokens,
        parts=1 + len({"c2p", "p2c"} & set(kinds)),
    )
    return shape, found | renamed(state, names)


def score_deberta(shape: DebertaShape, weights: Weights, layout: Layout, ids: Tensor, types: Tensor | None) -> Tensor:
    """Logits of the head, in the type of its weights: [pairs, classes]."""
    at = weights.at("embeddings")
    hidden = rows(at["words"], ids)
    if at.has("positions"):
        hidden = hidden + layout.positions(at["positions"])
    if at.has("types"):
        hidden = hidden + (at["types"][0] if types is None else rows(at["types"], types))
    if at.has("wider.weight"):
        hidden = linear(at.at("wider"), hidden)
    hidden = norm(at.at("norm"), hidden, shape.epsilon)
    for index in range(shape.layers):
        at = weights.at(f"layers.{index}")
        projected = layout.rectangle(linear(at.at("qkv"), hidden))
        mixed = linear(at.at("mixed"), layout.tokens(_attend(shape, at, layout, projected)))
        hidden = norm(at.at("mixed_norm"), hidden + mixed, shape.epsilon)
        raised = activate(shape.activation, linear(at.at("up"), hidden))
        hidden = norm(at.at("down_norm"), hidden + linear(at.at("down"), raised), shape.epsilon)
    head = weights.at("head")
    first = layout.first(hidden).to(head["dense.weight"].dtype)
    return linear(head.at("out"), activate(shape.pooler_activation, linear(head.at("dense"), first)))


def _attend(shape: DebertaShape, weights: Weights, layout: Layout, projected: Tensor) -> Tensor:
    """Attention over rectangles: [pairs, tokens, hidden]."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    q, k, v = (heads_apart(part, shape.heads).transpose(1, 2) for part in projected.chunk(3, dim=-1))
    tokens, scale = q.shape[2], (q.shape[-1] * shape.parts) ** -0.5
    # Scaled before the products: the unscaled scores of large models leave the range of float16.
    q, scaled_k = q * scale, k * scale
    scores = q @ k.transpose(-1, -2)
    for kind, tokens_of in (("c2p", q), ("p2c", scaled_k)):
        if weights.has(kind):
            near = weights[kind][:, shape.max_tokens - tokens : shape.max_tokens + tokens - 1]
            placed = _placed(tokens_of @ near.transpose(-1, -2), tokens, is_shifted=shape.is_shifted)
            scores = scores + (placed if kind == "c2p" else placed.transpose(-1, -2))
    mixed = torch.softmax(scores + layout.key_bias(scores.dtype), dim=-1) @ v
    return mixed.transpose(1, 2).flatten(-2)


def _placed(by_distance: Tensor, tokens: int, *, is_shifted: bool) -> Tensor:
    """Scores by row and distance [..., tokens, 2 * tokens - 1] as scores by row and column.

    The distance, from -(tokens - 1) up, is column minus row.
    """
    import torch  # noqa: PLC0415  # as above

    if is_shifted:
        # With one more entry, rows begin 2 * tokens apart; read with one less, each begins one entry earlier.
        flat = torch.nn.functional.pad(by_distance, (0, 1)).flatten(-2)
        wide = flat[..., tokens - 1 : tokens - 1 + tokens * (2 * tokens - 1)]
        return wide.unflatten(-1, (tokens, 2 * tokens - 1))[..., :tokens]
    places = torch.arange(tokens, device=by_distance.device)
    distance = places[None, :] - places[:, None] + (tokens - 1)
    return by_distance.gather(-1, distance.expand(*by_distance.shape[:2], tokens, tokens))


def _distance_embeddings(config: Mapping[str, Any], state: Mapping[str, Tensor], max_tokens: int) -> Tensor:
    """The embedding of each distance from -(max_tokens - 1) to max_tokens - 1, normalised: [distances, hidden]."""
    import torch  # noqa: PLC0415  # as above

    table = state["deberta.encoder.rel_embeddings.weight"].float()
    if "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower():
        scale, shift = (state[f"deberta.encoder.LayerNorm.{part}"].float() for part in ("weight", "bias"))
        epsilon = float(config.get("layer_norm_eps", 1e-7))
        table = torch.nn.functional.layer_norm(table, scale.shape, scale, shift, epsilon)
    farthest = int(config.get("max_relative_positions", -1))
    farthest = max_tokens if farthest < 1 else farthest
    buckets = int(config.get("position_buckets", -1))
    span = buckets if buckets > 0 else farthest
    numbers = _buckets(torch.arange(1 - max_tokens, max_tokens), buckets, farthest) + span
    return table[numbers.clamp(0, 2 * span - 1).to(table.device)]


def _buckets(distances: Tensor, buckets: int, farthest: int) -> Tensor:
    """The bucket of each distance: itself when near, by its logarithm when far, as DeBERTa-v2 was trained."""
    if buckets <= 0:
        return distances
    near = buckets // 2
    far = distances.abs().clamp(min=near)
    # In float32, as trained: at the edge of a bucket a wider type can fall on the other side.
    import torch  # noqa: PLC0415  # as above

    steps = torch.log(far / near) / torch.log(torch.tensor((farthest - 1) / near)) * (near - 1)
    logarithmic = ((torch.ceil(steps) + near) * distances.sign()).long()
    return torch.where(distances.abs() <= near, distances, logarithmic)


def _projected(state: Mapping[str, Tensor], layer: str, distances: Tensor, heads: int) -> Tensor:
    """Distances as keys or queries: [heads, distances, size]."""
    import torch  # noqa: PLC0415  # as above

    weight, bias = state[f"{layer}.weight"].float(), state.get(f"{layer}.bias")
    projected = torch.nn.functional.linear(distances, weight, None if bias is None else bias.float())
    return heads_apart(projected, heads).transpose(0, 1)
