"""Where a training computes, and in which numbers: decided before anything is read."""

from dataclasses import dataclass
from typing import Any, Final

from worker.engines.ov_machine import has_fast_bfloat16
from worker.errors import ConfigError

DEVICES: Final = ("auto", "cpu", "cuda")
PRECISIONS: Final = ("auto", "bfloat16", "float32")


@dataclass(frozen=True, slots=True)
class Place:
    """What a training runs on."""

    device: str
    """`cpu` or `cuda`."""
    has_autocast: bool
    """Whether matrices are multiplied in bfloat16."""


def chosen_place(torch: Any, device: str, precision: str) -> Place:  # noqa: ANN401  # torch is optional
    """The place that options ask for; with `auto` a GPU where there is one, and bfloat16 where it is no slower.

    Raises:
        ConfigError: there is no such device here, or no such precision.
    """
    if device not in DEVICES:
        raise ConfigError(f"--device {device}: expected {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: expected {', '.join(PRECISIONS)}")
    has_cuda = bool(torch.cuda.is_available())
    if device == "cuda" and not has_cuda:
        raise ConfigError("--device cuda: torch finds no GPU here; --device cpu takes the processor")
    found = ("cuda" if has_cuda else "cpu") if device == "auto" else device
    if precision != "auto":
        return Place(found, precision == "bfloat16")
    is_fast = torch.cuda.is_bf16_supported(including_emulation=False) if found == "cuda" else has_fast_bfloat16()
    return Place(found, bool(is_fast))
