"""The float32 reference, and a second way onto a GPU: PyTorch, with transformers' models or our own encoders."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from worker.engines.artifact import ModelFolder
from worker.engines.checkpoints import load_module
from worker.engines.encoders.families import is_known_family, read_encoder
from worker.engines.encoders.feeding import Fed, moved, packed, padded
from worker.engines.layout import checked_logits, pad, warm_up_batches
from worker.engines.memory import with_memory_errors_told
from worker.engines.telemetry import silence_telemetry
from worker.errors import ConfigError, EngineError, EngineOutOfMemoryError
from worker.types import Batch, EngineInfo, ModelStamp, PairScores

INSTALL_HINT: Final = 'pip install "nli-stream-worker[gpu]"'
_PRECISIONS: Final = ("float32", "float16", "bfloat16")
_LAYOUTS: Final = ("auto", "transformers", "padded", "packed")
T = TypeVar("T")
_CPU_TOKEN_BUDGET: Final = 2048
_GPU_TOKEN_BUDGET: Final = 16384


@dataclass(frozen=True, slots=True)
class PyTorchOptions:
    """How to compute."""

    precision: str = "auto"
    """`auto` means float32."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu` or `cuda`."""
    threads: int | None = None
    layout: str = "auto"
    """`transformers` runs its own model, padded; `padded` and `packed` our encoder of the family; `auto` is packed on
    a GPU where the family is known, else transformers."""
    is_compiled: bool = False
    """With `padded`: compile the encoder, which takes minutes at the first batches."""


