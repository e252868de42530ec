"""The encoder of a model folder: which family it is of, its weights in a precision, logits from it.

Written out here rather than run by transformers, so that masks, types and layout are ours: the same code is exported
to compilers, runs packed on a GPU, and is compared with transformers family by family in the tests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.engines.encoders.arithmetic import Observer, Tensor, Weights
from worker.engines.encoders.bert import BertShape, read_bert, score_bert
from worker.engines.encoders.deberta import DebertaShape, read_deberta, score_deberta
from worker.engines.encoders.layouts import Layout
from worker.engines.encoders.modernbert import ModernBertShape, read_modernbert, score_modernbert
from worker.errors import EngineError

Shape = BertShape | DebertaShape | ModernBertShape

FAMILIES: Final = ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")
"""Model types of `config.json`; MiniLM is a bert, DeBERTa-v3 a deberta-v2."""
_WIDE_PARTS: Final = ("head.", "full_attention.", "sliding_attention.")
"""What stays in float32 whatever the rest is computed in: the classifier, and the angles of rotary positions."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A model that can be scored in any layout. Its tensors share no memory with the module it was read from."""

    family: str
    shape: Shape
    weights: Weights

    def score(self, layout: Layout, ids: Tensor, types: Tensor | None) -> Tensor:
        """Float32 logits [pairs, classes] of token ids and type ids laid out as `layout` says."""
        shape = self.shape
        if isinstance(shape, BertShape):
            logits = score_bert(shape, self.weights, layout, ids, types)
        elif isinstance(shape, DebertaShape):
            logits = score_deberta(shape, self.weights, layout, ids, types)
        else:
            logits = score_modernbert(shape, self.weights, layout, ids, types)
        return logits.float()

    def observed(self, observer: Observer) -> "Encoder":
        """The same encoder, with `observer` seeing the input of every linear layer."""
        return replace(self, weights=replace(self.weights, observer=observer))


def is_known_family(config: Mapping[str, Any]) -> bool:
    """Whether this package has the family of a `config.json`."""
    return config.get("model_type") in FAMILIES


def read_encoder(module: Any, precision: str, *, has_wide_norms: bool = False) -> Encoder:  # noqa: ANN401  # untyped
    """The encoder of a transformers model, on its device, computing in `precision`.

    Head and angles stay in float32; with `has_wide_norms` the norms too.

    Raises:
        EngineError: a family or variant that is not built.
    """
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    config = module.config.to_dict()
    family = str(config.get("model_type"))
    state = {name: values.detach() for name, values in module.state_dict().items()}
    shape: Shape
    if family not in FAMILIES:
        raise EngineError(f"config.json: model_type: {family!r} is not built; there are {', '.join(FAMILIES)}")
    if family == "deberta-v2":
        shape, tensors = read_deberta(config, state)
    elif family == "modernbert":
        shape, tensors = read_modernbert(config, state)
    else:
        shape, tensors = read_bert(config, state)
    device, dtype = next(iter(state.values())).device, getattr(torch, precision)

    def typed(name: str, values: Tensor) -> Tensor:
        is_wide = name.startswith(_WIDE_PARTS) or (has_wide_norms and "norm." in name)
        return values.to(device=device, dtype=torch.float32 if is_wide else dtype, copy=True).contiguous()

    kept = {name: typed(name, values) for name, values in tensors.items()}
    return Encoder(family, shape, Weights(kept, has_wide_norms=has_wide_norms))
