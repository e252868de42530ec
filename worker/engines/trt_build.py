"""A model as a TensorRT plan: from a graph or from its weights, in a strongly typed network, with its profiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.engines.profiles import Profile
from worker.engines.trt_api import Api, checked, made_on_gpu, make_logger, translated
from worker.engines.trt_layers import count_fused
from worker.engines.trt_network import BertSource, BertWriter
from worker.errors import EngineError

_GIB: Final = 1 << 30

LEVEL: Final = 3
"""How long to look for faster kernels, 0 to 5, where nothing else is said."""

Progress = Callable[[str, float], None]
"""Told which phase the build is in, and which part of its steps are done."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How the library is to look for kernels; part of a plan's key."""

    level: int = LEVEL
    """0 to 5: how long to look for faster kernels."""
    workspace_gib: int = 8
    is_batch_independent: bool = False
    """Ask for kernels that compute each row by identical operations, wherever in a batch it stands."""


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a build."""

    plan: bytes
    timings: bytes
    fused_attention: int | None
    """Layers in which attention is one kernel; None where the plan does not say."""
    layers: str
    """What the inspector says of every layer, as JSON; for looking into."""


def build_plan(
    api: Api, source: Path | BertSource, layout: str, profiles: Sequence[Profile], recipe: "Recipe"
) -> Built:
    """A plan for a graph, or for weights; blocks for minutes and takes the whole GPU.

    Raises:
        EngineError: the library refuses the network, or builds nothing.
    """
    logger = make_logger(api)
    builder = made_on_gpu(api, "Builder", logger)
    network = checked(builder.create_network(_creation_flags(api)), "a network")
    config = checked(builder.create_builder_config(), "a configuration")
    # Holds the weights, to which the network only points until it is built.
    writer: object
    with translated("the network"):
        if isinstance(source, Path):
            writer = _parse(api, network, source, logger)
        else:
            writer = BertWriter(api, network, source, layout)
            writer.write()
    for profile in profiles:
        with translated(f"the profile of {profile.pairs} pairs and {profile.tokens} tokens"):
            _add_profile(builder, network, config, profile, layout)
    _configure(api, config, recipe)
    timings = config.create_timing_cache(recipe.timings)
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        # Measured on another GPU or by another version: measured anew.
        timings = checked(config.create_timing_cache(b""), "a timing cache")
        checked(config.set_timing_cache(timings, ignore_mismatch=False), "an empty timing cache")
    with translated("the build"):
        plan = builder.build_serialized_network(network, config)
    del writer
    if plan is None:
        raise EngineError("tensorrt built nothing; the log says why. Fewer or smaller profiles need less memory")
    layers = _inspect(api, logger, bytes(plan))
    return Built(bytes(plan), bytes(timings.serialize()), count_fused(layers), layers)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a build goes by beside the network."""

    options: BuildOptions
    timings: bytes
    progress: Progress


def _creation_flags(api: Api) -> int:
    """Strongly typed: of its own accord since 11, by a flag before."""
    is_old = int(str(api.__version__).split(".", maxsplit=1)[0]) < 11  # noqa: PLR2004  # the version that made it so
    return 1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if is_old else 0


def _parse(api: Api, network: Any, file: Path, logger: Any) -> object:  # noqa: ANN401  # the library is not typed
    parser = api.OnnxParser(network, logger)
    if not parser.parse_from_file(str(file)):
        said = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise EngineError(f"tensorrt cannot read the graph: {said[:400] or 'it does not say why'}")
    return parser


def _add_profile(builder: Any, network: Any, config: Any, profile: Profile, layout: str) -> None:  # noqa: ANN401  # as above
    made = checked(builder.create_optimization_profile(), "a profile")
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        least, most = input_range(tensor.name, len(tensor.shape), profile, layout)
        made.set_shape(tensor.name, least, most, most)
    if config.add_optimization_profile(made) < 0:
        raise EngineError(f"tensorrt refused the profile of {profile.pairs} pairs and {profile.tokens} tokens")


def input_range(name: str, rank: int, profile: Profile, layout: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The smallest and the largest shape of an input in a profile; kernels are chosen for the largest."""
    if name == "cumulative_lengths":
        return (2,), (profile.pairs + 1,)
    if rank == 1:
        is_by_token = layout == "packed" and name != "first_tokens"
        return (1,), (profile.tokens if is_by_token else profile.pairs,)
    return (1, profile.tokens), (profile.pairs, profile.tokens)


def _configure(api: Api, config: Any, recipe: "Recipe") -> None:  # noqa: ANN401  # as above
    options = recipe.options
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, options.workspace_gib * _GIB)
    config.builder_optimization_level = options.level
    config.profiling_verbosity = api.ProfilingVerbosity.DETAILED
    # Else products in float32 are computed with 10 bits of mantissa.
    config.clear_flag(api.BuilderFlag.TF32)
    if options.is_batch_independent:
        config.set_flag(api.BuilderFlag.DISTRIBUTIVE_INDEPENDENCE)
    config.progress_monitor = _make_monitor(api, recipe.progress)


def _make_monitor(api: Api, progress: Progress) -> Any:  # noqa: ANN401  # as above
    class Monitor(api.IProgressMonitor):  # type: ignore[misc]  # the library is not typed for us
        """Passes on what the library says of its progress; called from any of its threads."""

        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """A phase begins."""
            if parent_phase is None:
                self._steps[phase_name] = num_steps
                progress(phase_name, 0.0)

        def phase_finish(self, phase_name: str) -> None:
            """A phase is over."""
            if self._steps.pop(phase_name, None):
                progress(phase_name, 1.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step of a phase is done; True goes on."""
            steps = self._steps.get(phase_name)
            if steps:
                progress(phase_name, min(1.0, (step + 1) / steps))
            return True

    return Monitor()


def _inspect(api: Api, logger: Any, plan: bytes) -> str:  # noqa: ANN401  # as above
    runtime = made_on_gpu(api, "Runtime", logger)
    engine = checked(runtime.deserialize_cuda_engine(plan), "the plan it has just built")
    inspector = checked(engine.create_engine_inspector(), "an inspector")
    return str(inspector.get_engine_information(api.LayerInformationFormat.JSON))
