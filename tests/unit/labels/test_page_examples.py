"""The worked examples of the page about label schemas, worked out by the worker."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from worker.labels.published import Pointer, Publication, pointer_bytes
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema, canonical_json, parse_schema
from worker.pipeline.decision import decide
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import plan_pairs
from worker.pipeline.prompts import after_text
from worker.types import JsonValue, NliHead, Prediction, Request, TokenSpan

PAGE = (Path(__file__).parents[3] / "docs" / "label-schemas.md").read_text(encoding="utf-8")
DIGEST = "sha256:" + "0" * 64
"""Of the model that the page means."""


def examples(kind: str) -> list[tuple[dict[str, Any], str]]:
    """Every document of the page that is followed by a block of `kind`, and that block."""
    found = re.findall(rf"```yaml\n([^`]*)```\n(?:(?!```|\n#).)*?```{kind}\n([^`]*)```", PAGE, re.DOTALL)
    return [(yaml.safe_load(document), block) for document, block in found]


def schema(document: dict[str, Any]) -> LabelSchema:
    return parse_schema({"name": "a", "version": 1, **document}, "the page")


def decided(document: dict[str, Any], z: list[float], digest: str = DIGEST) -> Prediction:
    plan = plan_pairs(Request("id", "text"), schema(document), 100)
    logits = np.array([[[each, 0.0] for each in z]], np.float32)
    return decide([ScoredStage(plan, logits)], TokenSpan(1, 0), ModelView(NliHead(2, 0, 1), digest))


def listed(prediction: Prediction) -> list[dict[str, Any]]:
    return [{"label": each.label, "score": round(each.score, 2)} for each in prediction.scores]


def test_the_decisions_that_the_page_shows_are_those_of_the_worker() -> None:
    found = [(document, json.loads(block)) for document, block in examples("json")]
    assert {"top_k", "calibration"} <= {key for document, _ in found for key in document}
    for document, shown in found:
        prediction = decided(document, shown["z"])
        assert shown["scores"] == listed(prediction)
        assert shown.get("label") == prediction.label
        assert shown.get("selected", [shown.get("label")]) == [*prediction.selected]


def test_what_the_page_says_would_be_without_a_key_is_so() -> None:
    (top_k, of_top_k), (calibrated, of_calibrated) = ((d, json.loads(block)) for d, block in examples("json"))
    everything = listed(decided({key: value for key, value in top_k.items() if key != "top_k"}, of_top_k["z"]))
    assert {"label": "praise", "score": 0.27} == everything[-1]
    assert len(top_k["labels"]) == len(everything)
    under_another = decided(calibrated, of_calibrated["z"], "sha256:" + "1" * 64)
    assert ([0.73, 0.27], False) == ([each["score"] for each in listed(under_another)], under_another.calibrated)
    assert decided(calibrated, of_calibrated["z"]).calibrated
    assert "would have 0.73 and 0.27" in PAGE


def test_an_instruction_model_reads_what_the_page_shows() -> None:
    [(document, block)] = examples("text")
    made = schema(document)
    assert made.instruction is not None
    plan = plan_pairs(Request("id", "text"), made, 100)
    assert f"The app crashes.{after_text(made.instruction, plan.hypotheses)}\n" == block


def test_another_model_refuses_with_the_words_of_the_page() -> None:
    blocks = [yaml.safe_load(block) or {} for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    [key] = [block for block in blocks if "requires_model" in block]
    document: dict[str, JsonValue] = {"name": "a", "version": 2, "labels": [{"name": "x"}]}
    documents = {1: canonical_json({**document, "version": 1}), 2: canonical_json({**document, **key})}
    labels = LabelRegistry(model_digest="sha256:" + "1" * 64)
    labels.publish({"a": Publication(documents, pointer_bytes(Pointer(2)))})
    held = labels.current("a")
    assert held is not None
    assert 1 == held.version
    assert f"`{labels.verdict('a').reason}`" in PAGE
