"""The CPU engine: OpenVINO, in the fastest arithmetic of the CPU that keeps the decisions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.engines import ov_machine
from worker.engines.artifact import ModelFolder
from worker.engines.graph import simplify
from worker.engines.layout import PaddedBatch, checked_logits, pad, warm_up_batches
from worker.engines.ov_machine import usable_cores
from worker.engines.ov_precision import Arithmetic, arithmetic
from worker.engines.ov_requests import Feed, InferRequests
from worker.errors import EngineError
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
_EIGHT_BITS: Final = frozenset({"u8", "i8"})
_LEAST_WEIGHTS: Final = 1024
"""A constant of 8-bit values with fewer elements than this is no weight matrix."""
_INPUTS: Final[Mapping[str, str]] = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""The graph's input names, and which field of a padded batch feeds each."""


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """How to compute."""

    precision: str = "auto"
    """`auto` (the first that `ov_precision.ladder` names), `float32`, `bfloat16`, `float16`, or `int8`: products of
    8-bit weights with activations quantised in groups, everything else in bfloat16 where the CPU has it."""
    threads: int | None = None
    """None: every core this process may use."""
    streams: int | None = None
    """Parts of a batch that are scored at the same time; None: one per thread."""
    group: int | None = None
    """For benches: with `int8`, groups of another size; None: the usual."""
    rest: str | None = None
    """For benches: with `int8`, what everything else is computed in; None: the fastest."""


class OpenVinoEngine:
    """A model in OpenVINO's format or ONNX, run on the CPU."""

    def __init__(self, folder: ModelFolder, options: OpenVinoOptions) -> None:
        """Read and compile the model; takes a second or so.

        Raises:
            ConfigError: this CPU does not compute in the precision asked for.
            EngineError: the folder's graph cannot be loaded.
        """
        core = ov_machine.core()
        self._pad_id = folder.pad_token_id
        self._head = folder.head
        threads = options.threads or usable_cores()
        streams = min(threads, options.streams or threads)
        try:
            model = core.read_model(_graph(folder))
            self.has_8bit_weights = _has_8bit_weights(model)
            how = _arithmetic(options, has_8bit_weights=self.has_8bit_weights)
            rewrites = simplify(model, unpacks=not how.group)
            properties = _properties(how, threads, streams)
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
            compiled, streams, lambda: core.compile_model(_simplified(core, folder, how), "CPU", properties)
        )
        self._info = EngineInfo(
            stamp=ModelStamp(folder.name, folder.digest(folder.openvino_weights()), "openvino", how.precision),
            head=folder.head,
            max_pair_tokens=folder.max_pair_tokens,
            token_budget=max(streams * STREAM_TOKENS, folder.max_pair_tokens),
            details={
                "device": str(core.get_property("CPU", "FULL_DEVICE_NAME")),
                "threads": str(threads),
                "streams": str(streams),
                "weights": "8-bit" if self.has_8bit_weights else "as exported",
                "rewrites": ", ".join(rewrites) or "none",
                "activations": f"8-bit in groups of {how.group}, else {how.rest}" if how.group else how.rest,
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
        """Start on `batch`; what is returned waits for it, as `score` does.

        Raises:
            EngineOutOfMemoryError: there is no memory for this batch; a smaller one may fit.
            EngineError: the engine is closed.
            RuntimeError: of what is returned, also where a batch that was on its way meanwhile has failed.
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


def _simplified(core: Any, folder: ModelFolder, how: Arithmetic) -> Any:  # noqa: ANN401  not typed for us
    model = core.read_model(_graph(folder))
    simplify(model, unpacks=not how.group)
    return model


def _arithmetic(options: OpenVinoOptions, *, has_8bit_weights: bool) -> Arithmetic:
    capabilities = ov_machine.capabilities()
    how = arithmetic(options.precision, capabilities, has_8bit_weights=has_8bit_weights)
    if not how.group:
        return how
    rest = arithmetic(options.rest or how.rest, capabilities, has_8bit_weights=has_8bit_weights)
    return replace(how, group=options.group or how.group, rest=rest.precision)


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
    how = _arithmetic(options, has_8bit_weights=_has_8bit_weights(model))
    return ov_machine.core().compile_model(model, "CPU", _properties(how, options.threads or usable_cores(), 1))


def _graph(folder: ModelFolder) -> Path:
    graph = folder.openvino_file()
    if graph is None:
        message = f"{folder.path}: neither openvino_model.xml with its .bin nor model.onnx"
        raise EngineError(message)
    return graph


def _properties(how: Arithmetic, threads: int, streams: int) -> dict[str, object]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT,
        # Every process would pin its threads to the same first cores, and there are host threads beside them.
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
        **how.properties,
    }


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


def stores_8bit_weights(folder: ModelFolder) -> bool:
    """Whether the folder's graph is OpenVINO's own and names 8-bit weights; told from its text, without loading it."""
    graph = folder.openvino_file()
    if graph is None or graph.suffix != ".xml":
        return False
    text = graph.read_text(encoding="utf-8", errors="replace")
    return any(f'element_type="{kind}"' in text for kind in _EIGHT_BITS)
