"""What OpenVINO may compute in on a CPU, and what is best there."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from worker.engines import ov_machine
from worker.errors import ConfigError

INT8: Final = "int8"
GROUP: Final = 32
"""Values of a token that are quantised on one scale. Over a whole token 8 bits change 5 to 13 % of MiniLM's decisions;
with one scale for so many the logits are off by two to three times what bfloat16 makes of them (docs/benchmarks.md),
and the gate says of each model whether that is little enough."""
_HINTS: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES: Final = {"bfloat16": ov_machine.BFLOAT16, "float16": "FP16"}
"""What `OPTIMIZATION_CAPABILITIES` calls the arithmetic that a precision needs."""
NAMES: Final = (*_HINTS, INT8)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a graph is compiled."""

    precision: str
    """What the engine says of itself; one of `NAMES`."""
    rest: str
    """What is computed in that is no product with 8-bit weights; the same as `precision` but for int8."""
    group: int = 0
    """Values that are quantised on one scale before such a product; 0: none are, and weights are unpacked once."""

    @property
    def properties(self) -> dict[str, object]:
        """What OpenVINO calls it."""
        return {"INFERENCE_PRECISION_HINT": _HINTS[self.rest], "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.group}


def ladder(*, has_8bit_weights: bool) -> tuple[str, ...]:
    """What to try on this CPU; the last one always works.

    bfloat16 before int8, which is hardly faster on a CPU that has both and further from float32; where there is
    no bfloat16, int8 is nearly twice as fast as float32 (docs/benchmarks.md).
    """
    if ov_machine.has_fast_bfloat16():
        return "bfloat16", "float32"
    return (INT8, "float32") if has_8bit_weights and ov_machine.has_8bit_products() else ("float32",)


def arithmetic(wanted: str, capabilities: Collection[str], *, has_8bit_weights: bool) -> Arithmetic:
    """How to compute in `wanted`, a name or `auto`, on a CPU of these `capabilities`.

    Raises:
        ConfigError: this engine or this CPU does not compute in it, or the model's weights are not such.
    """
    if wanted == "auto":
        wanted = ladder(has_8bit_weights=has_8bit_weights)[0]
    if wanted not in NAMES:
        message = f"precision: the openvino engine computes in {', '.join(NAMES)}; {wanted!r} is none of them"
        raise ConfigError(message)
    if wanted in _CAPABILITIES and _CAPABILITIES[wanted] not in capabilities:
        message = f"precision: this CPU does not compute in {wanted}; use auto or float32"
        raise ConfigError(message)
    if wanted != INT8:
        return Arithmetic(wanted, wanted)
    if not has_8bit_weights:
        raise ConfigError("precision: int8 wants a model with 8-bit weights, and this one has none; use auto")
    return Arithmetic(INT8, "bfloat16" if ov_machine.BFLOAT16 in capabilities else "float32", GROUP)
