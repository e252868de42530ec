"""Decisions that go down a tree of labels, against arithmetic done by hand."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.decision import decide, next_stage
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.types import JsonValue, NliHead, PairCounts, Prediction, Request, TokenSpan

DIGEST = "sha256:" + "a" * 64
MODEL = ModelView(NliHead(classes=2, entailment=0, contradiction=1), DIGEST)
LN2, LN3 = math.log(2.0), math.log(3.0)

# electronics: phone (case, charger), laptop; home: lamp
TREE: list[JsonValue] = [
    {"name": "electronics", "children": [{"name": "phone", "children": [{"name": "case"}, {"name": "charger"}]}, "l"]},
    {"name": "home", "children": [{"name": "lamp"}]},
]

Logits = Mapping[str, Sequence[float]]
"""By hypothesis, which is the label's name: entailment and the other class."""


def schema_of(labels: Sequence[JsonValue], **document: JsonValue) -> LabelSchema:
    def label(given: JsonValue) -> JsonValue:
        if isinstance(given, str):
            return {"name": given}
        assert isinstance(given, dict)
        children = given.get("children", [])
        assert isinstance(children, list)
        return {**given, "children": [label(child) for child in children]}

    templates: list[JsonValue] = ["{}"]
    return parse_schema(
        {
            "name": "a",
            "version": 1,
            "hypothesis_templates": templates,
            "labels": [label(each) for each in labels],
            **document,
        },
        "test",
    )


def scored(plan: PairPlan, logits: Logits) -> ScoredStage:
    return ScoredStage(plan, np.array([[logits[hypothesis] for hypothesis in plan.hypotheses]], np.float32))


def decided(schema: LabelSchema, logits: Logits) -> tuple[Prediction, list[tuple[str, ...]]]:
    """The prediction, and the hypotheses of each stage that was scored."""
    plan: PairPlan | None = plan_pairs(Request("id", "text"), schema, 100)
    stages: list[ScoredStage] = []
    while plan is not None:
        stages.append(scored(plan, logits))
        plan = next_stage(stages, MODEL)
    return decide(stages, TokenSpan(5, 0), MODEL), [stage.plan.hypotheses for stage in stages]


def scores(prediction: Prediction) -> dict[str, float]:
    return {each.label: each.score for each in prediction.scores}


def near(expected: Mapping[str, float]) -> object:
    return pytest.approx(dict(expected), abs=1e-6)


DOWN_TO_THE_CHARGER: Logits = {
    "electronics": [LN3, 0.0],  # 3/4 of the roots
    "home": [0.0, 0.0],
    "phone": [LN2, 0.0],  # 2/3 of its siblings
    "l": [0.0, 0.0],
    "case": [0.0, 0.0],  # 1/4
    "charger": [LN3, 0.0],  # 3/4
}


def test_siblings_share_one_and_a_score_is_the_product_along_its_path() -> None:
    prediction, stages = decided(schema_of(TREE), DOWN_TO_THE_CHARGER)
    assert [("electronics", "home"), ("phone", "l"), ("case", "charger")] == stages
    expected = {
        "electronics": 3 / 4,
        "phone": 3 / 4 * 2 / 3,
        "charger": 3 / 4 * 2 / 3 * 3 / 4,
        "home": 1 / 4,
        "l": 3 / 4 * 1 / 3,
        "case": 3 / 4 * 2 / 3 * 1 / 4,
    }
    assert near(expected) == scores(prediction)
    assert ("charger", ("charger",)) == (prediction.label, prediction.selected)
    paths = {each.label: each.path for each in prediction.scores if each.path is not None}
    assert {"charger": ("electronics", "phone", "charger")} == paths


def test_what_lies_below_other_labels_costs_nothing_and_is_counted_as_left_out() -> None:
    prediction, _ = decided(schema_of(TREE), DOWN_TO_THE_CHARGER)
    assert PairCounts(scored=6, skipped=1) == prediction.pairs  # "lamp"
    assert "lamp" not in scores(prediction)


def test_an_only_child_is_judged_against_its_contradiction() -> None:
    logits = {"electronics": [0.0, 0.0], "home": [LN3, 0.0], "lamp": [0.5, 0.5 - LN2]}
    prediction, stages = decided(schema_of(TREE), logits)
    assert [("electronics", "home"), ("lamp",)] == stages
    assert near({"home": 3 / 4, "lamp": 3 / 4 * 2 / 3, "electronics": 1 / 4}) == scores(prediction)
    assert "lamp" == prediction.label


def test_a_decision_stops_above_siblings_of_which_none_is_likely_enough() -> None:
    logits = {**DOWN_TO_THE_CHARGER, "phone": [LN2, 0.0]}  # 2/3 of its siblings
    at_the_bound, _ = decided(schema_of(TREE, hierarchy={"open_above": 0.66}), logits)
    above, stages = decided(schema_of(TREE, hierarchy={"open_above": 0.67}), logits)
    assert "charger" == at_the_bound.label
    assert ("electronics", ("electronics",)) == (above.label, above.selected)
    assert [("electronics", "home"), ("phone", "l")] == stages
    # What was scored on the way is told.
    assert near({"electronics": 3 / 4, "phone": 1 / 2, "l": 1 / 4, "home": 1 / 4}) == scores(above)


def test_the_bound_is_met_at_equality_and_its_default_is_a_fifth() -> None:
    five: list[JsonValue] = [{"name": "a", "children": ["1", "2", "3", "4", "5"]}, "b"]
    six: list[JsonValue] = [{"name": "a", "children": ["1", "2", "3", "4", "5", "6"]}, "b"]
    logits: Logits = {"a": [9.0, 0.0], "b": [0.0, 0.0], **{str(n): [0.0, 0.0] for n in range(1, 7)}}
    assert "1" == decided(schema_of(five), logits)[0].label
    assert "a" == decided(schema_of(six), logits)[0].label


