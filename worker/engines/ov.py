"""The CPU engine: OpenVINO, with 16-bit compute where the CPU has it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.engines.artifact import ModelFolder
from worker.engines.graph import simplify
from worker.engines.layout import PaddedBatch, checked_logits, pad, warm_up_batches
from worker.engines.ov_requests import Feed, InferRequests
from worker.engines.telemetry import silence_telemetry
from worker.errors import ConfigError, EngineError
from worker.types import Batch, EngineInfo, ModelStamp, PairScores

STREAM_TOKENS: Final = 1024
"""Padded tokens per stream and batch. More does not make a MiniLM faster, fewer do not keep its products busy, and what
a stream works on stays in the cache of its core."""
_KERNELS_KEPT: Final = 200
"""By OpenVINO, of those that it compiles for shapes. Its own 5000 are no faster over 1,200 batches of mixed texts, and
take 90 MB more."""
WIDTH_STEP: Final = 8
ROWS_STEP: Final = 4
"""What a part of a batch is rounded up to: OpenVINO compiles kernels for every shape that it meets, and keeps them."""
_HINTS: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES: Final = {"bfloat16": "BF16", "float16": "FP16"}
"""What `OPTIMIZATION_CAPABILITIES` calls the arithmetic that a precision needs."""
_EIGHT_BITS: Final = frozenset({"u8", "i8"})
_LEAST_WEIGHTS: Final = 1024
"""A constant of 8-bit values with fewer elements than this is no weight matrix."""
_INPUTS: Final[Mapping[str, str]] = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""The graph's input names, and which field of a padded batch feeds each."""
_CPU_QUOTA_FILE: Final = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """How to compute."""

    precision: str = "auto"
    """`auto` (bfloat16 where the CPU has it), `float32`, `bfloat16` or `float16`."""
    threads: int | None = None
    """None: every core this process may use."""
    streams: int | None = None
    """Parts of a batch that are scored at the same time; None: one per thread."""
    activation_groups: int | None = None
    """For benches: 8-bit weights stay packed, activations are quantised in groups of so many; None: neither."""


class OpenVinoEngine:
    """A model in OpenVINO's format or ONNX, run on the CPU."""

    def __init__(self, folder: ModelFolder, options: OpenVinoOptions) -> None:
        """Read and compile the model; takes a second or so.

        Raises:
            ConfigError: this CPU does not compute in the precision asked for.
            EngineError: the folder's graph cannot be loaded.
        """
        core = _core()
        self._pad_id = folder.pad_token_id
        self._head = folder.head
        precision = _choose_precision(options.precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        threads = options.threads or usable_cores()
        streams = min(threads, options.streams or threads)
        try:
            model = core.read_model(_graph(folder))
            self.has_8bit_weights = _has_8bit_weights(model)
            rewrites = simplify(model, unpacks=options.activation_groups is None)
            properties = _properties(precision, threads, streams, options.activation_groups)
            compiled = core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            message = f"{folder.path}: OpenVINO cannot load this model"
            raise EngineError(message) from error
        self._inputs = tuple(_input_field(name, folder) for name in sorted(_names(compiled.inputs)))
        if len(compiled.outputs) != 1:
            message = f"{folder.path}: expected one output, the logits, but the graph has {len(compiled.outputs)}"
            raise EngineError(message)
        self._types = {name: _integer_type(compiled.input(name)) for name, _ in self._inputs}
        self._requests: InferRequests | None = InferRequests(
            compiled, streams, lambda: core.compile_model(_simplified(core, folder, options), "CPU", properties)
        )
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.openvino_weights()), "openvino", precision),
            head=folder.head,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(streams * STREAM_TOKENS, folder.max_pair_tokens),
            details={
                "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
                "threads": str(threads),
                "streams": str(streams),
                "weights": "8-bit" if self.has_8bit_weights else "as exported",
                "rewrites": ", ".join(rewrites) or "none",
            },
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded; constant for the life of the engine."""
        return self._info

    def warm_up(self) -> None:
        """Run the smallest and the largest shapes once."""
        for batch in warm_up_batches(self._info.max_pair_tokens, self._info.token_budget, self._pad_id):
            self.score(batch)

    @property
    def can_overlap(self) -> bool:
        """Always: parts of the next batch wait for a stream that is free."""
        return True

    def begin(self, batch: Batch) -> Callable[[], PairScores]:
        """Start on `batch`; what is returned waits for it, as `score` does. Blocks for the first batch of a shape.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch; a smaller one may fit.
            EngineError: the engine is closed.
        """
        if self._requests is None:
            message = "the openvino engine is closed"
            raise EngineError(message)
        pairs = len(batch.lengths)
        if pairs == 0:
            return lambda: PairScores(np.empty((0, self._head.classes), dtype=np.float32))
        padded, parts = pad(batch, self._pad_id), shares(batch.lengths, len(self._requests))
        wait = self._requests.begin([self._feed(padded, rows, int(batch.lengths[rows].max())) for rows in parts])

        def scores() -> PairScores:
            found = np.concatenate([result[: len(rows)] for result, rows in zip(wait(), parts, strict=True)])
            logits = np.empty_like(found)
            logits[np.concatenate(parts)] = found
            return PairScores(checked_logits(logits, pairs, self._head))

        return scores

    def score(self, batch: Batch) -> PairScores:
        """Logits of every pair of `batch`, float32 [pairs, classes], rows in the batch's order. Blocks.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch; a smaller one may fit.
            EngineError: the engine is closed.
            ValueError: the model's logits are not finite.
        """
        return self.begin(batch)()

    def close(self) -> None:
        """Give back memory and threads. Not to be used after."""
        self._requests = None

    def _feed(self, padded: PaddedBatch, rows: npt.NDArray[np.intp], width: int) -> Feed:
        """The inputs of the graph for some rows, in a rectangle of a size that comes again."""
        shape = (round_up(len(rows), ROWS_STEP), min(round_up(width, WIDTH_STEP), self._info.max_pair_tokens))
        feed = {}
        for name, field in self._inputs:
            values = np.full(shape, self._pad_id if field == "input_ids" else 0, dtype=self._types[name])
            values[: len(rows), :width] = getattr(padded, field)[rows, :width]
            if field == "attention_mask":
                values[len(rows) :, 0] = 1  # attention to nothing is no number
            feed[name] = values
        return feed


def round_up(number: int, step: int) -> int:
    """The next multiple of `step`; below twice the step the number itself."""
    return number if number < 2 * step else -(-number // step) * step


def _simplified(core: Any, folder: ModelFolder, options: OpenVinoOptions) -> Any:  # noqa: ANN401  not typed for us
    model = core.read_model(_graph(folder))
    simplify(model, unpacks=options.activation_groups is None)
    return model


def shares(lengths: npt.NDArray[np.int32], most: int) -> list[npt.NDArray[np.intp]]:
    """The rows of a batch in at most `most` parts of about as many tokens, each of neighbours in length."""
    order = np.argsort(lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    # A row belongs to the part in which the middle of its tokens lies.
    part = ((ends - lengths[order] / 2) * most / ends[-1]).astype(np.intp)
    return [order[part == number] for number in range(most) if (part == number).any()]


def compile_for_cpu(model: Any, options: OpenVinoOptions) -> Any:  # noqa: ANN401  # the library is not typed for us
    """An OpenVINO model, compiled as the engine compiles its own: what a bench compares the engine with.

    Raises:
        ConfigError: this CPU does not compute in the precision asked for.
    """
    core = _core()
    precision = _choose_precision(options.precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return core.compile_model(model, "CPU", _properties(precision, options.threads or usable_cores(), 1))


def usable_cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container where that is less."""
    # Only Linux knows the affinity of a process.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = _CPU_QUOTA_FILE.read_text().split()
        return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def has_fast_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 rather than emulating it."""
    return _CAPABILITIES["bfloat16"] in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def cpu_capabilities() -> tuple[str, ...]:
    """What arithmetic OpenVINO finds in this CPU, and the CPU's name: what a verdict on an engine depends on."""
    core = _core()
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return (str(core.get_property("CPU", "FULL_DEVICE_NAME")), *sorted(str(name) for name in capabilities))


