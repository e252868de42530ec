"""ModernBERT: rotary positions, most layers with a local window, gated feed-forward, norms before each half."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

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
from worker.engines.encoders.bert import renamed
from worker.engines.encoders.layouts import Layout
from worker.errors import EngineError

_GLOBAL_EVERY: Final = 3
_THETAS: Final = {"full_attention": 160_000.0, "sliding_attention": 10_000.0}


@dataclass(frozen=True, slots=True)
class ModernBertShape:
    """What a ModernBERT's weights do not say."""

    heads: int
    epsilon: float
    activation: str
    classifier_activation: str
    max_tokens: int
    is_local: tuple[bool, ...]
    """Of each layer, whether its tokens see a window only."""
    window: int
    """How far a token sees to each side in a local layer."""
    is_mean_pooled: bool


def read_modernbert(
    config: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[ModernBertShape, dict[str, Tensor]]:
    """The shape, and the weights by this package's names, with the angles of all positions.

    Raises:
        EngineError: a variant that is not built.
    """
    layers = int(config["num_hidden_layers"])
    every = int(config.get("global_attn_every_n_layers") or _GLOBAL_EVERY)
    kinds = config.get("layer_types") or [
        "sliding_attention" if index % every else "full_attention" for index in range(layers)
    ]
    names = {
        "model.embeddings.norm": "embeddings.norm",
        "model.final_norm": "final_norm",
        "head.dense": "head.dense",
        "head.norm": "head.norm",
        "classifier": "head.out",
    }
    for index in range(layers):
        old, new = f"model.layers.{index}", f"layers.{index}"
        names |= {
            f"{old}.attn_norm": f"{new}.attn_norm",
            f"{old}.attn.Wqkv": f"{new}.qkv",
            f"{old}.attn.Wo": f"{new}.mixed",
            f"{old}.mlp_norm": f"{new}.mlp_norm",
            f"{old}.mlp.Wi": f"{new}.up",
            f"{old}.mlp.Wo": f"{new}.down",
        }
    heads = int(config["num_attention_heads"])
    max_tokens, size = int(config["max_position_embeddings"]), int(config["hidden_size"]) // heads
    found = {"embeddings.words": state["model.embeddings.tok_embeddings.weight"]}
    for kind in sorted(set(kinds)):
        found |= _angles(kind, _theta(config, kind), max_tokens, size)
    shape = ModernBertShape(
        heads=heads,
        epsilon=float(config.get("norm_eps", 1e-5)),
        activation=checked_activation(config, "hidden_activation"),
        classifier_activation=checked_activation(config, "classifier_activation"),
        max_tokens=max_tokens,
        is_local=tuple(kind == "sliding_attention" for kind in kinds),
        window=int(config.get("local_attention", 128)) // 2,
        is_mean_pooled=config.get("classifier_pooling", "cls") == "mean",
    )
    return shape, found | renamed(state, names)


def score_modernbert(
    shape: ModernBertShape, weights: Weights, layout: Layout, ids: Tensor, types: Tensor | None
) -> Tensor:
    """Logits of the head, in the type of its weights: [pairs, classes]."""
    del types  # the family has none
    hidden = norm(weights.at("embeddings.norm"), rows(weights["embeddings.words"], ids), shape.epsilon)
    for index, is_local in enumerate(shape.is_local):
        at = weights.at(f"layers.{index}")
        normed = norm(at.at("attn_norm"), hidden, shape.epsilon) if at.has("attn_norm.weight") else hidden
        q, k, v = (heads_apart(part, shape.heads) for part in linear(at.at("qkv"), normed).chunk(3, dim=-1))
        angles = weights.at("sliding_attention" if is_local else "full_attention")
        cos, sin = (layout.positions(angles[name]).unsqueeze(-2) for name in ("cos", "sin"))
        window = shape.window if is_local else None
        mixed = layout.attend(_rotated(q, cos, sin), _rotated(k, cos, sin), v, window)
        hidden = hidden + linear(at.at("mixed"), mixed)
        raised, gate = linear(at.at("up"), norm(at.at("mlp_norm"), hidden, shape.epsilon)).chunk(2, dim=-1)
        hidden = hidden + linear(at.at("down"), activate(shape.activation, raised) * gate)
    hidden = norm(weights.at("final_norm"), hidden, shape.epsilon)
    head = weights.at("head")
    pooled = (layout.mean(hidden) if shape.is_mean_pooled else layout.first(hidden)).to(head["dense.weight"].dtype)
    pooled = activate(shape.classifier_activation, linear(head.at("dense"), pooled))
    return linear(head.at("out"), norm(head.at("norm"), pooled, shape.epsilon))


def _rotated(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Values turned by their position's angles, in the type of `values`."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    low, high = values.chunk(2, dim=-1)
    turned = torch.cat((-high, low), dim=-1)
    return (values.to(cos.dtype) * cos + turned.to(cos.dtype) * sin).to(values.dtype)


def _angles(kind: str, theta: float, max_tokens: int, size: int) -> dict[str, Tensor]:
    """Cosine and sine of every position's angles: [positions, size]."""
    import torch  # noqa: PLC0415  # as above

    frequencies = 1.0 / (theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    turns = torch.outer(torch.arange(max_tokens, dtype=torch.float32), frequencies)
    both = torch.cat((turns, turns), dim=-1)
    return {f"{kind}.cos": both.cos(), f"{kind}.sin": both.sin()}


def _theta(config: Mapping[str, Any], kind: str) -> float:
    """The base of a kind of layer's angles, as configurations old and new name it.

    Raises:
        EngineError: angles that are scaled.
    """
    rope = (config.get("rope_parameters") or {}).get(kind) or {}
    if rope.get("rope_type", "default") != "default":
        raise EngineError("config.json: rope_parameters: only the type `default` is built for this family")
    old = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}[kind]
    return float(rope.get("rope_theta") or config.get(old) or _THETAS[kind])
