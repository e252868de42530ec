"""Exported models say what the originals say: against transformers itself, family by family."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.batches import batch_of, random_pairs
from worker.engines.artifact import ModelFolder, open_folder
from worker.engines.build import verify
from worker.engines.export import export_model
from worker.engines.golden import MIN_GOLDEN_PAIRS, read_golden
from worker.engines.layout import pad
from worker.engines.load import EngineChoice, load_engine
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.errors import EngineError
from worker.types import Batch, Float32Array

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "nncf", "onnxscript")),
        reason="needs torch, transformers, nncf, onnxscript: uv run --group reference pytest -m reference",
    ),
]

FAMILIES = ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelFolder]:
    """The tiny model of a family; written once."""
    from tests.support.tiny_torch import write_tiny_torch_model  # noqa: PLC0415  # torch is optional

    root = tmp_path_factory.mktemp("tiny")

    def find(family: str) -> ModelFolder:
        folder = root / family
        return open_folder(folder if folder.is_dir() else write_tiny_torch_model(folder, family))

    return find


def _transformers_logits(folder: ModelFolder, batch: Batch) -> Float32Array:
    import torch  # noqa: PLC0415  # torch is optional
    import transformers  # noqa: PLC0415  # torch is optional

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder.path).eval()
    padded = pad(batch, folder.pad_token_id)
    feed = {"input_ids": torch.tensor(padded.input_ids), "attention_mask": torch.tensor(padded.attention_mask)}
    if folder.has_type_ids:
        feed["token_type_ids"] = torch.tensor(padded.type_ids)
    with torch.no_grad():
        return np.asarray(model(**feed).logits.numpy(), dtype=np.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_model_gives_the_logits_of_the_original(
    family: str, tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    source = tiny(family)
    assert source.max_pair_tokens == 160
    exported = export_model(source, tmp_path / "exported")
    engine = OpenVinoEngine(exported, OpenVinoOptions("float32"))
    batches = [
        batch_of(*random_pairs(1, 3, 250)),
        batch_of(list(range(5, 165))),
        batch_of(*random_pairs(2, 20, 250, seed=2)),
        batch_of(*random_pairs(9, 120, 250, seed=3)),
        batch_of(*[list(range(9, 49))] * 4),
    ]
    spread = 0.0
    for batch in batches:
        expected, found = _transformers_logits(source, batch), engine.score(batch).logits
        assert np.abs(found - expected).max() <= 1e-3
        spread = max(spread, float(np.ptp(expected, axis=0).max()))
    assert spread > 0.1, "the tiny model says the same of everything: this test could not fail"
    golden = read_golden(exported)
    assert golden is not None
    assert verify(engine, exported, golden).reason == ""


def test_a_folder_of_safetensors_is_exported_once_verified_and_served(
    tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    source = tiny("bert")
    choice = EngineChoice(model=str(source.path), engine="openvino", precision="float32", cache_dir=tmp_path)
    first = load_engine(choice)
    assert first.is_verified
    assert first.gate is not None
    assert (first.gate.passed, first.engine.info.stamp.name) == (True, "bert")
    made = first.model_dir.stat().st_mtime_ns
    assert load_engine(choice).model_dir.stat().st_mtime_ns == made


def test_8bit_weights_are_recognised_and_come_with_golden_pairs(
    tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    source = tiny("bert")
    (source.path / "README.md").write_text("# a card\n")
    exported = export_model(source, tmp_path / "small", weights="int8")
    assert OpenVinoEngine(exported, OpenVinoOptions("float32")).has_8bit_weights
    golden = read_golden(exported)
    assert golden is not None
    assert len(golden.pairs) >= MIN_GOLDEN_PAIRS
    assert (exported.path / "README.md").read_text() == "# a card\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["small"]


def test_the_pytorch_engine_is_verified_and_says_so(tiny: Callable[[str], ModelFolder], tmp_path: Path) -> None:
    source = tiny("roberta")
    loaded = load_engine(EngineChoice(model=str(source.path), engine="pytorch", cache_dir=tmp_path))
    assert (loaded.engine.info.stamp.engine, loaded.engine.info.stamp.precision) == ("pytorch", "float32")
    batch = batch_of(*random_pairs(4, 60, 250))
    assert np.abs(loaded.engine.score(batch).logits - _transformers_logits(source, batch)).max() <= 1e-4


def test_a_target_that_exists_is_left_alone(tiny: Callable[[str], ModelFolder], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="exists already"):
        export_model(tiny("bert"), tmp_path)


def test_weights_that_are_not_what_the_configuration_says_are_a_typed_error(
    tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((tiny("bert").path / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(EngineError, match="transformers cannot load this model"):
        load_engine(EngineChoice(model=str(tmp_path), engine="pytorch", cache_dir=tmp_path / "cache"))


def test_a_model_without_its_classifier_is_refused_instead_of_filled_with_random_weights(
    tiny: Callable[[str], ModelFolder], tmp_path: Path
) -> None:
    import safetensors.torch  # noqa: PLC0415  # torch is optional

    source = tiny("bert")
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((source.path / name).read_bytes())
    weights = safetensors.torch.load_file(source.path / "model.safetensors")
    kept = {name: values for name, values in weights.items() if not name.startswith("classifier")}
    safetensors.torch.save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match="2 weights of its architecture are missing"):
        load_engine(EngineChoice(model=str(tmp_path), engine="pytorch", cache_dir=tmp_path / "cache"))
