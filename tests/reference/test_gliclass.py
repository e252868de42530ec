"""The one-pass engine says what GLiClass' own library says of the same labels, whatever shares their batch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_gliclass import write_tiny_gliclass
from tests.support.training_data import write_world
from worker.classifier import open_classifier
from worker.clock import ManualClock
from worker.engines.generic_torch import TorchOptions
from worker.engines.gliclass import GliclassEngine
from worker.engines.gliclass_folder import open_gliclass_folder
from worker.engines.load import EngineChoice, load_engine
from worker.errors import ConfigError, EngineError
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.batching import Batcher
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.training.evaluate import evaluate_task
from worker.training.scoring import Meter, Scorer
from worker.training.sets import read_table
from worker.training.tasks import Sampling, table_task
from worker.types import Float32Array, JsonValue, Prediction, Record, Request, TokenizedPairs

TEXTS = ("the app is late", "a refund " * 12, "x", "The bill, is the delivery not good?")
LABELS = ("refund", "late delivery", "a crash of the app", *(f"label number {number}" for number in range(30)))
MOST_TOKENS = 1000
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "as-by-default": ("bert", {}),
    "average-pooling": ("bert", {"pooling_strategy": "avg"}),
    "mlp": ("bert", {"scorer_type": "mlp", "pooling_strategy": "avg", "normalize_features": True}),
    "weighted-dot": ("bert", {"scorer_type": "weighted-dot", "hidden_size": 32}),
    "text-first": ("bert", {"prompt_first": False, "pooling_strategy": "avg"}),
    "text-alone": ("bert", {"extract_text_features": True, "pooling_strategy": "avg", "normalize_features": True}),
    "text-alone-first": ("bert", {"extract_text_features": True, "class_token_pooling": "average"}),
    "average-labels": ("bert", {"class_token_pooling": "average", "embed_class_token": False}),
    "next-token": ("bert", {"embed_class_token": False}),
    "segments": ("bert", {"use_segment_embeddings": True}),
    "deberta": ("deberta-v2", {"pooling_strategy": "avg", "normalize_features": True}),
    "modernbert": ("modernbert", {"pooling_strategy": "avg", "scorer_type": "mlp"}),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gliclass(tmp_path_factory.mktemp("gliclass") / "tiny", "deberta-v2", pooling_strategy="avg")


def _their_pipeline(folder: Path) -> Any:  # noqa: ANN401  # torch is optional
    import gliclass  # noqa: PLC0415  # optional
    import transformers  # noqa: PLC0415  # optional

    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        pad_token=settings["pad_token"],
        model_input_names=["input_ids", "attention_mask"],
    )
    model = gliclass.GLiClassModel.from_pretrained(folder).eval()
    return gliclass.ZeroShotClassificationPipeline(model, tokenizer, device="cpu", progress_bar=False)


def _their_logits(pipeline: Any, text: str, labels: tuple[str, ...]) -> Float32Array:  # noqa: ANN401  # as above
    """What their model says of a text alone: where it pools it pools padding, too."""
    import torch  # noqa: PLC0415  # optional

    inputs = pipeline.prepare_inputs([text], list(labels), same_labels=True)
    with torch.no_grad():
        return np.asarray(pipeline.model(**inputs, max_num_classes=len(labels)).logits[0].numpy(), np.float32)


def _schema(labels: tuple[str, ...], **more: bool) -> LabelSchema:
    named: list[JsonValue] = [{"name": name} for name in labels]
    return parse_schema({"name": "x", "version": 1, "hypothesis_templates": ["{}"], "labels": named, **more}, "x")


def _rows(folder: Path, text: str, labels: tuple[str, ...]) -> TokenizedPairs:
    _, config = open_gliclass_folder(folder)
    tokenizer = PairTokenizer(folder / "tokenizer.json", MOST_TOKENS, reading=config.row)
    (pairs,) = tokenizer.tokenize([plan_pairs(Request("", text), _schema(labels), 1000)])
    assert isinstance(pairs, TokenizedPairs)
    return pairs


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_its_own_library(shape: str, tmp_path: Path) -> None:
    family, config = SHAPES[shape]
    folder = write_tiny_gliclass(tmp_path / "model", family, **config)
    opened, read = open_gliclass_folder(folder)
    engine = GliclassEngine(opened, read, TorchOptions(device="cpu"))
    pipeline = _their_pipeline(folder).pipe
    batcher, expected = Batcher(10_000), {}
    for number, (text, labels) in enumerate((text, LABELS[:count]) for text in TEXTS for count in (1, 2, 5, 33)):
        pairs = _rows(folder, text, labels)
        assert 1 == len(pairs.lengths)
        batcher.add(number, pairs)
        expected[number] = _their_logits(pipeline, text, labels)

    while (batch := batcher.pop()) is not None:
        found = np.split(engine.score(batch).logits, batch.answers()[:-1])
        for ref, logits in zip(batch.refs, found, strict=True):
            assert np.abs(expected.pop(ref.message) - logits[:, 0]).max() < 1e-4
            assert not logits[:, 1].any()

    assert not expected


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_worker_decides_what_their_pipeline_scores(tiny: Path, tmp_path: Path, multi_label: bool) -> None:
    """Softmax over the labels in single mode, a sigmoid each in multi mode."""
    pipeline, labels = _their_pipeline(tiny), LABELS[:7]
    schema = _schema(labels, multi_label=multi_label)
    records = [Record("t", 0, n, 0, None, json.dumps({"text": text}).encode()) for n, text in enumerate(TEXTS)]

    choice = EngineChoice(str(tiny), "gliclass", cache_dir=tmp_path)
    with open_classifier(choice, schema, Limits()) as (classifier, stamp):
        answers = list(classifier.answers(records))

    assert ("gliclass", "float32") == (stamp.engine, stamp.precision)
    kind = "multi-label" if multi_label else "single-label"
    for text, answer in zip(TEXTS, answers, strict=True):
        scores = pipeline([text], list(labels), threshold=0.0, batch_size=1, classification_type=kind)[0]
        assert isinstance(answer.outcome, Prediction)
        assert len(labels) == answer.outcome.pairs.scored
        found = {score.label: score.score for score in answer.outcome.scores}
        for theirs in scores:  # in single mode they give the best one alone
            assert abs(theirs["score"] - found[theirs["label"]]) < 1e-4
        if not multi_label:
            assert scores[0]["label"] == answer.outcome.label


def test_all_labels_of_a_text_cost_one_row_of_the_encoder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = open_gliclass_folder(tiny)
    engine = GliclassEngine(folder, config, TorchOptions(device="cpu"))
    forward, rows = engine._encoder.forward, list[int]()

    def counted(**given: Any) -> Any:  # noqa: ANN401  # torch is optional
        rows.append(len(given["input_ids"]))
        return forward(**given)

    monkeypatch.setattr(engine._encoder, "forward", counted)
    batcher = Batcher(10_000)
    batcher.add(0, _rows(tiny, TEXTS[0], LABELS))
    batch = batcher.pop()
    assert batch is not None

    assert (len(LABELS), 2) == engine.score(batch).logits.shape
    assert [1] == rows


def test_a_label_token_in_a_text_is_no_label(tiny: Path) -> None:
    folder, config = open_gliclass_folder(tiny)
    engine = GliclassEngine(folder, config, TorchOptions(device="cpu"))
    batcher = Batcher(10_000)
    batcher.add(0, _rows(tiny, "late <<LABEL>> refund <<SEP>> late", LABELS[:2]))
    batch = batcher.pop()
    assert batch is not None

    assert (2, 2) == engine.score(batch).logits.shape


def test_the_engine_passes_its_gate_and_ends_with_its_memory(tiny: Path, tmp_path: Path) -> None:
    loaded = load_engine(EngineChoice(str(tiny), "gliclass", cache_dir=tmp_path))

    assert loaded.gate is not None
    assert loaded.gate.passed
    assert loaded.gate.batch_dependence < 1e-4
    loaded.engine.warm_up()
    loaded.engine.close()
    with pytest.raises(EngineError, match="closed"):
        loaded.engine.warm_up()


def test_a_folder_without_all_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415  # optional

    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tiny / "model.safetensors")
    del weights["model.classes_projector.linear_2.bias"]
    save_file(weights, tmp_path / "model.safetensors")

    with pytest.raises(EngineError, match="1 weights of its architecture are missing"):
        load_engine(EngineChoice(str(tmp_path), "gliclass"))
    with pytest.raises(ConfigError, match="float16"):
        load_engine(EngineChoice(str(tiny), "gliclass", "float16"))


def test_it_is_measured_beside_nli_models_each_template_by_itself(tiny: Path, tmp_path: Path) -> None:
    task = table_task(read_table(write_world(tmp_path)).classification[0], tmp_path, Sampling(texts=6))
    assert task is not None
    loaded = load_engine(EngineChoice(str(tiny), "gliclass", cache_dir=tmp_path))
    scorer = Scorer(loaded, Meter(ManualClock()))

    both = evaluate_task(scorer, task, ("gliclass", None))
    first = parse_schema({**task.schema.document(), "hypothesis_templates": [task.schema.hypothesis_templates[0]]}, "x")
    alone = evaluate_task(scorer, replace(task, schema=first), ("gliclass", None))

    assert 2 == len(both.templates)
    assert both.templates[0] == alone.templates[0]
    loaded.engine.close()
