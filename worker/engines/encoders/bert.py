"""BERT, MiniLM, RoBERTa, XLM-R: absolute positions, norms after each half of a layer."""

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
from worker.engines.encoders.layouts import Layout
from worker.errors import EngineError


@dataclass(frozen=True, slots=True)
class BertShape:
    """What a BERT-like encoder's weights do not say."""

    layers: int
    heads: int
    epsilon: float
    activation: str
    max_tokens: int


def read_bert(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> tuple[BertShape, dict[str, Tensor]]:
    """The shape, and the weights by this package's names.

    Raises:
        EngineError: a variant that is not built.
    """
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
        raise EngineError("config.json: only absolute positions in an encoder are built for this family")
    is_roberta = "classifier.out_proj.weight" in state
    first = int(config.get("pad_token_id") or 0) + 1 if is_roberta else 0
    prefix = next(name.removesuffix("embeddings.word_embeddings.weight") for name in state if "word_embed" in name)
    found = {
        "embeddings.words": state[f"{prefix}embeddings.word_embeddings.weight"],
        # Positions of RoBERTa count from after its padding token.
        "embeddings.positions": state[f"{prefix}embeddings.position_embeddings.weight"][first:],
        "embeddings.types": state[f"{prefix}embeddings.token_type_embeddings.weight"],
    }
    names = {f"{prefix}embeddings.LayerNorm": "embeddings.norm"}
    if is_roberta:
        names |= {"classifier.dense": "head.dense", "classifier.out_proj": "head.out"}
    else:
        names |= {f"{prefix}pooler.dense": "head.dense", "classifier": "head.out"}
    layers = int(config["num_hidden_layers"])
    for index in range(layers):
        old, new = f"{prefix}encoder.layer.{index}", f"layers.{index}"
        found |= joined_projections(state, f"{old}.attention.self", ("query", "key", "value"), f"{new}.qkv")
        names |= {
            f"{old}.attention.output.dense": f"{new}.mixed",
            f"{old}.attention.output.LayerNorm": f"{new}.mixed_norm",
            f"{old}.intermediate.dense": f"{new}.up",
            f"{old}.output.dense": f"{new}.down",
            f"{old}.output.LayerNorm": f"{new}.down_norm",
        }
    shape = BertShape(
        layers=layers,
        heads=int(config["num_attention_heads"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=checked_activation(config, "hidden_act"),
        max_tokens=len(found["embeddings.positions"]),
    )
    return shape, found | renamed(state, names)


def score_bert(shape: BertShape, weights: Weights, layout: Layout, ids: Tensor, types: Tensor | None) -> Tensor:
    """Logits of the head, in the type of its weights: [pairs, classes]."""
    at = weights.at("embeddings")
    kinds = at["types"][0] if types is None else rows(at["types"], types)
    hidden = norm(at.at("norm"), rows(at["words"], ids) + kinds + layout.positions(at["positions"]), shape.epsilon)
    for index in range(shape.layers):
        at = weights.at(f"layers.{index}")
        q, k, v = (heads_apart(part, shape.heads) for part in linear(at.at("qkv"), hidden).chunk(3, dim=-1))
        mixed = linear(at.at("mixed"), layout.attend(q, k, v))
        hidden = norm(at.at("mixed_norm"), hidden + mixed, shape.epsilon)
        raised = activate(shape.activation, linear(at.at("up"), hidden))
        hidden = norm(at.at("down_norm"), hidden + linear(at.at("down"), raised), shape.epsilon)
    head = weights.at("head")
    pooled = activate("tanh", linear(head.at("dense"), layout.first(hidden).to(head["dense.weight"].dtype)))
    return linear(head.at("out"), pooled)


def renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weight and bias of each layer of `names` under its new name; a bias may be missing."""
    return {
        f"{new}.{part}": state[f"{old}.{part}"]
        for old, new in names.items()
        for part in ("weight", "bias")
        if f"{old}.{part}" in state
    }


def joined_projections(state: Mapping[str, Tensor], old: str, parts: tuple[str, ...], new: str) -> dict[str, Tensor]:
    """Several linear layers over the same input as one."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    return {
        f"{new}.{kind}": torch.cat([state[f"{old}.{part}.{kind}"] for part in parts]) for kind in ("weight", "bias")
    }