def library_version() -> str:
    """The version of the OpenVINO runtime."""
    silence_telemetry()
    import openvino  # noqa: PLC0415  # takes a second, and only this engine needs it

    return str(openvino.get_version())


def _core() -> Any:  # noqa: ANN401  # the library is not typed for us
    silence_telemetry()
    import openvino  # noqa: PLC0415  # as above

    return openvino.Core()


def _graph(folder: ModelFolder) -> Path:
    graph = folder.openvino_file()
    if graph is None:
        message = f"{folder.path}: neither openvino_model.xml with its .bin nor model.onnx"
        raise EngineError(message)
    return graph


def _properties(precision: str, threads: int, streams: int, activation_groups: int | None = None) -> dict[str, object]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
        # Every process would pin its threads to the same first cores, and there are host threads beside them.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        # Quantised activations take their scale over neighbours, and change 5 to 13 % of MiniLM's decisions.
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": activation_groups or 0,
    }


def _choose_precision(wanted: str, capabilities: list[str]) -> str:
    if wanted == "auto":
        return "bfloat16" if _CAPABILITIES["bfloat16"] in capabilities else "float32"
    if wanted not in _HINTS:
        message = f"precision: the openvino engine computes in {', '.join(_HINTS)}; {wanted!r} is none of them"
        raise ConfigError(message)
    if wanted in _CAPABILITIES and _CAPABILITIES[wanted] not in capabilities:
        message = f"precision: this CPU does not compute in {wanted}; use auto or float32"
        raise ConfigError(message)
    return wanted


def _names(ports: Any) -> list[str]:  # noqa: ANN401  # the library is not typed for us
    return [str(port.get_any_name()) for port in ports]


def _input_field(name: str, folder: ModelFolder) -> tuple[str, str]:
    if name not in _INPUTS:
        message = (
            f"{folder.path}: the graph wants an input this worker does not feed: {name}; known: {', '.join(_INPUTS)}"
        )
        raise EngineError(message)
    return name, _INPUTS[name]


def _integer_type(port: Any) -> type[np.int32 | np.int64]:  # noqa: ANN401  # the library is not typed for us
    return np.int32 if port.get_element_type().get_type_name() == "i32" else np.int64


def _has_8bit_weights(model: Any) -> bool:  # noqa: ANN401  # the library is not typed for us
    return any(
        node.get_type_name() == "Constant"
        and node.get_output_element_type(0).get_type_name() in _EIGHT_BITS
        and int(np.prod(list(node.get_output_shape(0)))) >= _LEAST_WEIGHTS
        for node in model.get_ops()
    )
