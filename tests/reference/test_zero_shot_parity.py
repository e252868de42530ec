"""Scores equal those of the zero-shot classification pipeline of transformers, through the whole path of a record.

Same model, same explicit maximum length, float32. Where the pipeline's idea of the contradiction column disagrees with
`id2label`, `id2label` is followed.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_models
from worker.classifier import Classifier, ClassifierParts
from worker.engines.artifact import open_folder
from worker.engines.base import Engine
from worker.engines.export import export_model
from worker.engines.ov import OpenVinoEngine, OpenVinoOptions
from worker.engines.pytorch import PyTorchEngine, PyTorchOptions
from worker.labels.schema import LabelSchema, parse_schema
from worker.messages.codec import decode
from worker.messages.inbound import InputFields
from worker.pipeline.tokenization import PairTokenizer
from worker.settings import Limits
from worker.types import JsonValue, Prediction, Record

TOLERANCE = 1e-3
REAL_MODEL = "NLI_MODEL_DIR"
TEMPLATE = "This example is about {}."

TEXTS = (
    "The app is late.",
    "I was charged twice for the same bill and I want a refund, not another excuse!",
    "Größe? 漢字 \u05de\u05e9 e\u0301 😀👩🏽‍🚀 \x00 [SEP] {0.__class__}",
    "supercalifragilistic" * 12,
)
LONG_TEXTS = (
    "the delivery is late and the app is not good " * 40,
    " ".join(str(number) for number in range(700)),
)
FEW = ("billing", "a late delivery", "praise {} for the app")
THIRTY = tuple(f"subject {number} of {chr(97 + number % 26)}" for number in range(30))
LABEL_SETS = {"one": FEW[:1], "three": FEW, "thirty": THIRTY}

AGREEING_HEADS: dict[str, tuple[str, ...]] = {
    "2-classes-entailment-0": ("entailment", "not_entailment"),
    "2-classes-entailment-1": ("not_entailment", "entailment"),
    "3-classes-entailment-0": ("entailment", "neutral", "contradiction"),
    "3-classes-entailment-1": ("contradiction", "entailment", "neutral"),
    "3-classes-entailment-2": ("contradiction", "neutral", "entailment"),
}
DISAGREEING_HEADS = (
    ("entailment", "contradiction", "neutral"),
    ("neutral", "entailment", "contradiction"),
    ("neutral", "contradiction", "entailment"),
)
MODELS = [
    *((head, tiny_models.bert, classes) for head, classes in AGREEING_HEADS.items()),
    ("roberta-3-classes-entailment-2", tiny_models.roberta, AGREEING_HEADS["3-classes-entailment-2"]),
]
EXPORTED = {
    "2-classes-entailment-1",
    "3-classes-entailment-0",
    "3-classes-entailment-1",
    "roberta-3-classes-entailment-2",
}
"""Each export takes ten seconds: both numbers of classes, each index of entailment, with and without type ids."""

Pipeline = Callable[..., Any]


@dataclass(frozen=True)
class Contest:
    """One model, run by the pipeline of transformers and by us."""

    theirs: Pipeline
    engine: Engine
    tokenizer: PairTokenizer

    def ours(self, texts: Sequence[str], schema: LabelSchema) -> list[Prediction]:
        """Our predictions, all texts in the same batches."""
        limits = Limits()
        parts = ClassifierParts(
            decode=lambda record: decode(record, InputFields(), limits),
            resolve=lambda request: schema,
            tokenizer=self.tokenizer,
            engine=self.engine,
            max_pairs=limits.pairs,
        )
        outcomes = [answer.outcome for answer in Classifier(parts).answers(map(record_of, texts, range(len(texts))))]
        return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]

    def largest_difference(self, texts: Sequence[str], labels: Sequence[str], multi_label: bool) -> float:
        """Between their scores and ours, over all texts and labels."""
        ours = self.ours(texts, schema_of(labels, multi_label))
        assert len(texts) == len(ours)
        return max(
            abs(their_scores[label] - score)
            for text, prediction in zip(texts, ours, strict=True)
            for their_scores in [self.their_scores(text, labels, multi_label)]
            for label, score in scores_of(prediction).items()
        )

    def their_scores(self, text: str, labels: Sequence[str], multi_label: bool) -> dict[str, float]:
        """What the pipeline of transformers says."""
        answer = self.theirs(text, candidate_labels=list(labels), hypothesis_template=TEMPLATE, multi_label=multi_label)
        return dict(zip(answer["labels"], answer["scores"], strict=True))


def record_of(text: str, offset: int) -> Record:
    value = json.dumps({"text": text}).encode()
    return Record(topic="in", partition=0, offset=offset, epoch=1, key=None, value=value)


def schema_of(labels: Sequence[str], multi_label: bool) -> LabelSchema:
    document: JsonValue = {
        "name": "a",
        "version": 1,
        "multi_label": multi_label,
        "hypothesis_templates": [TEMPLATE],
        "labels": [{"name": label} for label in labels],
    }
    return parse_schema(document, "test")


def scores_of(prediction: Prediction) -> dict[str, float]:
    return {each.label: each.score for each in prediction.scores}


def their_pipeline(folder: Path) -> Pipeline:
    import transformers  # noqa: PLC0415  # only here where the group `reference` is

    transformers.utils.logging.disable_progress_bar()
    pipeline: Pipeline = transformers.pipeline(
        "zero-shot-classification", model=str(folder), device="cpu", dtype="float32"
    )
    return pipeline


def contest(folder: Path, engine_name: str, scratch: Path) -> Contest:
    source = open_folder(folder)
    engine: Engine
    if engine_name == "pytorch":
        engine = PyTorchEngine(source, PyTorchOptions(device="cpu"))
    else:
        engine = OpenVinoEngine(export_model(source, scratch / "exported"), OpenVinoOptions(precision="float32"))
    assert "float32" == engine.info.stamp.precision
    return Contest(their_pipeline(folder), engine, PairTokenizer(source.tokenizer_file, source.max_pair_tokens))


TINY = [
    pytest.param((architecture, classes, engine), id=f"{name}-{engine}")
    for name, architecture, classes in MODELS
    for engine in ("pytorch", "openvino")
    if engine == "pytorch" or name in EXPORTED
]


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contest]:
    architecture, classes, engine = request.param
    scratch = tmp_path_factory.mktemp("tiny")
    folder = tiny_models.build(scratch / "model", architecture(), classes)
    parts = contest(folder, engine, scratch)
    yield parts
    parts.engine.close()


@pytest.fixture(scope="module", params=["pytorch", "openvino"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contest]:
    folder = os.environ.get(REAL_MODEL)
    if not folder:
        pytest.skip(f"{REAL_MODEL} names no folder with an NLI model")
    parts = contest(Path(folder), request.param, tmp_path_factory.mktemp("real"))
    yield parts
    parts.engine.close()


@pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_scores_are_those_of_the_pipeline(tiny: Contest, labels: Sequence[str], multi_label: bool) -> None:
    assert TOLERANCE >= tiny.largest_difference((*TEXTS, *LONG_TEXTS), labels, multi_label)


def test_the_scores_that_agree_are_not_all_alike(tiny: Contest) -> None:
    """Without this, a model that says the same of everything would pass every comparison."""
    predictions = tiny.ours((*TEXTS, *LONG_TEXTS), schema_of(FEW, multi_label=True))
    each = [score for prediction in predictions for score in scores_of(prediction).values()]
    assert max(each) - min(each) > 100 * TOLERANCE


def test_long_texts_are_cut_at_the_length_that_the_tokenizer_names(tiny: Contest) -> None:
    predictions = tiny.ours(LONG_TEXTS, schema_of(FEW, multi_label=False))
    assert tiny_models.MAX_PAIR_TOKENS == tiny.engine.info.max_pair_tokens == tiny.theirs.tokenizer.model_max_length  # type: ignore[attr-defined]  # a pipeline
    assert all(prediction.text.tokens_dropped > 0 for prediction in predictions)


@pytest.mark.parametrize("classes", DISAGREEING_HEADS, ids="-".join)
def test_the_contradiction_is_the_class_that_id2label_calls_so(classes: tuple[str, ...], tmp_path: Path) -> None:
    """The pipeline takes the first column, or the last where entailment is the first: here that is neutral."""
    both = contest(tiny_models.build(tmp_path / "model", tiny_models.bert(), classes), "pytorch", tmp_path)
    text, label = TEXTS[1], FEW[0]
    pipeline: Any = both.theirs
    pair = pipeline.tokenizer(text, TEMPLATE.format(label), return_tensors="pt", truncation="only_first")
    row = dict(zip(classes, pipeline.model(**pair).logits[0].tolist(), strict=True))
    against_contradiction = 1 / (1 + math.exp(row["contradiction"] - row["entailment"]))
    against_neutral = 1 / (1 + math.exp(row["neutral"] - row["entailment"]))
    [ours] = both.ours([text], schema_of(FEW, multi_label=True))
    assert pytest.approx(against_contradiction, abs=TOLERANCE) == scores_of(ours)[label]
    theirs = both.their_scores(text, FEW, multi_label=True)[label]
    assert pytest.approx(against_neutral, abs=TOLERANCE) == theirs
    assert abs(against_contradiction - against_neutral) > 10 * TOLERANCE
    # Among labels only entailment counts: there both agree.
    assert TOLERANCE >= both.largest_difference([text], FEW, multi_label=False)


@pytest.mark.parametrize("multi_label", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        pytest.param((*TEXTS, *LONG_TEXTS), FEW[:1], id="one"),
        pytest.param((*TEXTS, *LONG_TEXTS), FEW, id="three"),
        pytest.param(TEXTS, THIRTY, id="thirty"),
    ],
)
def test_scores_of_a_real_model_are_those_of_the_pipeline(
    real: Contest, texts: Sequence[str], labels: Sequence[str], multi_label: bool
) -> None:
    assert TOLERANCE >= real.largest_difference(texts, labels, multi_label)
