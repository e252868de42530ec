# ruff: noqa: ANN401, PT018  # untyped as the library is, and a call's several conditions are one assertion
"""A stand-in for the module `tensorrt`: the calls this project makes, strict about them, recorded, and run in numpy.

Plans are pickles of networks; an engine reads its inputs at the addresses it is given and writes logits to theirs, so
memory of the host stands for that of a device. `state.answers` makes any call answer otherwise. Networks read from
graphs are run by OpenVINO.
"""

import ctypes
import enum
import io
import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.support import fake_tensorrt_math as math_of

__version__ = "11.2.1.2"
_WIDTHS = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT32": np.int32}
_SCRATCH_BYTES = 4096


@dataclass
class State:
    """What a test looks at and changes."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    """By the name of a call: what it returns instead, or an exception it raises."""
    recording: list[Callable[[], None]] | None = None
    """What is being recorded rather than run."""

    def told(self, name: str, *about: Any) -> Any:
        """Note a call; what a test wants it to return, or None."""
        self.calls.append((name, *about))
        answer = self.answers.get(name)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        """The calls of these names, in order."""
        return [call for call in self.calls if call[0] in names]

    def reset(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]  # a fresh state in place of the old, for all who hold it


state = State()


def _enumerate(name: str, *members: str) -> Any:
    return enum.Enum(name, {member: index for index, member in enumerate(members)})


DataType = _enumerate("DataType", "FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64")
BuilderFlag = _enumerate("BuilderFlag", "TF32", "DISTRIBUTIVE_INDEPENDENCE", "REFIT")
MemoryPoolType = _enumerate("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = _enumerate("ProfilingVerbosity", "LAYER_NAMES_ONLY", "NONE", "DETAILED")
TensorIOMode = _enumerate("TensorIOMode", "NONE", "INPUT", "OUTPUT")
ExecutionContextAllocationStrategy = _enumerate(
    "ExecutionContextAllocationStrategy", "STATIC", "ON_PROFILE_CHANGE", "USER_MANAGED"
)
LayerInformationFormat = _enumerate("LayerInformationFormat", "ONELINE", "JSON")
AttentionIOForm = _enumerate("AttentionIOForm", "PADDED_BHND", "PACKED_NHD")
AttentionNormalizationOp = _enumerate("AttentionNormalizationOp", "NONE", "SOFTMAX")
CausalMaskKind = _enumerate("CausalMaskKind", "NONE", "UPPER_LEFT", "LOWER_RIGHT")
MatrixOperation = _enumerate("MatrixOperation", "NONE", "TRANSPOSE", "VECTOR")
ElementWiseOperation = _enumerate("ElementWiseOperation", "SUM", "PROD")
ActivationType = _enumerate("ActivationType", "RELU", "SIGMOID", "TANH", "GELU_ERF", "GELU_TANH")
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})


class Permutation(tuple[int, ...]):
    """An order of axes."""

    __slots__ = ()


class ILogger:
    """As the library's; must be initialised by hand."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        self.is_initialised = True


class IProgressMonitor:
    """As the library's; must be initialised by hand."""

    def __init__(self) -> None:
        self.is_initialised = True


class Weights:
    """Points to memory, which is read when the engine is built."""

    __slots__ = ("count", "kind", "pointer")

    def __init__(self, kind: Any, pointer: int, count: int) -> None:
        self.kind, self.pointer, self.count = kind, pointer, count

    def read(self) -> math_of.Array:
        """The values, as they are now."""
        width = np.dtype(_WIDTHS[self.kind.name])
        raw = np.frombuffer(ctypes.string_at(self.pointer, self.count * width.itemsize), dtype=width)
        if self.kind is DataType.BF16:
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw


class Tensor:
    """A tensor of a network: a number, a type, a shape in which -1 is any size."""

    __slots__ = ("dtype", "name", "number", "shape")

    def __init__(self, number: int, dtype: Any, shape: tuple[int, ...], name: str = "") -> None:
        self.number, self.dtype, self.shape, self.name = number, dtype, shape, name


