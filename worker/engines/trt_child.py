"""The process that builds one plan: the library can crash, hang or take all memory, and only this process with it.

`python -m worker.engines.trt_child` reads its order as JSON from standard input, writes `model.plan`, `timings` and
`layers.json` into the folder of the order, and says on standard output how far it is, one JSON object a line.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from worker.engines import trt_api
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.encoders.bert import BertShape
from worker.engines.encoders.families import Encoder, read_encoder
from worker.engines.encoders.feeding import padded
from worker.engines.golden import encode_pairs, golden_texts
from worker.engines.plans import LAYERS_FILE, PLAN_FILE
from worker.engines.profiles import Profile, choose_profiles
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.engines.trt_build import BuildOptions, Built, Recipe, build_plan
from worker.engines.trt_network import BertSource
from worker.engines.trt_order import BuildOrder
from worker.errors import EngineError, WorkerError

TIMINGS_FILE: Final = "timings"
RESULT: Final = "result"
"""The key of the last line, with what is to be noted of the plan."""
FAILURE: Final = "failure"
_PARENT_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""

Say = Callable[[dict[str, Any]], None]


def order_as_json(folder: ModelFolder, order: BuildOrder, scratch: Path) -> str:
    """What the process is given."""
    return json.dumps({"model": str(folder.path), "name": folder.name, "scratch": str(scratch), **asdict(order)})


def build_in(order: dict[str, Any], say: Say) -> None:
    """Do what `order` asks; blocks for minutes.

    Raises:
        EngineError: it cannot be built.
    """
    folder = open_folder(Path(order["model"]), order["name"])
    scratch = Path(order["scratch"])
    profiles = choose_profiles(order["layout"], folder.max_pair_tokens, order["token_budget"], tuple(order["buckets"]))
    say({"phase": "reading the model", "done": 0.0})
    api = trt_api.load_api()
    timings = scratch / TIMINGS_FILE
    recipe = Recipe(
        BuildOptions(**order["options"]),
        timings.read_bytes() if timings.is_file() else b"",
        lambda phase, done: say({"phase": phase, "done": done}),
    )
    built = _build(api, folder, order, profiles, recipe)
    (scratch / PLAN_FILE).write_bytes(built.plan)
    timings.write_bytes(built.timings)
    (scratch / LAYERS_FILE).write_text(built.layers, encoding="utf-8")
    say({RESULT: {"fused_attention": built.fused_attention}})


def _build(
    api: trt_api.Api, folder: ModelFolder, order: dict[str, Any], profiles: tuple[Profile, ...], recipe: Recipe
) -> Built:
    engine = PyTorchEngine(folder, PyTorchOptions(device="cpu", layout="transformers"))
    try:
        if order["layout"] != "padded":
            source = _weights(engine.module, folder, order["precision"])
            return build_plan(api, source, order["layout"], profiles, recipe)
        from worker.engines.encoders.onnx import write_onnx  # noqa: PLC0415  # heavy

        encoder = read_encoder(engine.module, order["precision"], has_wide_norms=True)
        with tempfile.TemporaryDirectory(dir=order["scratch"]) as beside:
            recipe.progress("writing the graph", 0.0)
            graph = Path(beside) / "model.onnx"
            write_onnx(encoder, graph, has_types=folder.has_type_ids)
            return build_plan(api, graph, order["layout"], profiles, recipe)
    finally:
        engine.close()


def _weights(module: Any, folder: ModelFolder, precision: str) -> BertSource:  # noqa: ANN401  # torch is optional
    encoder = read_encoder(module, "float32")
    if not isinstance(encoder.shape, BertShape):
        raise EngineError(f"{folder.path}: {encoder.family}: only BERT and RoBERTa are built from their weights")
    largest = _largest_inputs(encoder, folder) if precision == "float8" else {}
    weights = {name: values.numpy() for name, values in encoder.weights.tensors.items()}
    return BertSource(encoder.shape, weights, folder.has_type_ids, precision, largest)


def _largest_inputs(encoder: Encoder, folder: ModelFolder) -> dict[str, float]:
    """The largest value that each layer is given over the golden texts."""
    import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

    largest: dict[str, float] = {}

    def observe(name: str, values: Any) -> None:  # noqa: ANN401  # torch is optional
        largest[name] = max(largest.get(name, 0.0), float(values.abs().max()))

    watched = encoder.observed(observe)
    with torch.inference_mode():
        for single in encode_pairs(folder, golden_texts()):
            fed = padded(single, "cpu", folder.pad_token_id)
            watched.score(fed.layout, fed.ids, fed.types if folder.has_type_ids else None)
    return {name: float(np.float32(value)) for name, value in largest.items()}


def _end_with_parent() -> None:
    """Where the process that asked is killed, nobody wants the plan any more, and the next may build at once."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def main() -> int:
    """Build what standard input asks for; 0 done, 1 failed."""
    _end_with_parent()
    # What libraries print goes where it does no harm.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as told:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def say(line: dict[str, Any]) -> None:
            with contextlib.suppress(BrokenPipeError):
                told.write(f"{json.dumps(line)}\n")

        try:
            build_in(json.load(sys.stdin), say)
        except WorkerError as error:
            say({FAILURE: str(error)})
            return 1
        except OSError as error:
            say({FAILURE: f"the plan cannot be written ({error.strerror}); free space, or set cache_dir"})
            return 1
        except MemoryError:
            say({FAILURE: "there is not enough memory to build the plan; fewer or smaller profiles need less"})
            return 1
        except Exception as error:
            said = f"{type(error).__name__}: {error}"[:400]
            say({FAILURE: f"the plan cannot be built ({said}); standard error says where, another engine may do"})
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
