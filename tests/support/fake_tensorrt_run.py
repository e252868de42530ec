# ruff: noqa: ANN401, PT018  # untyped as the library is, and a call's several conditions are one assertion
"""The fake `tensorrt`: plans, loaded and run in numpy."""

import ctypes
import io
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.support import fake_tensorrt_math as math_of
from tests.support.fake_tensorrt_values import (
    DataType,
    ExecutionContextAllocationStrategy,
    ILogger,
    LayerInformationFormat,
    TensorIOMode,
    state,
)

_SCRATCH_BYTES = 4096


class Runtime:
    """Loads plans."""

    def __init__(self, logger: ILogger) -> None:
        assert logger.is_initialised
        state.told("Runtime")
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> "ICudaEngine | None":
        if state.told("deserialize_cuda_engine") is False:
            return None
        return ICudaEngine(pickle.loads(plan), self.logger)  # noqa: S301  # what the fake itself wrote


class EngineInspector:
    """Says that every attention is fused, in two profiles, of which the first has no name."""

    def __init__(self, attentions: list[str]) -> None:
        self.attentions = attentions

    def get_engine_information(self, form: Any) -> str:
        assert form is LayerInformationFormat.JSON
        answer = state.told("get_engine_information")
        return answer if answer is not None else json.dumps({"Layers": self._layers("") + self._layers(" [profile 1]")})

    def _layers(self, profile: str) -> list[dict[str, str]]:
        kernels = [
            (f"_gemm_mha_v2_myl{len(profile)}_{index}", "kgen", "_gemm_mha_v2_0x957a2fe2", f"[{name}]")
            for index, name in enumerate(self.attentions)
        ]
        kernels.append(("layers.0.mixed", "gemm", "sm90_xmma_gemm_f16f16_f16f16_f16", "[layers.0.attention]"))
        keys = ("Name", "LayerType", "TacticName", "Metadata")
        return [dict(zip(keys, (kernel[0] + profile, *kernel[1:]), strict=True)) for kernel in kernels]


class ICudaEngine:
    """A plan, loaded."""

    def __init__(self, plan: dict[str, Any], logger: ILogger) -> None:
        self._plan, self._logger = plan, logger
        self._tensors = {name: (kind, "INPUT") for name, kind, _ in plan["inputs"]}
        self._tensors |= {name: (kind, "OUTPUT") for name, kind, _ in plan["outputs"]}
        self._runner = _graph_runner(plan) if plan["graph"] is not None else _layer_runner(plan)

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return str(list(self._tensors)[index])

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode[self._tensors[name][1]]

    def get_tensor_dtype(self, name: str) -> Any:
        return state.answers.get("get_tensor_dtype") or DataType[self._tensors[name][0]]

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return _SCRATCH_BYTES * (index + 1)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector([options["name"] for kind, options, *_ in self._plan["steps"] if kind == "attention"])

    def create_execution_context(self, strategy: Any) -> "IExecutionContext | None":
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if state.told("create_execution_context") is False:
            return None
        return IExecutionContext(self._plan, self._runner, self._logger)


class IExecutionContext:
    """Runs a plan; used by one thread, and left alone once a launch was recorded from it."""

    def __init__(self, plan: dict[str, Any], runner: Callable[[dict[str, Any]], Any], logger: Any) -> None:
        self._plan, self._runner, self._logger = plan, runner, logger
        self._profile: int | None = None
        self._memory = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._ran: dict[str, tuple[int, ...]] = {}
        self._thread: int | None = None
        self._is_recorded = False

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._check(stream)
        self._profile = index
        return state.told("set_optimization_profile_async", index) is not False

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        self._memory = size
        state.told("set_device_memory", size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._check()
        least, _, most = self._plan["profiles"][self._profile][name]
        self._shapes[name] = tuple(shape)
        fits = all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))
        return state.told("set_input_shape", name, tuple(shape)) is not False and fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._check()
        assert address % 256 == 0
        self._addresses[name] = address
        return state.told("set_tensor_address", name) is not False

    def infer_shapes(self) -> list[str]:
        answer = state.told("infer_shapes")
        missing = [name for name, _, _ in self._plan["inputs"] if name not in self._shapes]
        return answer if answer is not None else missing

    def execute_async_v3(self, stream: int) -> bool:
        self._check(stream, is_run=True)
        assert self._memory >= _SCRATCH_BYTES * ((self._profile or 0) + 1)
        if state.told("execute_async_v3", dict(self._shapes)) is False:
            if state.complaint:
                self._logger.log(ILogger.ERROR, state.complaint)
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        if state.recording is None:
            self._ran = shapes
            self._run(shapes, addresses)
            return True
        if self._ran != shapes:
            # The first run of a shape allocates, which cannot be recorded.
            return False
        self._is_recorded = True
        state.recording.append(lambda: self._run(shapes, addresses))
        return True

    def _check(self, stream: int = 1, *, is_run: bool = False) -> None:
        assert stream != 0, "never the default stream"
        assert self._thread in {None, threading.get_ident()}, "a context belongs to one thread"
        assert not self._is_recorded or is_run, "a recorded context is left alone"
        self._thread = threading.get_ident()

    def _run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        fed = {name: _read(addresses[name], shapes[name]) for name, _, _ in self._plan["inputs"]}
        logits = np.ascontiguousarray(self._runner(fed), dtype=np.float32)
        ctypes.memmove(addresses["logits"], logits.ctypes.data, logits.nbytes)


def _read(address: int, shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    return np.frombuffer(ctypes.string_at(address, 4 * count), dtype=np.int32).reshape(shape).copy()


def _graph_runner(plan: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    import openvino  # noqa: PLC0415  # heavy

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(io.BytesIO(plan["graph"])), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    lock = threading.Lock()

    def run(fed: dict[str, Any]) -> Any:
        with lock:
            return compiled(fed)[0]

    return run


def _layer_runner(plan: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    def run(fed: dict[str, Any]) -> Any:
        values = dict(plan["constants"]) | {number: fed[name] for name, _, number in plan["inputs"]}
        for kind, options, inputs, output, dtype in plan["steps"]:
            given = [values[number] for number in inputs]
            values[output] = math_of.rounded(_computed(kind, options, given, values), dtype)
        return values[plan["outputs"][0][2]]

    return run


def _computed(kind: str, options: dict[str, Any], given: list[Any], values: dict[int, Any]) -> Any:
    simple: dict[str, Callable[[], Any]] = {
        "gather": lambda: np.take(given[0], given[1], axis=options["axis"]),
        "sum": lambda: given[0] + given[1],
        "product": lambda: given[0] @ given[1].swapaxes(-1, -2),
        "activation": lambda: math_of.activated(given[0], options["of"]),
        "cast": lambda: given[0],
        "normalization": lambda: math_of.normalised(given[0], given[1], given[2], options["epsilon"]),
        "quantize": lambda: given[0] / given[1],
        "dequantize": lambda: given[0] * given[1],
        "shuffle": lambda: math_of.reshaped(
            given[0], options.get("first_transpose"), options["reshape_dims"], options.get("second_transpose")
        ),
    }
    if kind != "attention":
        return simple[kind]()
    if options.get("query_form") == "PACKED_NHD":
        assert options["key_value_form"] == "PACKED_NHD" and options["query_lengths"] == options["key_value_lengths"]
        return math_of.attended_packed(given[0], given[1], given[2], values[options["query_lengths"]])
    return math_of.attended_padded(given[0], given[1], given[2], values[options["key_value_lengths"]])
