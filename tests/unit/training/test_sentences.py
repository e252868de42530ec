"""Classes become sentences, sets are mixed by size up to a maximum, texts become balanced pairs."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.training.data import NliRow, Row
from worker.training.folds import folds_of_clusters, folds_of_sets
from worker.training.mixing import mixing_counts, shared_counts
from worker.training.pairs import classification_pairs, nli_pairs, pairs_available
from worker.training.recipe import ClassificationPart
from worker.training.sets import ClassificationSet, Licence, SetTable
from worker.training.verbalize import Verbalized, hypotheses_by_template, verbalize

LICENCE = Licence(name="made up")


def _table(name: str = "x", cluster: str = "y", **more: object) -> ClassificationSet:
    return ClassificationSet.model_validate({"name": name, "cluster": cluster, "licence": LICENCE, **more})


def test_a_class_is_put_into_the_words_of_the_table_or_of_its_own_name() -> None:
    table = _table(
        templates=("It is {}.", "About {}."),
        inverted=("It is not {}.",),
        labels={
            "card_arrival": "a card that is on its way",
            "spam": {"hypothesis": "It is an advertisement.", "negative": "It is no advertisement."},
            "vague": None,
        },
    )

    assert (
        Verbalized(
            "card_arrival",
            ("It is a card that is on its way.", "About a card that is on its way."),
            ("It is not a card that is on its way.",),
        ),
        Verbalized("spam", ("It is an advertisement.",), ("It is no advertisement.",)),
        Verbalized("lost_card", ("It is lost card.", "About lost card."), ("It is not lost card.",)),
    ) == verbalize(table, ["card_arrival", "spam", "vague", "lost_card"])


def test_a_whole_hypothesis_stands_under_every_template() -> None:
    classes = [Verbalized("a", ("a1", "a2"), ()), Verbalized("b", ("b",), ())]

    assert (("a1", "b"), ("a2", "b")) == hypotheses_by_template(classes)


def test_a_set_counts_with_its_size_up_to_the_rate_maximum() -> None:
    assert {"small": 100, "large": 300} == mixing_counts({"small": 100, "large": 9000}, None, 300)
    assert {"small": 250, "large": 750} == mixing_counts({"small": 100, "large": 9000}, 1000, 300)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=1), st.integers(1, 1000))
def test_mixing_counts_sum_to_what_was_asked_for(sizes: dict[str, int], total: int) -> None:
    assert total == sum(mixing_counts(sizes, total, 100).values())


def test_a_group_with_a_share_gets_it_whatever_its_size() -> None:
    groups = {"nli": {"big": 100_000}, "classification": {"a": 100, "b": 300}}

    assert {"big": 500, "a": 125, "b": 375} == shared_counts(groups, 1000, {"nli": 0.5, "classification": None}, None)


ROWS = [Row(f"text {number}", label) for label, count in (("a", 40), ("b", 10), ("c", 4)) for number in range(count)]
CLASSES = [Verbalized(label, (f"is {label}", f"about {label}"), (f"not {label}",)) for label in "abc"]


def test_every_hypothesis_is_as_often_true_as_false() -> None:
    part = ClassificationPart()

    pairs = list(classification_pairs(ROWS, CLASSES, part, pairs_available(len(ROWS), part), seed=3))

    said = Counter((pair.hypothesis.split()[-1], pair.is_entailment) for pair in pairs)
    assert {
        ("a", True): 40,
        ("a", False): 40,
        ("b", True): 10,
        ("b", False): 10,
        ("c", True): 4,
        ("c", False): 4,
    } == said


def test_pairs_repeat_with_the_seed_and_differ_without() -> None:
    part = ClassificationPart(negatives=2.5, hard_negatives=0.5, inverted=0.3)

    first, again, other = (list(classification_pairs(ROWS, CLASSES, part, 300, seed)) for seed in (3, 3, 4))

    assert first == again != other
    assert 300 == len(first)


def test_an_inverted_hypothesis_is_true_of_the_texts_of_other_classes() -> None:
    rows = [Row(f"text of {label} {number}", label) for label in "abc" for number in range(20)]

    pairs = list(classification_pairs(rows, CLASSES, ClassificationPart(inverted=0.5), 120, seed=1))

    denials = [pair for pair in pairs if pair.hypothesis.startswith("not")]
    assert 30 < len(denials) < 90
    for pair in pairs:
        is_of_class = pair.premise.split()[2] == pair.hypothesis.split()[-1]
        assert pair.is_entailment == (is_of_class != pair.hypothesis.startswith("not"))


def test_a_hard_negative_is_a_text_of_a_class_that_uses_the_same_words() -> None:
    words = {"cat": "purr meow fur", "lion": "purr roar fur", "car": "wheel road fuel", "bus": "wheel road seat"}
    words |= {"sea": "wave salt", "sun": "heat light"}
    rows = [Row(f"{text} {number}", label) for label, text in words.items() for number in range(20)]
    classes = [Verbalized(label, (label,), ()) for label in words]

    pairs = list(classification_pairs(rows, classes, ClassificationPart(hard_negatives=1.0), 240, seed=1))

    partners = Counter(pair.premise.split()[0] for pair in pairs if pair.hypothesis == "cat" and not pair.is_entailment)
    assert "purr" in partners
    drawn_blindly = list(classification_pairs(rows, classes, ClassificationPart(), 240, seed=1))
    blind = Counter(p.premise.split()[0] for p in drawn_blindly if p.hypothesis == "cat" and not p.is_entailment)
    assert partners["purr"] > blind["purr"]


def test_a_set_of_one_class_gives_no_pairs() -> None:
    assert [] == list(classification_pairs(ROWS[:40], CLASSES[:1], ClassificationPart(), 10, seed=1))


def test_nli_pairs_start_again_where_more_are_asked_for_than_there_are() -> None:
    rows = [NliRow(f"p{number}", "h", number % 2 == 0) for number in range(3)]

    counts = Counter(pair.premise for pair in nli_pairs(rows, 7, seed=1))

    assert 7 == counts.total()
    assert {2, 3} == set(counts.values())


@pytest.mark.parametrize("folds", [1, 2, 4, 9])
def test_every_set_is_held_out_once_and_a_cluster_never_in_parts(folds: int) -> None:
    names = {"topic": 5, "sentiment": 4, "intent": 2, "spam": 1}
    table = SetTable(
        classification=tuple(_table(f"{cluster}{n}", cluster) for cluster, count in names.items() for n in range(count))
    )

    by_set, by_cluster = folds_of_sets(table, folds), folds_of_clusters(table, folds)

    assert sorted(each.name for each in table.classification) == sorted(name for held in by_set for name in held.sets)
    assert sorted(names) == sorted(name for held in by_cluster for name in held.clusters)
