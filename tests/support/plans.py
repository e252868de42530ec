"""Plans of a tiny BERT, built through the calls of the fake TensorRT: milliseconds, no torch, no GPU."""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.support import fake_tensorrt
from tests.support.fake_cuda import FACTS, HostDevice
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.encoders.bert import BertShape
from worker.engines.plans import PlanStore, StoredPlan
from worker.engines.profiles import choose_profiles
from worker.engines.source import BUNDLED_FOLDER
from worker.engines.trt import TensorRtEngine, TensorRtOptions
from worker.engines.trt_build import BuildOptions, Built, Recipe, build_plan
from worker.engines.trt_network import BertSource
from worker.types import Float32Array

VOCABULARY, HIDDEN, HEADS, LAYERS, LONGEST = 30522, 16, 2, 2, 64


def write_folder(folder: Path) -> ModelFolder:
    """A 3-class model folder with the bundled tokenizer; its weights file names the model, and holds nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BUNDLED_FOLDER / "tokenizer.json", folder / "tokenizer.json")
    config = {
        "model_type": "bert",
        "id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"},
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "num_hidden_layers": LAYERS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    return open_folder(folder)


def bert_source(precision: str = "float16", *, has_types: bool = True) -> BertSource:
    """Random weights, rough enough that logits differ between pairs."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> Float32Array:
        return random.normal(0, 0.3, shape).astype(np.float32)

    weights = {"embeddings.words": drawn(VOCABULARY, HIDDEN), "embeddings.positions": drawn(LONGEST, HIDDEN)}
    weights["embeddings.types"] = drawn(2, HIDDEN)
    linears = {"head.dense": (HIDDEN, HIDDEN), "head.out": (3, HIDDEN)}
    norms = ["embeddings.norm"]
    for index in range(LAYERS):
        at = f"layers.{index}"
        linears |= {f"{at}.qkv": (3 * HIDDEN, HIDDEN), f"{at}.mixed": (HIDDEN, HIDDEN)}
        linears |= {f"{at}.up": (2 * HIDDEN, HIDDEN), f"{at}.down": (HIDDEN, 2 * HIDDEN)}
        norms += [f"{at}.mixed_norm", f"{at}.down_norm"]
    for name, (out, into) in linears.items():
        weights |= {f"{name}.weight": drawn(out, into), f"{name}.bias": drawn(out)}
    for name in norms:
        weights |= {f"{name}.weight": 1 + drawn(HIDDEN), f"{name}.bias": drawn(HIDDEN)}
    shape = BertShape(LAYERS, HEADS, 1e-12, "gelu", LONGEST)
    return BertSource(shape, weights, has_types, precision, dict.fromkeys(linears, 8.0))


def tiny_facts(layout: str, precision: str = "float16", token_budget: int = 256) -> dict[str, object]:
    """What a tiny plan is kept under."""
    profiles = choose_profiles(layout, LONGEST, token_budget, (16, 32))
    return {
        "model": "sha256:" + "0" * 64,
        "precision": precision,
        "layout": layout,
        "profiles": [[profile.tokens, profile.pairs] for profile in profiles],
        "tensorrt": fake_tensorrt.__version__,
        "gpu": [FACTS.name, FACTS.capability, FACTS.multiprocessors],
        "driver": FACTS.driver,
    }


def plain_recipe(timings: bytes = b"") -> Recipe:
    """How a tiny plan is built."""
    return Recipe(BuildOptions(), timings, lambda _phase, _done: None)


def compile_tiny(layout: str, source: BertSource, token_budget: int = 256) -> Built:
    """A tiny plan, kept nowhere."""
    profiles = choose_profiles(layout, LONGEST, token_budget, (16, 32))
    return build_plan(fake_tensorrt, source, layout, profiles, plain_recipe())


def build_tiny(root: Path, layout: str, precision: str = "float16", token_budget: int = 256) -> StoredPlan:
    """A tiny plan in a store at `root`."""
    facts = tiny_facts(layout, precision, token_budget)
    built = compile_tiny(layout, bert_source(precision), token_budget)
    return PlanStore(root).put(facts, built.plan, {"fused_attention": built.fused_attention})  # type: ignore[arg-type]  # JSON values


def open_tiny(
    root: Path,
    layout: str,
    options: TensorRtOptions | None = None,
    precision: str = "float16",
    token_budget: int = 256,
) -> TensorRtEngine:
    """An engine of a tiny plan on a device in the host's memory."""
    folder = write_folder(root / "model")
    stored = build_tiny(root / "plans", layout, precision, token_budget)
    return TensorRtEngine(fake_tensorrt, HostDevice(), folder, stored, options or TensorRtOptions())
