"""A stand-in for the module `tensorrt`: the calls this project makes, strict about them, recorded, and run in numpy.

Plans are pickles of networks; an engine reads its inputs at the addresses it is given and writes logits to theirs, so
memory of the host stands for that of a device. `state.answers` makes any call answer otherwise. Networks read from
graphs are run by OpenVINO.
"""

from tests.support.fake_tensorrt_build import Builder, IBuilderConfig, IOptimizationProfile, TimingCache
from tests.support.fake_tensorrt_network import INetworkDefinition, Layer, OnnxParser, Tensor
from tests.support.fake_tensorrt_run import EngineInspector, ICudaEngine, IExecutionContext, Runtime
from tests.support.fake_tensorrt_values import (
    ActivationType,
    AttentionIOForm,
    AttentionNormalizationOp,
    BuilderFlag,
    CausalMaskKind,
    DataType,
    ElementWiseOperation,
    ExecutionContextAllocationStrategy,
    ILogger,
    IProgressMonitor,
    LayerInformationFormat,
    MatrixOperation,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    Permutation,
    ProfilingVerbosity,
    State,
    TensorIOMode,
    Weights,
    state,
)

__all__ = [
    "ActivationType",
    "AttentionIOForm",
    "AttentionNormalizationOp",
    "Builder",
    "BuilderFlag",
    "CausalMaskKind",
    "DataType",
    "ElementWiseOperation",
    "EngineInspector",
    "ExecutionContextAllocationStrategy",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IProgressMonitor",
    "Layer",
    "LayerInformationFormat",
    "MatrixOperation",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "Permutation",
    "ProfilingVerbosity",
    "Runtime",
    "State",
    "Tensor",
    "TensorIOMode",
    "TimingCache",
    "Weights",
    "state",
]

__version__ = "11.2.1.2"