class PyTorchEngine:
    """A model in safetensors, run by transformers; no code of the model's own is run."""

    def __init__(self, folder: ModelFolder, options: PyTorchOptions) -> None:
        """Load the model; takes seconds.

        Raises:
            ConfigError: a precision this engine has not.
            EngineError: torch is not installed, or the folder's model cannot be loaded.
        """
        if not has_torch():
            message = f"the pytorch engine needs packages that are not installed: {INSTALL_HINT}"
            raise EngineError(message)
        precision = "float32" if options.precision == "auto" else options.precision
        if precision not in _PRECISIONS:
            message = (
                f"precision: the pytorch engine computes in {', '.join(_PRECISIONS)}; {precision!r} is none of them"
            )
            raise ConfigError(message)
        device = ("cuda" if has_cuda() else "cpu") if options.device == "auto" else options.device
        self._torch = _torch()
        if options.threads is not None:
            self._torch.set_num_threads(options.threads)
        self._device = device
        self._pad_id = folder.pad_token_id
        self._has_type_ids = folder.has_type_ids
        self._module: Any = load_module(
            folder, "AutoModelForSequenceClassification", getattr(self._torch, precision)
        ).to(device)
        layout = self._choose_layout(options.layout)
        self._logits = self._make_scorer(layout, precision, is_compiled=options.is_compiled)
        budget = _GPU_TOKEN_BUDGET if device == "cuda" else _CPU_TOKEN_BUDGET
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.safetensors_files()), "pytorch", precision),
            head=folder.head,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(budget, folder.max_pair_tokens),
            details={
                "device": self._torch.cuda.get_device_name() if device == "cuda" else "cpu",
                "layout": layout,
                "compiled": str(options.is_compiled).lower(),
            },
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    @property
    def module(self) -> Any:  # noqa: ANN401  # a torch module, and torch is optional
        """The transformers model, for exporting it.

        Raises:
            EngineError: the engine is closed.
        """
        if self._module is None:
            message = "the pytorch engine is closed"
            raise EngineError(message)
        return self._module

    def warm_up(self) -> None:
        """Run the smallest and the largest shapes once."""
        for batch in warm_up_batches(self._info.max_pair_tokens, self._info.token_budget, self._pad_id):
            self.score(batch)

    @property
    def can_overlap(self) -> bool:
        """On a GPU, which works while the next batch is prepared; on a CPU `begin` would do all of the work itself."""
        return self._device == "cuda"

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        """Queue `batch` on the GPU; what is returned waits for its logits, as `score` does.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch.
            EngineError: the engine is closed.
        """
        if self._module is None:
            message = "the pytorch engine is closed"
            raise EngineError(message)
        pairs = len(batch.lengths)
        if pairs == 0:
            return lambda: PairScores(np.empty((0, self._info.head.classes), dtype=np.float32))
        fetch = self._with_memory_given_back(lambda: self._launched(batch))

        def scores() -> PairScores:
            logits = self._with_memory_given_back(fetch)
            return PairScores(checked_logits(logits, pairs, self._info.head))

        return scores

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch.
            EngineError: the engine is closed.
            ValueError: the model's logits are not finite.
        """
        return self.begin(batch)()

    def close(self) -> None:
        """Give back memory. Not to be used after."""
        self._module = None
        # What scored holds the weights too.
        self._logits = self._run_module
        self._empty_cache()

    def _launched(self, batch: Batch) -> Callable[[], npt.NDArray[np.floating]]:
        """Queue all work and the copy of its logits; what is returned waits for that, and for nothing queued later."""
        torch = self._torch
        with torch.inference_mode():
            logits = self._logits(batch).float()
            if self._device == "cpu":
                return lambda: np.asarray(logits.numpy())
            fetched = torch.empty(logits.shape, dtype=torch.float32, pin_memory=True)
            fetched.copy_(logits, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()

        def fetch() -> npt.NDArray[np.floating]:
            copied.synchronize()
            return np.array(fetched.numpy())

        return fetch

    def _with_memory_given_back(self, work: Callable[[], T]) -> T:
        try:
            return with_memory_errors_told(work)
        except EngineOutOfMemoryError:
            # What the failed attempt had reserved would stand in the way of a smaller one.
            self._empty_cache()
            raise

    def _empty_cache(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.empty_cache()

    def _choose_layout(self, wanted: str) -> str:
        if wanted not in _LAYOUTS:
            message = f"layout: expected {', '.join(_LAYOUTS)}, not {wanted!r}"
            raise ConfigError(message)
        if wanted != "auto":
            return wanted
        is_known = is_known_family(self._module.config.to_dict())
        return "packed" if self._device == "cuda" and is_known else "transformers"

    def _make_scorer(self, layout: str, precision: str, *, is_compiled: bool) -> Callable[[Batch], Any]:
        """What gives logits of a batch, on the device."""
        if layout == "transformers":
            return self._run_module
        encoder = read_encoder(self._module, precision)
        # The encoder has weights of its own, and the GPU need not hold both.
        self._module = self._module.cpu()
        if layout == "packed":
            has_kernel = self._device == "cuda" and precision != "float32" and has_packed_attention()
            return lambda batch: self._run(encoder.score, packed(batch, self._device, has_kernel=has_kernel))
        score = self._torch.compile(encoder.score, dynamic=True) if is_compiled else encoder.score
        return lambda batch: self._run(score, padded(batch, self._device, self._pad_id))

    def _run(self, score: Callable[..., Any], fed: Fed) -> Any:  # noqa: ANN401  # torch is optional
        return score(fed.layout, fed.ids, fed.types if self._has_type_ids else None)

    def _run_module(self, batch: Batch) -> Any:  # noqa: ANN401  # torch is optional
        rectangle = pad(batch, self._pad_id)
        feed = {"input_ids": rectangle.input_ids, "attention_mask": rectangle.attention_mask}
        if self._has_type_ids:
            feed["token_type_ids"] = rectangle.type_ids
        tensors = {name: moved(self._torch.from_numpy(values), self._device) for name, values in feed.items()}
        return self._module(**tensors).logits


def has_torch() -> bool:
    """Whether torch and transformers are installed."""
    return all(importlib.util.find_spec(module) for module in ("torch", "transformers"))


def has_packed_attention() -> bool:
    """Whether torch has its kernel for pairs of any lengths, which came with 2.10."""
    return has_torch() and importlib.util.find_spec("torch.nn.attention.varlen") is not None


def has_cuda() -> bool:
    """Whether torch is installed and finds a CUDA device."""
    return has_torch() and bool(_torch().cuda.is_available())


def library_version() -> str:
    """The versions of torch and transformers."""
    import transformers  # noqa: PLC0415  # heavy, and not a requirement of the worker

    return f"torch {_torch().__version__}, transformers {transformers.__version__}"


def _torch() -> Any:  # noqa: ANN401  # torch is optional
    silence_telemetry()
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    return torch
