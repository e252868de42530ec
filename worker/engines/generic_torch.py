"""What engines have in common that run on torch wherever it runs: the packages, the device, the precision."""

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

from worker.engines.telemetry import silence_telemetry
from worker.errors import ConfigError, EngineError

INSTALL_HINT: Final = 'pip install "nli-stream-worker[gpu]"'
PRECISIONS: Final = ("float32", "bfloat16")
"""Not float16: what these engines run was trained in bfloat16 or float32, and overflows in it."""


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """How to compute."""

    precision: str = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu` or `cuda`."""
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class TorchPlace:
    """Where an engine computes, and how exactly."""

    torch: Any
    device: str
    precision: str

    @property
    def dtype(self) -> Any:  # noqa: ANN401  torch is no requirement of the worker
        """The precision as torch names it."""
        return getattr(self.torch, self.precision)

    @property
    def details(self) -> dict[str, str]:
        """The device as people know it."""
        return {"device": self.torch.cuda.get_device_name() if self.device == "cuda" else "cpu"}

    def empty_cache(self) -> None:
        """Give back what torch keeps of the device's memory."""
        if self.device == "cuda":
            self.torch.cuda.empty_cache()


def open_torch(engine: str, options: TorchOptions) -> TorchPlace:
    """Torch as `options` ask for it, for the engine of that name. Takes seconds where torch is not yet imported.

    Raises:
        ConfigError: a precision the engine has not.
        EngineError: torch or transformers is not installed.
    """
    if not all(importlib.util.find_spec(module) for module in ("torch", "transformers")):
        raise EngineError(f"the {engine} engine needs packages that are not installed: {INSTALL_HINT}")
    silence_telemetry()
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    usual = "bfloat16" if device == "cuda" else "float32"
    precision = usual if options.precision == "auto" else options.precision
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: the {engine} engine computes in {' or '.join(PRECISIONS)}, not {precision}")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return TorchPlace(torch, device, precision)
