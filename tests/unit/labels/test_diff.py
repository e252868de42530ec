"""A difference is told in labels, thresholds and templates."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.labels.diff import differences
from worker.types import JsonValue


def document(*labels: JsonValue, **more: JsonValue) -> dict[str, Any]:
    return {"name": "kinds", "version": 1, "labels": list(labels), **more}


def told(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [str(each) for each in differences(before, after)]


def test_each_kind_of_change_is_one_line() -> None:
    before = document(
        {"name": "bug"},
        {"name": "billing", "threshold": 0.5, "children": [{"name": "refund"}]},
        hypothesis_templates=["About {}.", "On {}."],
        abstain={"below": 0.2},
    )
    after = document(
        {"name": "billing", "threshold": 0.6, "children": [{"name": "invoice", "description": "a bill"}]},
        {"name": "bug", "description": "a defect"},
        {"name": "praise"},
        hypothesis_templates=["About {}.", "It is {}."],
        multi_label=True,
    )
    assert [
        "~ mode: single -> multi",
        "- template: On {}.",
        "+ template: It is {}.",
        "- label billing / refund",
        "~ threshold of label billing: 0.5 -> 0.6",
        "+ label billing / invoice: description a bill",
        "~ description of label bug: none -> a defect",
        "+ label praise",
        "~ order of the labels: ties go to the first",
        "~ abstain.below: 0.2 -> none",
    ] == told(before, after)


def test_a_label_that_has_another_parent_is_told_to_have_moved() -> None:
    refund: JsonValue = {"name": "refund", "children": [{"name": "late"}]}
    before = document({"name": "billing", "children": [refund, {"name": "invoice"}]}, {"name": "payments"})
    after = document(
        {"name": "billing"},
        {"name": "payments", "children": [{"name": "refund", "threshold": 0.4, "children": [{"name": "late"}]}]},
        {"name": "invoice"},
    )
    assert [
        "~ label refund: moved from billing to payments",
        "~ threshold of label payments / refund: none -> 0.4",
        "~ label invoice: moved from billing to the top",
    ] == told(before, after)


def test_the_order_is_told_of_those_who_keep_their_parent_only() -> None:
    def below(*names: str) -> dict[str, Any]:
        return document({"name": "x", "children": [{"name": name} for name in names]}, {"name": "y"})

    assert ["~ order of the labels below x: ties go to the first"] == told(below("a", "b"), below("b", "a"))
    assert ["+ label x / c"] == told(below("a", "b"), below("c", "a", "b"))


def test_saying_what_is_the_default_is_no_difference() -> None:
    said = document(
        {"name": "bug", "threshold": 0.5, "description": None, "children": []},
        multi_label=True,
        hypothesis_templates=["This example is {}."],
        hierarchy={"open_above": 0.2},
        long_text={"strategy": "truncate"},
        abstain={},
        top_k=None,
    )
    assert [] == told(document({"name": "bug"}, multi_label=True), said)
    windows: JsonValue = {"strategy": "windows", "overlap_tokens": 32, "aggregate": "max"}
    before = document({"name": "bug"}, long_text={"strategy": "windows"})
    assert [] == told(before, document({"name": "bug"}, long_text=windows))


def test_a_value_that_differs_from_its_default_is_told_beside_it() -> None:
    before = document({"name": "bug"}, multi_label=True)
    model = "sha256:" + "0" * 64
    after = document(
        {"name": "bug", "threshold": 0.6},
        multi_label=True,
        hypothesis_templates=["It is {}."],
        top_k=3,
        hierarchy={"open_above": 0.4},
        long_text={"strategy": "windows", "overlap_tokens": 16},
        calibration={"model": model, "temperature": 1.5, "bias": {"bug": -0.2}},
    )
    assert [
        "- template: This example is {}.",
        "+ template: It is {}.",
        "~ threshold of label bug: 0.5 (default) -> 0.6",
        "~ bias of label bug: none -> -0.2",
        f"~ calibration.model: none -> {model}",
        "~ calibration.temperature: 1.0 (default) -> 1.5",
        "~ hierarchy.open_above: 0.2 (default) -> 0.4",
        "~ long_text.overlap_tokens: 32 (default) -> 16",
        "~ long_text.strategy: truncate (default) -> windows",
        "~ top_k: none -> 3",
    ] == told(before, after)
    assert "~ hierarchy.open_above: 0.4 -> 0.2 (default)" in told(after, before)


def test_of_a_first_version_only_what_it_says_is_told() -> None:
    assert ["+ label bug: threshold 0.2", "~ top_k: none -> 3"] == told(
        {}, document({"name": "bug", "threshold": 0.2}, top_k=3)
    )


def test_documents_that_are_refused_are_compared_as_far_as_they_can_be_read() -> None:
    twice = document({"name": "a", "children": [{"name": "a"}]}, "b", labels=5, abstain="x", tok_k=3)
    assert ["~ abstain: x -> none"] == [line for line in told(twice, document({"name": "a"})) if "abstain: " in line]
    nested = document({"name": "a", "children": [{"name": "a"}]})
    assert ["- label a / a"] == told(nested, document({"name": "a"}))


def test_the_version_is_no_difference() -> None:
    assert [] == told(document({"name": "bug"}), {**document({"name": "bug"}), "version": 2})


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, min_size=1)


@given(NAMES, NAMES)
def test_labels_that_come_and_go_are_all_named(old: list[str], new: list[str]) -> None:
    labels: list[list[JsonValue]] = [[{"name": name} for name in names] for names in (old, new)]
    found = differences(document(*labels[0]), document(*labels[1]))
    assert {f"label {name}" for name in set(old) - set(new)} == {d.subject for d in found if d.change == "removed"}
    assert {f"label {name}" for name in set(new) - set(old)} == {d.subject for d in found if d.change == "added"}
    kept = [[name for name in names if name in set(old) & set(new)] for names in (old, new)]
    assert (kept[0] != kept[1]) == any(d.change == "moved" for d in found)
