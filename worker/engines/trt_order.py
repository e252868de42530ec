"""What is to be built for a model, and under which facts the plan is kept."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from worker.engines.artifact import CONFIG_FILE, ModelFolder, read_json_object
from worker.engines.cuda import DeviceFacts
from worker.engines.profiles import LAYOUTS, choose_profiles
from worker.engines.trt_api import INSTALL_HINT
from worker.engines.trt_build import LEVEL, BuildOptions
from worker.errors import ConfigError, EngineError
from worker.types import JsonValue

PRECISIONS: Final = ("float32", "float16", "bfloat16", "float8")
EXPORT_VERSION: Final = 1
"""Rises when encoders, graphs or networks change what they compute."""
TOKEN_BUDGET: Final = 16_384
"""Tokens of one run; the engine takes as many for each of its lanes."""
BUILD_SECONDS: Final = 3600.0
_BERT_LIKE: Final = ("bert", "roberta", "xlm-roberta")
_WIDE_VOCABULARY: Final = 200_000
"""mDeBERTa's is of 250,000 words; DeBERTa-v3's of 128,000."""
_NETWORKS_SINCE: Final = 11
"""The attention of TensorRT 10 takes no lengths and knows no packed form, so only graphs are built with it."""
_EXPORTERS: Final = ("torch", "transformers", "onnxscript")


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What to build."""

    precision: str
    layout: str = "padded"
    token_budget: int = TOKEN_BUDGET
    buckets: tuple[int, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)

    def facts(self, folder: ModelFolder, tensorrt: str, device: DeviceFacts) -> dict[str, JsonValue]:
        """Everything that changes what the plan computes, or whether it loads."""
        profiles = choose_profiles(self.layout, folder.max_pair_tokens, self.token_budget, self.buckets)
        return {
            "model": folder.digest(folder.safetensors_files()),
            "export": [EXPORT_VERSION, *(_version(name) for name in _EXPORTERS)],
            "precision": self.precision,
            "layout": self.layout,
            "profiles": [[profile.tokens, profile.pairs] for profile in profiles],
            "options": dict(asdict(self.options).items()),
            "tensorrt": tensorrt,
            "gpu": [device.name, device.capability, device.multiprocessors],
            "driver": device.driver,
            "cuda": device.runtime,
        }


@dataclass(frozen=True, slots=True)
class PlanForm:
    """What somebody wants of a plan beside its precision: who builds and who looks for it say it so."""

    layout: str = "padded"
    token_budget: int = TOKEN_BUDGET
    buckets: tuple[int, ...] = ()
    """Lengths to pad to; none: those that are usual."""
    level: int = LEVEL
    """0 to 5: how long to look for faster kernels."""

    def order(self, precision: str) -> BuildOrder:
        """What is to be built, or was."""
        return BuildOrder(precision, self.layout, self.token_budget, self.buckets, BuildOptions(level=self.level))

    def precisions(self, folder: ModelFolder, wanted: str) -> tuple[str, ...]:
        """What to try, best first: `wanted` alone, or with `auto` what the layout can be built in."""
        if wanted != "auto":
            return (wanted,)
        return tuple(each for each in precision_ladder(folder) if self.layout == "padded" or each != "float32")


def check_order(order: BuildOrder, folder: ModelFolder) -> None:
    """Raise what would only show after minutes.

    Raises:
        ConfigError: a precision or layout that there is not.
        EngineError: this model cannot be built like that.
    """
    if order.precision not in PRECISIONS:
        raise ConfigError(f"precision: the tensorrt engine computes in {', '.join(PRECISIONS)}, not {order.precision}")
    if order.layout not in LAYOUTS:
        raise ConfigError(f"layout: expected {', '.join(LAYOUTS)}, not {order.layout}")
    if not folder.safetensors_files():
        raise EngineError(f"{folder.path}: no model.safetensors: the tensorrt engine is built from original weights")
    is_network = order.layout != "padded" or order.precision == "float8"
    if is_network and model_type(folder) not in _BERT_LIKE:
        raise EngineError(
            f"{folder.path}: layout {order.layout} in {order.precision} is built for {', '.join(_BERT_LIKE)} only; "
            "use layout padded in float16 or bfloat16"
        )
    if order.precision == "float8" and order.layout == "padded":
        raise ConfigError("layout: float8 is built with layout lengths or packed")
    if is_network and order.precision == "float32":
        raise ConfigError("layout: fused attention computes in 16 bits: use layout padded for float32")


def check_version(order: BuildOrder, tensorrt: str) -> None:
    """Raise what this version of the library cannot build.

    Raises:
        ConfigError: a layout that it does not have.
    """
    if order.layout != "padded" and int(tensorrt.split(".", maxsplit=1)[0]) < _NETWORKS_SINCE:
        raise ConfigError(
            f"layout: {order.layout} needs TensorRT {_NETWORKS_SINCE} or later, and this is {tensorrt}: "
            f"use layout padded, or a newer one: {INSTALL_HINT}"
        )


def precision_ladder(folder: ModelFolder) -> tuple[str, ...]:
    """What to try where no precision is named, the fastest that is likely to agree first.

    In float16 the scores of mDeBERTa leave its range, and ModernBERT was trained in bfloat16.
    """
    config = read_json_object(folder.path / CONFIG_FILE)
    kind, words = config.get("model_type"), config.get("vocab_size")
    is_wide = kind == "deberta-v2" and isinstance(words, int) and words > _WIDE_VOCABULARY
    if kind == "modernbert" or is_wide:
        return ("bfloat16", "float16", "float32")
    return ("float16", "bfloat16", "float32")


def model_type(folder: ModelFolder) -> str:
    """What `config.json` calls the family."""
    return str(read_json_object(folder.path / CONFIG_FILE).get("model_type"))


def timings_key(facts: Mapping[str, Any]) -> str:
    """Under which measured kernels are kept: they hold for any model."""
    return f"{facts['tensorrt']} {facts['gpu']} {facts['driver']}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"
