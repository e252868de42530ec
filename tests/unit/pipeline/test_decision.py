"""Decisions from logits, against arithmetic done by hand."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from worker.labels.schema import parse_schema
from worker.pipeline.decision import decide
from worker.pipeline.evidence import ModelView, ScoredStage
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.types import JsonValue, NliHead, PairCounts, Prediction, Request, TokenSpan

DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
TWO = ModelView(NliHead(classes=2, entailment=0, contradiction=1), DIGEST)
TWO_REVERSED = ModelView(NliHead(classes=2, entailment=1, contradiction=0), DIGEST)
THREE = ModelView(NliHead(classes=3, entailment=2, contradiction=0), DIGEST)
HALF = math.log(2.0)  # of two labels, one that leads by ln 2 has 2/3; sigmoid(ln 2) is 2/3 too

Rows = Sequence[Sequence[float]]
Labels = Sequence[str | Mapping[str, JsonValue]]


def plan(labels: Labels, **document: JsonValue) -> PairPlan:
    each: list[JsonValue] = [{"name": label} if isinstance(label, str) else dict(label) for label in labels]
    schema = parse_schema({"name": "a", "version": 1, "labels": each, **document}, "test")
    return plan_pairs(Request("id", "text"), schema, 100)


def decided(pairs: PairPlan, rows: Rows, model: ModelView = TWO) -> Prediction:
    return decide([ScoredStage(pairs, np.array([rows], np.float32))], TokenSpan(5, 2), model)


def scores(prediction: Prediction) -> dict[str, float]:
    return {each.label: each.score for each in prediction.scores}


def near(expected: Mapping[str, float]) -> object:
    return pytest.approx(dict(expected), abs=1e-6)


class TestSingle:
    def test_scores_are_a_softmax_of_the_entailment_logits(self) -> None:
        prediction = decided(plan("abc"), [[1.0, 9.0], [3.0, -9.0], [2.0, 0.0]])
        total = math.exp(1.0) + math.exp(3.0) + math.exp(2.0)
        expected = {"b": math.exp(3.0) / total, "c": math.exp(2.0) / total, "a": math.exp(1.0) / total}
        assert near(expected) == scores(prediction)
        assert ["b", "c", "a"] == list(scores(prediction))
        assert ("single", "b", ("b",)) == (prediction.mode, prediction.label, prediction.selected)

    def test_the_entailment_column_is_the_one_the_head_names(self) -> None:
        rows = [[5.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]]
        labels = [
            decided(plan("abc"), rows, ModelView(NliHead(3, index, (index + 1) % 3), DIGEST)).label
            for index in range(3)
        ]
        assert ["a", "b", "c"] == labels

    @pytest.mark.parametrize(
        ("model", "row"), [(TWO, [2.0, 0.5]), (TWO_REVERSED, [0.5, 2.0]), (THREE, [0.5, 7.0, 2.0])]
    )
    def test_one_label_is_judged_against_its_contradiction(self, model: ModelView, row: list[float]) -> None:
        prediction = decided(plan("a"), [row], model)
        assert near({"a": 1.0 / (1.0 + math.exp(-(2.0 - 0.5)))}) == scores(prediction)
        assert ("single", "a", ("a",)) == (prediction.mode, prediction.label, prediction.selected)

    def test_a_winner_below_its_own_threshold_abstains_and_the_runner_up_is_not_promoted(self) -> None:
        labels: Labels = [{"name": "a", "threshold": 0.7}, {"name": "b", "threshold": 0.1}]
        prediction = decided(plan(labels), [[HALF, 0.0], [0.0, 0.0]])  # 2/3 and 1/3
        assert (None, ()) == (prediction.label, prediction.selected)
        assert near({"a": 2 / 3, "b": 1 / 3}) == scores(prediction)

    def test_the_threshold_of_a_loser_does_not_matter(self) -> None:
        assert "a" == decided(plan(["a", {"name": "b", "threshold": 0.9}]), [[HALF, 0.0], [0.0, 0.0]]).label

    def test_without_thresholds_the_best_label_wins_however_low(self) -> None:
        many = [f"l{number}" for number in range(30)]
        prediction = decided(plan(many), [[0.0, 9.0]] * 29 + [[0.1, 9.0]])
        assert "l29" == prediction.label
        assert scores(prediction)["l29"] < 0.04

    def test_ties_go_to_the_label_listed_first(self) -> None:
        assert ["c", "a", "b"] == list(scores(decided(plan("cab"), [[1.0, 0.0]] * 3)))
        assert "c" == decided(plan("cab"), [[1.0, 0.0]] * 3).label

    @pytest.mark.parametrize(
        ("abstain", "label", "selected"),
        [
            ({"below": 0.5}, "a", ("a",)),
            ({"below": 0.51, "label": "other"}, "other", ()),
            ({"below": 0.51}, None, ()),
            ({"margin": 0.0, "label": "other"}, "a", ("a",)),
            ({"margin": 0.01, "label": "other"}, "other", ()),
            ({"below": 0.4, "margin": 0.01}, None, ()),
        ],
    )
    def test_two_equal_labels_abstain_only_where_the_bound_is_higher(
        self, abstain: dict[str, JsonValue], label: str | None, selected: tuple[str, ...]
    ) -> None:
        """Both score exactly 0.5: `below` and `margin` are met at equality."""
        prediction = decided(plan("ab", abstain=abstain), [[1.0, 0.0], [1.0, 0.0]])
        assert (label, selected) == (prediction.label, prediction.selected)
        assert {"a": 0.5, "b": 0.5} == scores(prediction)

    def test_a_margin_is_the_distance_of_the_best_two(self) -> None:
        rows = [[HALF, 0.0], [0.0, 0.0]]  # 2/3 and 1/3
        assert "a" == decided(plan("ab", abstain={"margin": 0.33}), rows).label
        assert None is decided(plan("ab", abstain={"margin": 0.34}), rows).label

    def test_a_margin_means_nothing_to_a_single_label(self) -> None:
        assert "a" == decided(plan("a", abstain={"margin": 1.0}), [[0.0, 0.0]]).label

    def test_a_winner_over_the_general_bound_still_abstains_below_its_own_threshold(self) -> None:
        labels: Labels = [{"name": "a", "threshold": 0.7}, {"name": "b"}]
        prediction = decided(plan(labels, abstain={"below": 0.5, "label": "other"}), [[HALF, 0.0], [0.0, 0.0]])
        assert ("other", ()) == (prediction.label, prediction.selected)

    def test_a_threshold_is_met_at_equality(self) -> None:
        assert "a" == decided(plan([{"name": "a", "threshold": 0.5}, "b"]), [[1.0, 0.0], [1.0, 0.0]]).label


class TestMulti:
    def test_each_label_is_a_softmax_of_entailment_and_contradiction(self) -> None:
        rows = [[-3.0, 50.0, 1.0], [2.0, 50.0, -1.0]]  # contradiction, neutral, entailment
        prediction = decided(plan("ab", multi_label=True), rows, THREE)
        expected = {
            "a": math.exp(1.0) / (math.exp(1.0) + math.exp(-3.0)),
            "b": math.exp(-1.0) / (math.exp(-1.0) + math.exp(2.0)),
        }
        assert near(expected) == scores(prediction)
        assert ("multi", None, ("a",)) == (prediction.mode, prediction.label, prediction.selected)

    def test_two_classes_are_entailment_and_not_entailment(self) -> None:
        prediction = decided(plan("ab", multi_label=True), [[1.5, -0.5], [0.0, 1.0]])
        assert near({"a": 1 / (1 + math.exp(-2.0)), "b": 1 / (1 + math.exp(1.0))}) == scores(prediction)

    def test_a_negative_hypothesis_replaces_the_contradiction(self) -> None:
        labels: Labels = [{"name": "a", "hypothesis": "It broke.", "negative": "It works."}, {"name": "b"}]
        # Pairs: "It broke.", "It works.", and the template filled with b.
        prediction = decided(plan(labels, multi_label=True), [[1.0, 9.0], [0.25, 9.0], [1.0, 3.0]])
        assert near({"a": 1 / (1 + math.exp(-0.75)), "b": 1 / (1 + math.exp(2.0))}) == scores(prediction)

    def test_a_negative_hypothesis_is_compared_with_the_average_of_the_templates(self) -> None:
        labels: Labels = [{"name": "a", "negative": "It is not a."}]
        two = plan(labels, multi_label=True, hypothesis_templates=["It is {}.", "About {}."])
        prediction = decided(two, [[1.0, 9.0], [3.0, 9.0], [0.5, 9.0]])
        assert near({"a": 1 / (1 + math.exp(-((1.0 + 3.0) / 2 - 0.5)))}) == scores(prediction)

    def test_a_label_is_selected_from_one_half_on_unless_it_has_its_own_threshold(self) -> None:
        labels: Labels = ["half", "under", {"name": "high", "threshold": 0.8}, {"name": "low", "threshold": 0.3}]
        rows = [[1.0, 1.0], [0.99, 1.0], [HALF, 0.0], [0.0, HALF]]  # 1/2, less, 2/3, 1/3
        prediction = decided(plan(labels, multi_label=True), rows)
        assert ("half", "low") == prediction.selected
        assert None is prediction.label

    def test_selected_labels_come_by_falling_score_and_ties_in_their_order(self) -> None:
        rows = [[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]
        assert ("b", "c", "a") == decided(plan("cba", multi_label=True), rows).selected

    def test_no_label_is_selected_where_none_is_likely(self) -> None:
        assert () == decided(plan("ab", multi_label=True), [[0.0, 2.0], [0.0, 1.0]]).selected


class TestTemplates:
    def test_the_logits_of_templates_are_averaged_and_their_spread_is_told(self) -> None:
        two = plan("ab", hypothesis_templates=["It is {}.", "About {}."])
        # Pairs in the order of labels: a by both templates, then b by both.
        prediction = decided(two, [[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        mean_a, mean_b = (3.0 + 1.0) / 2, (0.0 + 1.0) / 2
        a = math.exp(mean_a) / (math.exp(mean_a) + math.exp(mean_b))
        assert near({"a": a, "b": 1 - a}) == scores(prediction)
        by_first, by_second = 1 / (1 + math.exp(-(3.0 - 0.0))), 1 / (1 + math.exp(-(1.0 - 1.0)))
        assert pytest.approx(by_first - by_second, abs=1e-6) == prediction.template_spread
        assert PairCounts(scored=4) == prediction.pairs

    def test_a_whole_hypothesis_counts_once_and_as_it_is_under_every_template(self) -> None:
        labels: Labels = ["a", {"name": "b", "hypothesis": "It broke."}]
        two = plan(labels, hypothesis_templates=["It is {}.", "About {}."])
        prediction = decided(two, [[3.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        assert near({"a": 1 / (1 + math.exp(-1.0)), "b": 1 / (1 + math.exp(1.0))}) == scores(prediction)
        assert pytest.approx(1 / (1 + math.exp(-2.0)) - 0.5, abs=1e-6) == prediction.template_spread

    def test_the_spread_of_several_labels_is_the_largest(self) -> None:
        two = plan("ab", multi_label=True, hypothesis_templates=["It is {}.", "About {}."])
        prediction = decided(two, [[0.0, 0.0], [0.1, 0.0], [HALF, 0.0], [0.0, HALF]])  # b: 2/3 and 1/3
        assert pytest.approx(1 / 3, abs=1e-6) == prediction.template_spread

    def test_one_template_has_no_spread(self) -> None:
        assert None is decided(plan("ab"), [[3.0, 0.0], [1.0, 0.0]]).template_spread


class TestCalibration:
    @staticmethod
    def calibration(model: str = DIGEST) -> dict[str, JsonValue]:
        return {"model": model, "temperature": 2.0, "bias": {"b": -0.5}}

    def test_temperature_divides_and_bias_is_added_before_the_softmax(self) -> None:
        prediction = decided(plan("ab", calibration=self.calibration()), [[3.0, 0.0], [2.0, 0.0]])
        a, b = 3.0 / 2.0, 2.0 / 2.0 - 0.5
        assert near({"a": 1 / (1 + math.exp(-(a - b))), "b": 1 / (1 + math.exp(a - b))}) == scores(prediction)
        assert prediction.calibrated

    def test_temperature_divides_and_bias_is_added_before_the_sigmoid(self) -> None:
        prediction = decided(plan("ab", calibration=self.calibration(), multi_label=True), [[3.0, -1.0], [2.0, 1.0]])
        a, b = (3.0 + 1.0) / 2.0, (2.0 - 1.0) / 2.0 - 0.5
        assert near({"a": 1 / (1 + math.exp(-a)), "b": 1 / (1 + math.exp(-b))}) == scores(prediction)

    def test_under_another_model_it_is_ignored_and_not_claimed(self) -> None:
        rows = [[3.0, 0.0], [2.0, 0.0]]
        prediction = decided(plan("ab", calibration=self.calibration(OTHER_DIGEST)), rows)
        assert decided(plan("ab"), rows) == prediction
        assert not prediction.calibrated

    def test_the_spread_is_of_calibrated_scores(self) -> None:
        two = plan("ab", calibration=self.calibration(), hypothesis_templates=["It is {}.", "About {}."])
        prediction = decided(two, [[3.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        by_first, by_second = 1 / (1 + math.exp(-(1.5 + 0.5))), 1 / (1 + math.exp(-(0.5 - 0.5 + 0.5)))
        assert pytest.approx(by_first - by_second, abs=1e-6) == prediction.template_spread


class TestListing:
    def test_top_k_lists_the_best_only(self) -> None:
        assert ["c", "b"] == list(scores(decided(plan("abc", top_k=2), [[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])))

    def test_selected_labels_are_listed_beyond_top_k(self) -> None:
        rows = [[1.0, 0.0], [3.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]
        prediction = decided(plan("abcd", multi_label=True, top_k=1), rows)
        assert ("b", "c", "a") == prediction.selected
        assert ["b", "c", "a"] == list(scores(prediction))

    def test_a_selected_label_below_others_that_are_not_is_listed_with_the_best(self) -> None:
        labels: Labels = [
            {"name": "a", "threshold": 0.9},
            {"name": "b", "threshold": 0.9},
            {"name": "c", "threshold": 0.1},
        ]
        prediction = decided(plan(labels, multi_label=True, top_k=1), [[1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])
        assert ("c",) == prediction.selected
        assert ["a", "c"] == list(scores(prediction))

    def test_what_was_cut_and_what_it_cost_is_told(self) -> None:
        shared = [{"name": "a", "hypothesis": "It broke."}, {"name": "b", "hypothesis": "It broke."}]
        prediction = decided(plan(shared), [[1.0, 0.0]])
        assert (TokenSpan(5, 2), PairCounts(scored=1)) == (prediction.text, prediction.pairs)
        assert {"a": 0.5, "b": 0.5} == scores(prediction)


class TestExtremes:
    @pytest.mark.parametrize("multi_label", [False, True])
    @pytest.mark.parametrize("logit", [1e4, -1e4])
    def test_extreme_logits_give_scores_between_0_and_1(self, logit: float, multi_label: bool) -> None:
        prediction = decided(plan("abc", multi_label=multi_label), [[logit, -logit], [-logit, logit], [logit, logit]])
        expected = [1.0, 0.5, 0.0] if multi_label else [0.5, 0.5, 0.0] if logit > 0 else [1.0, 0.0, 0.0]
        assert expected == [each.score for each in prediction.scores]

    @pytest.mark.parametrize("multi_label", [False, True])
    @pytest.mark.parametrize(
        "calibration",
        [
            {"temperature": 5e-324},
            {"bias": {"a": 1.7e308, "b": -1.7e308}},
            {"temperature": 1e-300, "bias": {"a": -1e308}},
        ],
    )
    def test_the_most_extreme_calibration_gives_scores_between_0_and_1(
        self, calibration: dict[str, JsonValue], multi_label: bool
    ) -> None:
        calibrated = plan("abc", multi_label=multi_label, calibration={"model": DIGEST, **calibration})
        prediction = decided(calibrated, [[1e4, 0.0], [1e4, 0.0], [-1e4, 0.0]])
        assert all(0.0 <= each.score <= 1.0 for each in prediction.scores)


class TestWindows:
    """Two windows of a text, each with every hypothesis."""

    @staticmethod
    def decided(pairs: PairPlan, windows: Sequence[Rows]) -> Prediction:
        return decide([ScoredStage(pairs, np.array(windows, np.float32))], TokenSpan(9, 0, len(windows)), TWO)

    def test_the_best_window_counts_label_by_label(self) -> None:
        single = plan("ab", long_text={"strategy": "windows"})
        prediction = self.decided(single, [[[3.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]])
        assert near({"a": 1 / (1 + math.exp(-1.0)), "b": 1 / (1 + math.exp(1.0))}) == scores(prediction)  # 3 and 2
        assert (TokenSpan(9, 0, 2), PairCounts(scored=4)) == (prediction.text, prediction.pairs)

    def test_the_mean_of_the_windows_counts_where_that_is_asked_for(self) -> None:
        mean = plan("ab", long_text={"strategy": "windows", "aggregate": "mean"})
        prediction = self.decided(mean, [[[3.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [2.5, 0.0]]])
        difference = (3.0 + 1.0) / 2 - (0.0 + 2.5) / 2
        assert near({"a": 1 / (1 + math.exp(-difference)), "b": 1 / (1 + math.exp(difference))}) == scores(prediction)

    def test_windows_are_compared_by_evidence_and_not_by_entailment(self) -> None:
        multi = plan("a", multi_label=True, long_text={"strategy": "windows"})
        prediction = self.decided(multi, [[[3.0, 4.0]], [[1.0, -1.0]]])  # e - c: -1 and 2
        assert near({"a": 1 / (1 + math.exp(-2.0))}) == scores(prediction)

    def test_a_negative_hypothesis_is_taken_off_window_by_window(self) -> None:
        labels: Labels = [{"name": "a", "negative": "It is not a."}]
        multi = plan(labels, multi_label=True, long_text={"strategy": "windows"})
        prediction = self.decided(multi, [[[3.0, 0.0], [2.5, 0.0]], [[1.0, 0.0], [0.25, 0.0]]])  # 0.5 and 0.75
        assert near({"a": 1 / (1 + math.exp(-0.75))}) == scores(prediction)

    def test_templates_are_averaged_before_windows_are_compared(self) -> None:
        two = plan("ab", hypothesis_templates=["It is {}.", "About {}."], long_text={"strategy": "windows"})
        # a by both templates, b by both: means 2 and 0 in the first window, 1.5 and 1 in the second.
        first: Rows = [[4.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        second: Rows = [[1.5, 0.0], [1.5, 0.0], [1.0, 0.0], [1.0, 0.0]]
        prediction = self.decided(two, [first, second])
        assert near({"a": 1 / (1 + math.exp(-1.0)), "b": 1 / (1 + math.exp(1.0))}) == scores(prediction)
        by_first, by_second = 1 / (1 + math.exp(-(4.0 - 1.0))), 1 / (1 + math.exp(-(1.5 - 1.0)))
        assert pytest.approx(by_first - by_second, abs=1e-6) == prediction.template_spread

    def test_calibration_comes_after_the_windows(self) -> None:
        calibration: JsonValue = {"model": DIGEST, "temperature": 2.0, "bias": {"a": -0.5}}
        multi = plan("a", multi_label=True, calibration=calibration, long_text={"strategy": "windows"})
        prediction = self.decided(multi, [[[3.0, 0.0]], [[1.0, 0.0]]])
        assert near({"a": 1 / (1 + math.exp(-(3.0 / 2.0 - 0.5)))}) == scores(prediction)
