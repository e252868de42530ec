# ruff: noqa: ANN401, PT018  # untyped as the library is, and a call's several conditions are one assertion
"""The fake `tensorrt`: how a network becomes a plan."""

import enum
import pickle
from typing import Any

from tests.support.fake_tensorrt_network import INetworkDefinition, Layer, Tensor
from tests.support.fake_tensorrt_values import BuilderFlag, ILogger, MemoryPoolType, state


class IOptimizationProfile:
    """The range of every input's shape."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]) -> None:
        assert all(a <= b <= c for a, b, c in zip(least, best, most, strict=True))
        state.told("set_shape", name)
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
        state.told("create_network", flags)
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
