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
        "~ abstain: below 0.2 -> none",
    ] == told(before, after)


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
