"""The arithmetic that all encoder families share: weights by name, linear layers, norms, activations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.errors import EngineError

Tensor = Any
"""A torch tensor; torch is optional, so untyped to mypy."""
Observer = Callable[[str, Tensor], None]

ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "tanh")


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a model, or of a part of it, by the names that this package gives them."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""
    has_wide_norms: bool = False
    """Norms are computed in float32 by casting around them, for compilers that do not do so by themselves."""
    observer: Observer | None = None
    """Sees the input of every linear layer, by the name of the layer."""

    def at(self, part: str) -> "Weights":
        """The weights whose names begin with `part`, followed by a dot."""
        return replace(self, prefix=f"{self.prefix}{part}.")

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return f"{self.prefix}{name}" in self.tensors

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None."""
        return self.tensors.get(f"{self.prefix}{name}")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[f"{self.prefix}{name}"]


def linear(weights: Weights, values: Tensor) -> Tensor:
    """A linear layer with or without bias: `weight` [out, in], `bias` [out]."""
    import torch.nn.functional as functions  # noqa: PLC0415  # heavy, and not a requirement of the worker

    if weights.observer is not None:
        weights.observer(weights.prefix.rstrip("."), values)
    return functions.linear(values, weights["weight"], weights.get("bias"))


def norm(weights: Weights, values: Tensor, epsilon: float) -> Tensor:
    """LayerNorm over the last dimension, in the type of `values`."""
    import torch.nn.functional as functions  # noqa: PLC0415  # as above

    scale, shift = weights["weight"], weights.get("bias")
    if not weights.has_wide_norms:
        # torch's own kernels sum in float32 whatever they are given.
        return functions.layer_norm(values, scale.shape, scale, shift, epsilon)
    shift = None if shift is None else shift.float()
    return functions.layer_norm(values.float(), scale.shape, scale.float(), shift, epsilon).to(values.dtype)


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of a table [rows, size] that integers of any shape and type name."""
    import torch.nn.functional as functions  # noqa: PLC0415  # as above

    return functions.embedding(ids, table)


def activate(name: str, values: Tensor) -> Tensor:
    """The activation that a configuration calls `name`, one of `ACTIVATIONS`."""
    import torch  # noqa: PLC0415  # as above

    functions = torch.nn.functional
    if name in {"gelu_new", "gelu_pytorch_tanh"}:
        return functions.gelu(values, approximate="tanh")
    return {"gelu": functions.gelu, "relu": functions.relu, "silu": functions.silu, "tanh": torch.tanh}[name](values)


def checked_activation(config: Mapping[str, Any], key: str, default: str = "gelu") -> str:
    """The activation that `config` names.

    Raises:
        EngineError: an activation that this package has not.
    """
    name = str(config.get(key, default))
    if name not in ACTIVATIONS:
        raise EngineError(f"config.json: {key}: {name!r} is not built; there are {', '.join(ACTIVATIONS)}")
    return name


def heads_apart(values: Tensor, heads: int) -> Tensor:
    """[..., heads * size] as [..., heads, size]."""
    return values.unflatten(-1, (heads, values.shape[-1] // heads))