def test_no_root_that_is_likely_enough_is_an_abstention() -> None:
    schema = schema_of([*TREE, "garden"], hierarchy={"open_above": 0.5}, abstain={"label": "other"})
    logits = {"electronics": [0.1, 0.0], "home": [0.0, 0.0], "garden": [0.0, 0.0]}
    prediction, stages = decided(schema, logits)
    assert ("other", ()) == (prediction.label, prediction.selected)
    assert [("electronics", "home", "garden")] == stages


def test_a_threshold_is_compared_with_the_product_and_stops_the_way_down() -> None:
    def with_threshold(threshold: float) -> LabelSchema:
        child: JsonValue = {"name": "phone", "threshold": threshold, "children": ["case", "charger"]}
        return schema_of([{"name": "electronics", "children": [child, "l"]}, "home"])

    # The product of phone is 3/4 * 2/3 = 1/2, its share among its siblings 2/3.
    assert "charger" == decided(with_threshold(0.49), DOWN_TO_THE_CHARGER)[0].label
    stopped, stages = decided(with_threshold(0.51), DOWN_TO_THE_CHARGER)
    assert "electronics" == stopped.label
    assert 2 == len(stages)


def test_a_root_below_its_threshold_abstains_and_the_runner_up_is_not_promoted() -> None:
    schema = schema_of([{"name": "electronics", "threshold": 0.8, "children": ["phone"]}, "home"])
    prediction, stages = decided(schema, DOWN_TO_THE_CHARGER)
    assert (None, ()) == (prediction.label, prediction.selected)
    assert 1 == len(stages)


@pytest.mark.parametrize(
    ("abstain", "label"),
    [
        ({"below": 0.37}, "charger"),  # the product is 3/8
        ({"below": 0.38, "label": "other"}, "other"),
        ({"margin": 0.49}, "charger"),  # 3/4 - 1/4 among the siblings of the last step
        ({"margin": 0.51, "label": "other"}, "other"),
    ],
)
def test_abstain_compares_the_product_with_below_and_the_last_siblings_with_margin(
    abstain: dict[str, JsonValue], label: str
) -> None:
    assert label == decided(schema_of(TREE, abstain=abstain), DOWN_TO_THE_CHARGER)[0].label


def test_the_margin_is_that_of_the_step_that_led_to_the_winner_and_not_of_one_that_was_not_taken() -> None:
    level = {**DOWN_TO_THE_CHARGER, "case": [LN3, 0.0]}  # case and charger share alike: below the bound
    schema = schema_of(TREE, hierarchy={"open_above": 0.6}, abstain={"margin": 0.3})
    assert "phone" == decided(schema, level)[0].label  # 2/3 - 1/3


def test_an_only_child_has_no_margin() -> None:
    logits = {"electronics": [0.0, 0.0], "home": [LN3, 0.0], "lamp": [0.5, 0.5 - LN2]}
    assert "lamp" == decided(schema_of(TREE, abstain={"margin": 0.9}), logits)[0].label


def test_in_multi_mode_every_label_is_scored_and_ancestors_of_the_selected_are_selected() -> None:
    parent: JsonValue = {
        "name": "electronics",
        "threshold": 0.9,
        "children": [{"name": "phone", "threshold": 0.5}, "l"],
    }
    schema = schema_of([parent, "home"], multi_label=True)
    logits = {"electronics": [LN3, 0.0], "phone": [LN3, 0.0], "l": [0.0, LN3], "home": [0.0, LN2]}
    prediction, stages = decided(schema, logits)
    assert [("electronics", "phone", "l", "home")] == stages
    expected = {"electronics": 3 / 4, "phone": 9 / 16, "l": 3 / 16, "home": 1 / 3}
    assert near(expected) == scores(prediction)
    assert (None, ("electronics", "phone")) == (prediction.label, prediction.selected)
    paths = {each.label: each.path for each in prediction.scores if each.path is not None}
    assert {"electronics": ("electronics",), "phone": ("electronics", "phone")} == paths
    assert PairCounts(scored=4) == prediction.pairs


def test_calibration_is_by_name_at_any_depth() -> None:
    calibration: JsonValue = {"model": DIGEST, "temperature": 2.0, "bias": {"lamp": 0.25}}
    logits = {"electronics": [0.0, 0.0], "home": [2 * LN3, 0.0], "lamp": [1.0, 0.0]}
    prediction, _ = decided(schema_of(TREE, calibration=calibration), logits)
    lamp = 1 / (1 + math.exp(-(1.0 / 2.0 + 0.25)))
    assert near({"home": 3 / 4, "lamp": 3 / 4 * lamp, "electronics": 1 / 4}) == scores(prediction)
    assert prediction.calibrated


def test_the_spread_of_templates_is_the_largest_of_all_stages() -> None:
    schema = schema_of([{"name": "a", "children": ["b", "c"]}, "d"], hypothesis_templates=["1{}", "2{}"])
    logits = {"1a": [LN3, 0.0], "2a": [LN3, 0.0], "1d": [0.0, 0.0], "2d": [0.0, 0.0]}
    below = {"1b": [LN3, 0.0], "2b": [0.0, 0.0], "1c": [0.0, 0.0], "2c": [0.0, 0.0]}
    prediction, _ = decided(schema, {**logits, **below})
    assert pytest.approx(3 / 4 - 1 / 2, abs=1e-6) == prediction.template_spread


def test_selected_labels_are_listed_beyond_top_k() -> None:
    prediction, _ = decided(schema_of(TREE, top_k=1), DOWN_TO_THE_CHARGER)
    assert ["electronics", "charger"] == list(scores(prediction))
