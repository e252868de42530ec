"""An encoder as an ONNX graph: int32 in, float32 logits out, any number of pairs and tokens."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from worker.engines.encoders.arithmetic import Tensor
from worker.engines.encoders.families import Encoder
from worker.engines.encoders.layouts import Padded

OPSET: Final = 20
"""The first with Gelu; LayerNormalization is one node since 17, and keeps its sums wide."""
_IR_VERSION: Final = 10
"""Read by every version of the runtimes that know the opset; the exporter writes the newest it knows."""
IDS: Final = "input_ids"
TYPES: Final = "token_type_ids"
MASK: Final = "attention_mask"
LENGTHS: Final = "lengths"
LOGITS: Final = "logits"


def write_onnx(encoder: Encoder, file: Path, *, has_types: bool, mask_input: str = LENGTHS) -> None:
    """Write `encoder` to `file`; blocks for seconds.

    Inputs are `input_ids` int32 [pairs, tokens], with `has_types` `token_type_ids` of that shape, and what is a token:
    `lengths` int32 [pairs], or `attention_mask` int32 [pairs, tokens].
    """
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    names = [IDS, *([TYPES] if has_types else []), mask_input]
    # Sizes of 0 and 1 would be taken as fixed.
    ids = torch.ones((3, min(24, encoder.shape.max_tokens)), dtype=torch.int32)
    example = [ids.clone() for _ in names[:-1]]
    example.append(ids if mask_input == MASK else torch.tensor([5, 9, ids.shape[1]], dtype=torch.int32))
    any_size = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    shapes = [any_size] * (len(names) - 1) + [any_size if mask_input == MASK else {0: torch.export.Dim.DYNAMIC}]
    with without_noise():
        program = torch.onnx.export(
            _module(encoder, names),
            tuple(example),
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[LOGITS],
            # The parameters of `forward` are one tuple.
            dynamic_shapes=(tuple(shapes),),
            verbose=False,
        )
        program.model.ir_version = _IR_VERSION
        program.save(str(file), external_data=_is_large(encoder))


def _module(encoder: Encoder, names: list[str]) -> Any:  # noqa: ANN401  # a torch module, and torch is optional
    import torch  # noqa: PLC0415  # as above

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is optional, so untyped to mypy
        """The encoder over a padded rectangle; its weights are buffers, so that they become named constants."""

        def __init__(self) -> None:
            super().__init__()
            for name, values in encoder.weights.tensors.items():
                self.register_buffer(name.replace(".", "_"), values)

        def forward(self, *inputs: Tensor) -> Tensor:
            fed = dict(zip(names, inputs, strict=True))
            buffers = {name: getattr(self, name.replace(".", "_")) for name in encoder.weights.tensors}
            ids = fed[IDS]
            if MASK in fed:
                is_token = fed[MASK] > 0
            else:
                places = torch.arange(ids.shape[1], dtype=torch.int32, device=ids.device)
                is_token = places[None, :] < fed[LENGTHS][:, None]
            mine = replace(encoder, weights=replace(encoder.weights, tensors=buffers))
            return mine.score(Padded(is_token, is_plain=True), ids, fed.get(TYPES))

    return Logits().eval()


def _is_large(encoder: Encoder) -> bool:
    """Whether the weights come near the 2 GiB that one protobuf file may hold."""
    return sum(int(values.nbytes) for values in encoder.weights.tensors.values()) > 3 << 29


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Keep the exporters' progress, tables and warnings off the terminal: none says anything our caller can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
