"""Decisions for many messages at once are those that are made one by one."""

import random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import record
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.assembly import Scored
from worker.pipeline.decision import decide
from worker.pipeline.decisions import decide_all
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import plan_pairs
from worker.types import NliHead, Prediction, Request, TokenSpan

MODEL = ModelView(NliHead(classes=3, entailment=2, contradiction=0), "sha256:" + "0" * 64)
SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9])


@st.composite
def schemas(draw: st.DrawFn) -> LabelSchema:
    is_multi = draw(st.booleans())
    labels: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 5))):
        label: dict[str, Any] = {"name": f"n{number}"}
        if draw(st.booleans()):
            label["threshold"] = draw(SHARES)
        if draw(st.booleans()):
            label["hypothesis"] = draw(st.sampled_from(["same", "other"]))
        if is_multi and draw(st.booleans()):
            label["negative"] = draw(st.sampled_from(["not", "never"]))
        labels.append(label)
    if draw(st.integers(0, 3)) == 0:
        labels[0]["children"] = [{"name": "x"}, {"name": "y"}]
    document: dict[str, Any] = {"name": "a", "version": 1, "labels": labels, "multi_label": is_multi}
    document["hypothesis_templates"] = draw(st.sampled_from([["It is {}."], ["It is {}.", "About {}."]]))
    if draw(st.booleans()):
        document["top_k"] = draw(st.integers(1, 4))
    if draw(st.booleans()):
        document["long_text"] = {"strategy": "windows", "aggregate": draw(st.sampled_from(["mean", "max"]))}
    if draw(st.booleans()):
        bias = {"n0": draw(st.sampled_from([-1.5, 2.0]))}
        document["calibration"] = {
            "model": MODEL.digest,
            "temperature": draw(st.sampled_from([0.5, 3.0])),
            "bias": bias,
        }
    if not is_multi and draw(st.booleans()):
        document["abstain"] = {"below": draw(SHARES), "margin": draw(SHARES), "label": "none"}
    return parse_schema(document, "test")


def messages_under(schema: LabelSchema, seed: int, count: int) -> list[Scored]:
    draw = np.random.default_rng(seed)
    plan = plan_pairs(Request("id", "text"), schema, 1000)
    scored = []
    for _ in range(count):
        windows = int(draw.integers(1, 3))
        # Rounded: equal scores have to come up.
        logits = draw.normal(0, 2, (windows, len(plan.hypotheses), 3)).round(1).astype(np.float32)
        cached = frozenset(range(int(draw.integers(0, 2))))
        scored.append(Scored(record(), (ScoredStage(plan, logits, cached),), TokenSpan(5, 0, windows)))
    return scored


@given(st.lists(schemas(), min_size=1, max_size=3), st.integers(0, 2**32), st.integers(1, 12))
def test_each_of_many_is_decided_as_it_is_alone(schemas: list[LabelSchema], seed: int, count: int) -> None:
    messages = [each for schema in schemas for each in messages_under(schema, seed, count)]
    random.Random(seed).shuffle(messages)
    alone = [decide(each.stages, each.text, MODEL) for each in messages]
    assert alone == decide_all(messages, MODEL)


def test_a_message_that_cannot_be_decided_does_not_hurt_its_neighbours() -> None:
    schema = parse_schema({"name": "a", "version": 1, "labels": [{"name": "x"}, {"name": "y"}]}, "test")
    good = messages_under(schema, 0, 4)
    plan = good[0].stages[0].plan
    bad = Scored(record(), (ScoredStage(plan, np.zeros((1, 1, 3), np.float32)),), TokenSpan(1, 0))
    outcomes = decide_all([*good, bad, bad, bad], MODEL)
    assert [True] * 4 + [False] * 3 == [isinstance(each, Prediction) for each in outcomes]
