"""What TensorRT does on this GPU, one question a process: a crash answers its own question only."""

import contextlib
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from worker.engines import cuda, trt_api
from worker.engines.encoders.bert import BertShape
from worker.engines.profiles import Profile, Shape, inputs
from worker.engines.trt_build import BuildOptions, Recipe, build_plan
from worker.engines.trt_network import BertSource
from worker.errors import WorkerError

PROFILE = (Profile(1024, 64),)
PADDED_PROFILE = (Profile(64, 16),)


def ask(question: str) -> dict[str, Any]:
    """The answer to one of `QUESTIONS`; may crash."""
    name, _, variant = question.partition(":")
    return _ASKED[name](variant)


def versions() -> dict[str, str]:
    """What a figure was measured with: GPU, driver and libraries."""
    said: dict[str, str] = {}
    for name in ("tensorrt_cu13", "tensorrt_cu13_bindings", "torch", "transformers", "onnxruntime_gpu", "onnxruntime"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            said[name.replace("_", "-")] = importlib.metadata.version(name)
    with contextlib.suppress(WorkerError):
        said["tensorrt"] = str(trt_api.load_api().__version__)
    try:
        facts = cuda.open_device().facts
    except WorkerError as error:
        return {"GPU": str(error), **said}
    return {"GPU": facts.name, "driver": facts.driver, "CUDA": facts.runtime, **said}


def _versions(_: str) -> dict[str, Any]:
    import torch  # noqa: PLC0415  # only where the benchmark runs
    import transformers  # noqa: PLC0415  # as above

    answer: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    answer["cuda"] = cuda.cuda_absence() or vars_of(cuda.open_device().facts)
    with contextlib.suppress(Exception):
        answer["onnxruntime"] = __import__("onnxruntime").get_available_providers()
    answer["tensorrt"] = str(trt_api.load_api().__version__)
    return answer


def vars_of(facts: cuda.DeviceFacts) -> dict[str, Any]:
    """A device's facts as an object."""
    return {name: getattr(facts, name) for name in facts.__slots__}


def _builder(_: str) -> dict[str, Any]:
    api = trt_api.load_api()
    cuda.open_device()
    builder = api.Builder(trt_api.make_logger(api))
    return {"made": builder is not None}


def _attention(variant: str) -> dict[str, Any]:
    """One layer of a BERT, through the network calls: `packed:float16:64`."""
    layout, precision, size = variant.split(":")
    api, device = trt_api.load_api(), cuda.open_device()
    source = small_source(precision, int(size))
    profiles = PROFILE if layout == "packed" else PADDED_PROFILE
    recipe = Recipe(BuildOptions(level=1), b"", lambda _phase, _done: None)
    with device.use():
        built = build_plan(api, source, layout, profiles, recipe)
    said, expected = _run_both(api, device, built.plan, layout), _in_numpy(source, layout, profiles, recipe)
    names = [str(layer)[:120] for layer in json.loads(built.layers).get("Layers", [])][:12]
    differs = float(np.abs(np.array(said["logits"]) - np.array(expected["logits"])).max())
    return {
        "plan_bytes": len(built.plan),
        "fused": built.fused_attention,
        "layers": names,
        **said,
        "differs_from_numpy_by": differs,
    }


def _in_numpy(source: BertSource, layout: str, profiles: tuple[Profile, ...], recipe: Recipe) -> dict[str, Any]:
    """What the same network gives when the stand-in for the library computes it."""
    from tests.support import fake_cuda, fake_tensorrt  # noqa: PLC0415  # the tests lie beside the benchmark

    built = build_plan(fake_tensorrt, source, layout, profiles, recipe)
    return _run_both(fake_tensorrt, fake_cuda.HostDevice(), built.plan, layout)


def _run_both(api: Any, device: cuda.Device, plan: bytes, layout: str) -> dict[str, Any]:  # noqa: ANN401
    """Two contexts on one profile, interleaved, and a recorded launch: whether they say the same."""
    from benchmarks.gpu_models import batch_of  # noqa: PLC0415  # it needs torch

    batch = batch_of(np.array([5, 17, 33, 64, 9], dtype=np.int32))
    count = 3 * len(batch.lengths)
    fed = inputs(batch, layout, Shape(len(batch.lengths), int(batch.lengths.sum()) if layout == "packed" else 64), 0)
    logger = trt_api.make_logger(api)
    with device.use():
        runtime = api.Runtime(logger)
        engine = trt_api.checked(runtime.deserialize_cuda_engine(plan), "its own plan")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        names = [name for name in names if name in fed]
        said = []
        streams = [device.stream(1 << 16, 1 << 12) for _ in range(2)]
        needed = int(engine.get_device_memory_size_for_profile_v2(0))
        memories = [device.allocate(needed) for _ in streams]
        contexts = []
        for stream, memory in zip(streams, memories, strict=True):
            context = engine.create_execution_context(api.ExecutionContextAllocationStrategy.USER_MANAGED)
            trt_api.checked(context.set_optimization_profile_async(0, stream.handle), "a second context on a profile")
            context.set_device_memory(memory.address, memory.size_bytes)
            contexts.append(context)
        for _ in range(3):
            for stream, context in zip(streams, contexts, strict=True):
                said.append(_launch(context, stream, fed, names, count))
        replay = streams[0].record(lambda: trt_api.checked(contexts[0].execute_async_v3(streams[0].handle), "a launch"))
        replay()
        recorded = streams[0].download(count)
    spread = float(max(np.abs(each - said[0]).max() for each in said))
    return {
        "finite": bool(np.isfinite(said[0]).all()),
        "contexts_differ_by": spread,
        "recorded_differs_by": float(np.abs(recorded - said[0]).max()),
        "logits": [round(float(x), 4) for x in said[0][:6]],
    }


def _launch(context: Any, stream: cuda.Stream, fed: dict[str, Any], names: list[str], count: int) -> Any:  # noqa: ANN401
    starts, at = {}, 0
    for name in names:
        starts[name] = at
        at += -(-fed[name].size // 64) * 64
    whole = np.zeros(at, dtype=np.int32)
    for name in names:
        whole[starts[name] : starts[name] + fed[name].size] = fed[name].ravel()
    base = stream.upload(whole)
    for name in names:
        trt_api.checked(context.set_input_shape(name, fed[name].shape), name)
        trt_api.checked(context.set_tensor_address(name, base + 4 * starts[name]), name)
    trt_api.checked(context.set_tensor_address("logits", stream.output_address), "logits")
    if context.infer_shapes():
        raise RuntimeError("shapes are missing")
    trt_api.checked(context.execute_async_v3(stream.handle), "a launch")
    return stream.download(count)


def _varlen(_: str) -> dict[str, Any]:
    """The packed attention of torch beside its padded one."""
    import torch  # noqa: PLC0415  # only where the benchmark runs
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  # as above

    answers = {}
    for size in (32, 64):
        q = torch.randn(96, 12, size, device="cuda", dtype=torch.float16)
        ends = torch.tensor([0, 32, 96], device="cuda", dtype=torch.int32)
        found = varlen_attn(q, q, q, ends, ends, 64, 64)
        first = q[:32].transpose(0, 1)[None]
        expected = torch.nn.functional.scaled_dot_product_attention(first, first, first)[0].transpose(0, 1)
        answers[f"difference_{size}"] = float((found[:32] - expected).abs().max())
        try:
            varlen_attn(q, q, q, ends, ends, 64, 64, window_size=(8, 8))
            answers[f"window_{size}"] = True
        except TypeError as error:
            answers[f"window_{size}"] = str(error)[:100]
    return answers


def small_source(precision: str, size: int, layers: int = 1, heads: int = 4) -> BertSource:
    """A small BERT of random weights with heads of `size`."""
    random, hidden = np.random.default_rng(0), size * heads

    def drawn(*shape: int) -> Any:  # noqa: ANN401  # an array
        return random.normal(0, 0.1, shape).astype(np.float32)

    weights = {
        f"embeddings.{name}": drawn(rows, hidden)
        for name, rows in (("words", 30_522), ("positions", 512), ("types", 2))
    }
    linears = {"head.dense": (hidden, hidden), "head.out": (3, hidden)}
    norms = ["embeddings.norm"]
    for index in range(layers):
        at = f"layers.{index}"
        linears |= {f"{at}.qkv": (3 * hidden, hidden), f"{at}.mixed": (hidden, hidden)}
        linears |= {f"{at}.up": (4 * hidden, hidden), f"{at}.down": (hidden, 4 * hidden)}
        norms += [f"{at}.mixed_norm", f"{at}.down_norm"]
    for name, shape in linears.items():
        weights |= {f"{name}.weight": drawn(*shape), f"{name}.bias": drawn(shape[0])}
    for name in norms:
        weights |= {f"{name}.weight": np.ones(hidden, dtype=np.float32), f"{name}.bias": drawn(hidden)}
    shape = BertShape(layers, heads, 1e-12, "gelu", 512)
    return BertSource(shape, weights, has_types=True, precision=precision, largest_inputs=dict.fromkeys(linears, 8.0))


_ASKED: dict[str, Callable[[str], dict[str, Any]]] = {
    "versions": _versions,
    "builder": _builder,
    "attention": _attention,
    "varlen": _varlen,
}
QUESTIONS = (
    "versions",
    "builder",
    "varlen",
    *(
        f"attention:{layout}:{precision}:{size}"
        for layout in ("lengths", "packed")
        for precision in ("float16", "bfloat16")
        for size in (64, 32)
    ),
    "attention:packed:float8:64",
)