class Layer:
    """A layer; what may be set of it depends on its kind, and anything else is an error."""

    _ALLOWED: ClassVar[dict[str, set[str]]] = {
        "shuffle": {"first_transpose", "reshape_dims", "second_transpose"},
        "normalization": {"epsilon"},
        "attention": {
            "name", "decomposable", "query_form", "key_value_form", "query_lengths", "key_value_lengths",
        },
    }  # fmt: skip

    kind: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    options: dict[str, Any]

    def __init__(self, kind: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.__dict__.update(kind=kind, inputs=inputs, output=output, options={})

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self._ALLOWED.get(self.kind, set()), f"{self.kind} has no {name}"
        assert not name.endswith("_transpose") or isinstance(value, Permutation)
        self.options[name] = value
        if name == "reshape_dims":
            before = self.inputs[0].shape
            transposed = self.options.get("first_transpose")
            before = before if transposed is None else tuple(before[axis] for axis in transposed)
            self.output.shape = tuple(before[index] if size == 0 else size for index, size in enumerate(value))
        if name == "second_transpose":
            self.output.shape = tuple(self.output.shape[axis] for axis in value)

    def get_output(self, index: int) -> Tensor:
        """The one output."""
        assert index == 0
        return self.output


class INetworkDefinition:
    """A network, checked as it grows: strongly typed, ranks equal, dimensions known to agree."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.steps: list[tuple[str, dict[str, Any], list[int], int]] = []
        self.layers: list[Layer] = []
        self.constants: dict[int, tuple[Weights, tuple[int, ...]]] = {}
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.graph: bytes | None = None

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def add_input(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Tensor | None:
        if state.told("add_input", name) is False:
            return None
        tensor = self._tensor(dtype, tuple(shape), name)
        self.inputs.append(tensor)
        return tensor

    def mark_output(self, tensor: Tensor) -> None:
        assert tensor.name, "an output has a name"
        self.outputs.append(tensor)

    def add_constant(self, shape: tuple[int, ...], weights: Weights) -> Layer | None:
        assert int(np.prod(shape, dtype=np.int64)) == weights.count
        layer = self._layer("constant", (), weights.kind, tuple(shape))
        if layer is not None:
            self.constants[layer.output.number] = (weights, tuple(shape))
        return layer

    def add_gather(self, table: Tensor, ids: Tensor, axis: int) -> Layer | None:
        assert ids.dtype is DataType.INT32
        shape = table.shape[:axis] + ids.shape + table.shape[axis + 1 :]
        return self._layer("gather", (table, ids), table.dtype, shape, axis=axis)

    def add_elementwise(self, left: Tensor, right: Tensor, operation: Any) -> Layer | None:
        assert left.dtype is right.dtype, f"strongly typed: {left.dtype} and {right.dtype}"
        return self._layer("sum", (left, right), left.dtype, _broadcast(left.shape, right.shape), of=operation.name)

    def add_matrix_multiply(self, left: Tensor, left_as: Any, right: Tensor, right_as: Any) -> Layer | None:
        assert left.dtype is right.dtype, f"strongly typed: {left.dtype} and {right.dtype}"
        assert (left_as, right_as) == (MatrixOperation.NONE, MatrixOperation.TRANSPOSE)
        assert len(left.shape) == len(right.shape) and left.shape[-1] == right.shape[-1]
        return self._layer("product", (left, right), left.dtype, (*left.shape[:-1], right.shape[-2]))

    def add_activation(self, values: Tensor, kind: Any) -> Layer | None:
        return self._layer("activation", (values,), values.dtype, values.shape, of=kind.name)

    def add_cast(self, values: Tensor, dtype: Any) -> Layer | None:
        return self._layer("cast", (values,), dtype, values.shape)

    def add_normalization_v2(self, values: Tensor, scale: Tensor, shift: Tensor, axes: int) -> Layer | None:
        assert values.dtype is scale.dtype is shift.dtype is DataType.FLOAT
        assert axes == 1 << (len(values.shape) - 1) and len(scale.shape) == len(values.shape)
        return self._layer("normalization", (values, scale, shift), values.dtype, values.shape)

    def add_shuffle(self, values: Tensor) -> Layer | None:
        return self._layer("shuffle", (values,), values.dtype, values.shape)

    def add_quantize(self, values: Tensor, scale: Tensor, dtype: Any) -> Layer | None:
        assert values.dtype is scale.dtype and scale.shape == () and dtype is DataType.FP8
        return self._layer("quantize", (values, scale), dtype, values.shape)

    def add_dequantize(self, values: Tensor, scale: Tensor, dtype: Any) -> Layer | None:
        assert values.dtype is DataType.FP8 and scale.dtype is dtype
        return self._layer("dequantize", (values, scale), dtype, values.shape)

    def add_attention_v2(self, q: Tensor, k: Tensor, v: Tensor, norm: Any, causal: Any) -> Layer | None:
        assert q.dtype is k.dtype is v.dtype and q.dtype in {DataType.HALF, DataType.BF16}
        assert (norm, causal) == (AttentionNormalizationOp.SOFTMAX, CausalMaskKind.NONE)
        return self._layer("attention", (q, k, v), q.dtype, q.shape)

    def _tensor(self, dtype: Any, shape: tuple[int, ...], name: str = "") -> Tensor:
        assert isinstance(dtype, DataType)
        self.tensors.append(Tensor(len(self.tensors), dtype, shape, name))
        return self.tensors[-1]

    def _layer(
        self, kind: str, inputs: tuple[Tensor, ...], dtype: Any, shape: tuple[int, ...], **options: Any
    ) -> Layer | None:
        if state.told(f"add_{kind}") is False:
            return None
        layer = Layer(kind, inputs, self._tensor(dtype, shape))
        layer.options.update(options)
        self.layers.append(layer)
        return layer


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    assert len(left) == len(right), f"ranks differ: {left} and {right}"
    for one, other in zip(left, right, strict=True):
        assert one == other or 1 in {one, other} or -1 in {one, other}, f"{left} and {right} do not go together"
    return tuple(other if one == 1 else one for one, other in zip(left, right, strict=True))


class IOptimizationProfile:
    """The range of every input's shape."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]) -> None:
        assert all(a <= b <= c for a, b, c in zip(least, best, most, strict=True))
        self.shapes[name] = (tuple(least), tuple(best), tuple(most))


class TimingCache:
    """Bytes that grow with every build."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"measured;"


class IBuilderConfig:
    """What may be set of a build."""

    __slots__ = ("builder_optimization_level", "flags", "profiles", "profiling_verbosity", "progress_monitor")

    builder_optimization_level: int
    profiling_verbosity: Any
    progress_monitor: Any

    def __init__(self) -> None:
        self.flags: set[Any] = {BuilderFlag.TF32}
        self.profiles: list[IOptimizationProfile] = []

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert pool is MemoryPoolType.WORKSPACE and size > 0

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def create_timing_cache(self, content: bytes) -> TimingCache:
        state.told("create_timing_cache", bytes(content))
        return TimingCache(bytes(content))

    def set_timing_cache(self, cache: TimingCache, *, ignore_mismatch: bool) -> bool:
        answer = state.told("set_timing_cache", cache.content, ignore_mismatch)
        return not cache.content if answer is False else True

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if state.told("add_optimization_profile", dict(profile.shapes)) is not None:
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder:
    """Builds plans."""

    def __init__(self, logger: ILogger) -> None:
        assert logger.is_initialised
        state.told("Builder")

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 0, "strongly typed of its own accord"
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        monitor = config.progress_monitor
        assert monitor.is_initialised
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Tactics", "Building Engine", 5)
        assert all(monitor.step_complete("Building Engine", step) for step in range(2))
        monitor.phase_finish("Tactics")
        monitor.phase_finish("Building Engine")
        if state.told("build_serialized_network") is False:
            return None
        assert config.profiles and BuilderFlag.TF32 not in config.flags
        for profile in config.profiles:
            assert set(profile.shapes) == {tensor.name for tensor in network.inputs}
        return pickle.dumps(
            {
                "graph": network.graph,
                "inputs": [(tensor.name, tensor.dtype.name, tensor.number) for tensor in network.inputs],
                "outputs": [(tensor.name, tensor.dtype.name, tensor.number) for tensor in network.outputs],
                "profiles": [profile.shapes for profile in config.profiles],
                "constants": {n: weights.read().reshape(shape) for n, (weights, shape) in network.constants.items()},
                "steps": [_step(layer) for layer in network.layers if layer.kind != "constant"],
            }
        )


def _step(layer: Layer) -> tuple[str, dict[str, Any], list[int], int, str]:
    options = {
        name: value.number if isinstance(value, Tensor) else value.name if isinstance(value, enum.Enum) else value
        for name, value in layer.options.items()
    }
    return layer.kind, options, [tensor.number for tensor in layer.inputs], layer.output.number, layer.output.dtype.name


class _ParserError:
    def desc(self) -> str:
        return "no such operator"


class OnnxParser:
    """Takes a graph whole; OpenVINO reads and runs it."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self.network = network

    num_errors = 1

    def get_error(self, index: int) -> _ParserError:
        return _ParserError()

    def parse_from_file(self, file: str) -> bool:
        if state.told("parse_from_file") is False:
            return False
        import openvino  # noqa: PLC0415  # heavy

        self.network.graph = Path(file).read_bytes()
        model = openvino.Core().read_model(file)
        for port in model.inputs:
            kind = {"i32": DataType.INT32}[port.get_element_type().get_type_name()]
            shape = tuple(-1 if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
            self.network.add_input(port.get_any_name(), kind, shape)
        (output,) = model.outputs
        tensor = self.network._tensor(DataType.FLOAT, (-1, 2), output.get_any_name())
        self.network.mark_output(tensor)
        return True


class Runtime:
    """Loads plans."""

    def __init__(self, logger: ILogger) -> None:
        assert logger.is_initialised

    def deserialize_cuda_engine(self, plan: bytes) -> "ICudaEngine | None":
        if state.told("deserialize_cuda_engine") is False:
            return None
        return ICudaEngine(pickle.loads(plan))  # noqa: S301  # what the fake itself wrote


class EngineInspector:
    """Says that every attention is fused."""

    def __init__(self, layers: int) -> None:
        self.layers = layers

    def get_engine_information(self, form: Any) -> str:
        assert form is LayerInformationFormat.JSON
        names = [f'"mha_{index} [profile {profile}]"' for profile in range(2) for index in range(self.layers)]
        return '{"Layers": [' + ", ".join(names) + "]}"


class ICudaEngine:
    """A plan, loaded."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
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
        return EngineInspector(sum(step[0] == "attention" for step in self._plan["steps"]))

    def create_execution_context(self, strategy: Any) -> "IExecutionContext | None":
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if state.told("create_execution_context") is False:
            return None
        return IExecutionContext(self._plan, self._runner)


class IExecutionContext:
    """Runs a plan; used by one thread, and left alone once a launch was recorded from it."""

    def __init__(self, plan: dict[str, Any], runner: Callable[[dict[str, Any]], Any]) -> None:
        self._plan, self._runner = plan, runner
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
