"""Label drift: the index by hand, its windows, and what bounds its memory."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from worker.observability.drift import MOST_VERSIONS, NAMED_CLASSES, RECENT, REFERENCE, LabelDrift, stability_index

counts = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=20)


@pytest.fixture
def drift() -> LabelDrift:
    return LabelDrift("drift", "Text.", CollectorRegistry())


def values(drift: LabelDrift) -> dict[tuple[str, str], float]:
    (family,) = drift.collect()
    return {(sample.labels["name"], sample.labels["version"]): sample.value for sample in family.samples}


def note(drift: LabelDrift, times: int, *selected: str, version: int = 1) -> None:
    for _ in range(times):
        drift.note("kinds", version, selected)


def test_the_index_is_that_of_the_formula() -> None:
    first, later = (60.5 / 101, 40.5 / 101), (30.5 / 101, 70.5 / 101)
    expected = sum((q - p) * math.log(q / p) for p, q in zip(first, later, strict=True))
    assert expected == pytest.approx(stability_index([60, 40], [30, 70]))
    # -0.3 * ln(0.5) + 0.3 * ln(1.75), where half an observation weighs nothing.
    assert 0.2079 + 0.1679 == pytest.approx(stability_index([600_000, 400_000], [300_000, 700_000]), abs=1e-4)


@given(counts)
def test_the_index_is_never_negative_and_does_not_care_which_came_first(pairs: list[tuple[int, int]]) -> None:
    first, later = [a for a, _ in pairs], [b for _, b in pairs]
    index = stability_index(first, later)
    assert index >= 0
    assert index == pytest.approx(stability_index(later, first))


def test_what_comes_as_before_does_not_drift(drift: LabelDrift) -> None:
    for _ in range(REFERENCE // 2):
        note(drift, 1, "a")
        note(drift, 1, "b")
    for _ in range(RECENT // 2):
        note(drift, 1, "b")
        note(drift, 1, "a")
    assert {("kinds", "1"): 0.0} == values(drift)


def test_there_is_no_value_before_both_windows_are_full(drift: LabelDrift) -> None:
    note(drift, REFERENCE + RECENT - 1, "a")
    assert {} == values(drift)
    note(drift, 1, "a")
    assert {("kinds", "1"): 0.0} == values(drift)


def test_only_the_latest_are_compared_with_the_first(drift: LabelDrift) -> None:
    note(drift, REFERENCE, "a")
    note(drift, 5 * RECENT, "b")
    assert values(drift)["kinds", "1"] > 1
    note(drift, RECENT, "a")
    assert {("kinds", "1"): 0.0} == values(drift)


def test_a_worker_that_begins_to_abstain_drifts(drift: LabelDrift) -> None:
    note(drift, REFERENCE, "a")
    note(drift, RECENT // 2, "a")
    note(drift, RECENT // 2)
    assert values(drift)["kinds", "1"] > 0.25


def test_a_label_that_was_never_seen_before_is_drift(drift: LabelDrift) -> None:
    note(drift, REFERENCE, "a")
    note(drift, RECENT, "new")
    assert values(drift)["kinds", "1"] > 0.25


def test_each_of_several_labels_counts(drift: LabelDrift) -> None:
    note(drift, REFERENCE, "a", "b")
    note(drift, RECENT // 2, "a", "b")
    note(drift, RECENT // 2, "a")
    assert stability_index([REFERENCE, REFERENCE], [RECENT, RECENT // 2]) == pytest.approx(values(drift)["kinds", "1"])


def test_chance_alone_stays_far_below_what_is_looked_at(drift: LabelDrift) -> None:
    chance = random.Random(7)
    for _ in range(REFERENCE + RECENT):
        note(drift, 1, f"label {chance.randrange(1000)}")
    assert values(drift)["kinds", "1"] < 0.1
    chance = random.Random(8)
    for _ in range(REFERENCE + RECENT):
        note(drift, 1, f"label {chance.randrange(NAMED_CLASSES + 2)}", version=2)
    assert values(drift)["kinds", "2"] < 0.1


def test_label_sets_of_single_messages_are_left_out(drift: LabelDrift) -> None:
    for _ in range(REFERENCE + RECENT):
        drift.note("inline", 0, ("whatever a user wrote",))
    assert {} == values(drift)
    assert 0 == len(drift._versions)


def test_the_versions_that_are_kept_are_those_used_last(drift: LabelDrift) -> None:
    note(drift, REFERENCE + RECENT, "a")
    for version in range(2, MOST_VERSIONS + 1):
        note(drift, 1, "a", version=version)
    note(drift, 1, "a")
    note(drift, 1, "a", version=99)
    assert MOST_VERSIONS == len(drift._versions)
    assert {("kinds", "1"): 0.0} == values(drift)
    for version in range(100, 100 + MOST_VERSIONS):
        note(drift, 1, "a", version=version)
    assert {} == values(drift)


def test_what_is_kept_of_a_version_does_not_grow(drift: LabelDrift) -> None:
    labels = [f"label {number}" for number in range(1000)]
    note(drift, REFERENCE, *labels)
    note(drift, 2 * RECENT, *labels[:3])
    (kept,) = drift._versions.values()
    assert (0, RECENT) == (len(kept._first), len(kept._recent))
    assert NAMED_CLASSES + 1 == len(kept._class_of)
