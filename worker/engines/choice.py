"""Which engine is tried for a model, in which order, and why: one line for people."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from worker.engines import ov, ov_precision, pytorch, trt_api
from worker.engines.artifact import ModelFolder
from worker.engines.cuda import cuda_absence
from worker.engines.source import BUNDLED
from worker.engines.trt_order import PlanForm, precision_ladder
from worker.errors import ConfigError

ENGINES: Final = ("tensorrt", "pytorch", "openvino", "t5_rank", "gliclass", "fake")
_ON_A_CPU: Final = {
    "int8": "; this CPU has no bfloat16, but 8-bit products",
    "bfloat16": "; this CPU computes in bfloat16",
    "float32": "",
}
PRECISIONS: Final = ("auto", "float32", "float16", "bfloat16", "int8", "float8")


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """What the configuration says of model and engine."""

    model: str = BUNDLED
    """`bundled`, a folder, or a Hugging Face id@commit."""
    engine: str = "auto"
    precision: str = "auto"
    strict: bool = False
    """No falling back to another engine or precision than the first choice."""
    cache_dir: Path | None = None
    """None: the user's cache folder."""
    threads: int | None = None
    """None: every core this process may use."""
    plan: PlanForm = field(default_factory=PlanForm)
    """Which of TensorRT's plans: one that was built otherwise is another one."""
    torch_layout: str = "auto"
    torch_compiled: bool = False
    """How the pytorch engine computes: `PyTorchOptions` has both."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to run the model."""

    engine: str
    precision: str
    why: str


def check_names(choice: EngineChoice) -> None:
    """Refuse what does not exist.

    Raises:
        ConfigError: a name is unknown, or the bundled model is to run on what it is not stored for.
    """
    if choice.engine not in {"auto", *ENGINES}:
        raise ConfigError(f"engine: {choice.engine!r} is unknown; expected auto, {', '.join(ENGINES)}")
    if choice.precision not in PRECISIONS:
        raise ConfigError(f"precision: {choice.precision!r} is unknown; expected {', '.join(PRECISIONS)}")
    if choice.model == BUNDLED and choice.engine in {"pytorch", "tensorrt", "t5_rank", "gliclass"}:
        raise ConfigError(
            f"engine: the bundled model runs on openvino only; for {choice.engine} name a folder or a hub id"
        )


def attempts(folder: ModelFolder, choice: EngineChoice) -> list[Attempt]:
    """What to try, best first: one way only with `strict`, one engine only where it is named."""
    if choice.engine == "tensorrt":
        ways = _tensorrt(folder, choice, "asked for")
    elif choice.engine == "pytorch":
        ways = _pytorch(folder, choice, "asked for")
    elif choice.engine == "openvino":
        ways = _openvino(folder, choice, "asked for")
    elif folder.openvino_file():
        ways = _openvino(folder, choice, "the model is stored for it")
    else:
        ways = _best(folder, choice)
    return ways[:1] if choice.strict else ways


def tensorrt_absence() -> str | None:
    """Why the tensorrt engine cannot run here, and how to change that; None where it can."""
    if not trt_api.has_tensorrt():
        return f"tensorrt is not installed: {trt_api.INSTALL_HINT}"
    # Looked for only where the library is there: the question imports torch.
    return cuda_absence()


def _best(folder: ModelFolder, choice: EngineChoice) -> list[Attempt]:
    """TensorRT, then torch on a GPU, then OpenVINO."""
    absence = tensorrt_absence()
    ways: list[Attempt] = []
    if absence is None:
        ways += _tensorrt(folder, choice, "there is a GPU, and tensorrt is installed")
    if pytorch.has_cuda() and choice.precision not in {"int8", "float8"}:
        why = f"there is a GPU; {absence}" if absence else "there is a GPU"
        ways += _pytorch(folder, choice, why)
    reason = "the GPU's engines were refused" if ways else f"the best engine for a CPU; none of a GPU: {_lack(absence)}"
    return [*ways, *_openvino(folder, choice, reason)]


def _lack(absence: str | None) -> str:
    """What a GPU's engine would need first: torch, where it is there, knows best whether there is a GPU at all."""
    return (cuda_absence() if pytorch.has_torch() else None) or absence or "none can do this"


def _tensorrt(folder: ModelFolder, choice: EngineChoice, why: str) -> list[Attempt]:
    precisions = choice.plan.precisions(folder, choice.precision)
    return [Attempt("tensorrt", precision, why) for precision in precisions]


def _pytorch(folder: ModelFolder, choice: EngineChoice, why: str) -> list[Attempt]:
    """In 16 bits on a GPU where nothing else is asked for; in float32 on a CPU."""
    is_open = choice.precision == "auto" and pytorch.has_cuda()
    precisions = precision_ladder(folder) if is_open else (choice.precision,)
    return [Attempt("pytorch", precision, why) for precision in precisions]


def _openvino(folder: ModelFolder, choice: EngineChoice, why: str) -> list[Attempt]:
    if choice.precision != "auto":
        return [Attempt("openvino", choice.precision, why)]
    names = ov_precision.ladder(has_8bit_weights=ov.stores_8bit_weights(folder))
    return [Attempt("openvino", name, f"{why}{_ON_A_CPU[name]}") for name in names]
