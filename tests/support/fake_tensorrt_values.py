# ruff: noqa: ANN401  # untyped as the library is, and a call's several conditions are one assertion
"""The fake `tensorrt`: what a test looks at and changes, and the library's plain values."""

import ctypes
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support import fake_tensorrt_math as math_of

NUMPY_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "BF16": np.uint16, "INT32": np.int32}


@dataclass
class State:
    """What a test looks at and changes."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    """By the name of a call: what it returns instead, or an exception it raises."""
    complaint: str = ""
    """What the library logs when it does not run."""
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
        width = np.dtype(NUMPY_TYPES[self.kind.name])
        raw = np.frombuffer(ctypes.string_at(self.pointer, self.count * width.itemsize), dtype=width)
        if self.kind is DataType.BF16:
            return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return raw
