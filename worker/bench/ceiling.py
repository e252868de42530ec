"""What the machine could do at best: its matrix products, and how many operations a pair of tokens costs a model."""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from worker.engines.artifact import CONFIG_FILE, ModelFolder, read_json_object
from worker.engines.ov import OpenVinoOptions, compile_for_cpu
from worker.engines.ov_precision import INT8

_SIDES: Final = (512, 1024, 2048)
_REPEATS: Final = 5
_CHAIN: Final = 4
"""Products per run: the call itself then costs nothing to speak of."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the operations of an encoder follow from."""

    layers: int
    hidden: int
    intermediate: int

    def flops(self, tokens: int) -> int:
        """Operations of one pair of so many tokens: projections, feed-forward and attention, nothing else."""
        per_token = 8 * self.hidden**2 + 4 * self.hidden * self.intermediate
        return self.layers * (tokens * per_token + 4 * tokens**2 * self.hidden)


def model_shape(folder: ModelFolder) -> ModelShape | None:
    """The shape that the model's configuration names; None where it names another kind of model."""
    config = read_json_object(folder.path / CONFIG_FILE)
    names = ("num_hidden_layers", "hidden_size", "intermediate_size")
    layers, hidden, intermediate = (config.get(name) for name in names)
    if isinstance(layers, int) and isinstance(hidden, int) and isinstance(intermediate, int):
        return ModelShape(layers, hidden, intermediate)
    return None


def measured_ceiling(options: OpenVinoOptions) -> dict[str, float]:
    """Operations a second of the best square matrix product in the engine's precision and threads. Blocks for seconds.

    `tflops` is the best of all sides, `side` the one that gave it.
    """
    found = {side: _tflops(side, options) for side in _SIDES}
    best = max(found, key=lambda side: found[side])
    return {"tflops": found[best], "side": float(best), **{f"tflops_{side}": value for side, value in found.items()}}


def _tflops(side: int, options: OpenVinoOptions) -> float:
    draw = np.random.default_rng(0)
    chain = _chain(side, draw, is_packed=options.precision == INT8)
    request = compile_for_cpu(chain, options).create_infer_request()
    values = draw.standard_normal((side, side)).astype(np.float32)
    request.infer([values], share_inputs=True)
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        request.infer([values], share_inputs=True)
        seconds.append(time.perf_counter() - began)
    return _CHAIN * 2 * side**3 / min(seconds) / 1e12


def _chain(side: int, draw: np.random.Generator, *, is_packed: bool) -> Any:  # noqa: ANN401  the library is not typed for us
    import openvino  # noqa: PLC0415  takes a second
    from openvino import opset13 as ops  # noqa: PLC0415  as above

    given = ops.parameter([side, side], np.float32)
    node = given
    for _ in range(_CHAIN):
        if is_packed:
            # As models store them, an unsigned byte, a zero point and a scale per row.
            packed = ops.convert(ops.constant(draw.integers(0, 256, (side, side)).astype(np.uint8)), "f32")
            centred = ops.subtract(packed, ops.constant(np.full((side, 1), 128, np.float32)))
            weights = ops.multiply(centred, ops.constant(np.full((side, 1), 1 / (74 * side**0.5), np.float32)))
        else:
            values = draw.standard_normal((side, side)).astype(np.float32) / np.float32(side**0.5)
            weights = ops.constant(values)
        node = ops.matmul(node, weights, False, True)  # noqa: FBT003  the library's own flags
    return openvino.Model([node], [given], "products")
