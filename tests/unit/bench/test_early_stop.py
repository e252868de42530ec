"""The count of what would be left out, and of what that would change."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_openvino import write_tiny_model
from worker.bench.agreement import Case
from worker.bench.early_stop import (
    Scored,
    likely_alone,
    likeness_of,
    main,
    margin_for,
    mean_macro_f1,
    run_until_sure,
    stop_early,
    trust_vectors,
)
from worker.types import NliHead, TokenVectors

LABELS = ("a", "b", "c")


def scored(
    label: str, alone: tuple[float, ...], likeness: tuple[float, ...] = (0.0, 0.0, 0.0), name: str = "set"
) -> Scored:
    """A text of which the likeliest label by itself is the top one."""
    chances = np.array(alone)
    logits = np.log(chances / (1 - chances)).astype(np.float32)
    labels = LABELS[: len(alone)]
    return Scored(Case(name, len(labels), "a text", label, labels), np.array(likeness, np.float32), logits, chances)


def test_a_label_alone_is_weighed_against_its_contradiction() -> None:
    logits = np.array([[2.0, 9.0, 2.0], [3.0, 9.0, 0.0], [-800.0, 0.0, 800.0]], np.float32)
    found = likely_alone(logits, NliHead(classes=3, entailment=0, contradiction=2))
    assert found == pytest.approx([0.5, 1 / (1 + np.exp(-3)), 0.0])


def test_scoring_stops_behind_the_first_label_above_the_threshold() -> None:
    alone = np.array([0.2, 0.96, 0.97])
    assert (2, 1) == run_until_sure(alone, (0, 1, 2), 0.95)
    assert (1, 2) == run_until_sure(alone, (2, 1, 0), 0.95)
    assert (3, None) == run_until_sure(alone, (0, 1, 2), 0.97)


def test_the_label_stopped_at_counts_against_the_full_pass_and_without_one_all_pairs_are_run() -> None:
    texts = [scored("b", (0.92, 0.98, 0.1)), scored("c", (0.1, 0.2, 0.3)), scored("a", (0.95, 0.1, 0.1))]
    found = stop_early(texts, "as listed", 0.9)
    assert (found.stopped, found.pairs_run) == pytest.approx((2 / 3, 5 / 9))
    assert found.other_top_label == pytest.approx(1 / 3)
    # All three are right in the full pass; a wrong a for b leaves F1 2/3 for a, 0 for b and 1 for c.
    assert found.macro_f1_difference == pytest.approx(100 * (2 / 3 + 0 + 1) / 3 - 100)


def test_the_likest_label_is_scored_first_and_of_equals_the_one_listed_first() -> None:
    text = scored("c", (0.1, 0.1, 0.99), (0.3, 0.3, 0.8))
    assert [2, 0, 1] == text.likest_first
    assert (1 / 3, 1.0) == tuple(stop_early([text], order, 0.9).pairs_run for order in ("likest first", "as listed"))


def test_a_margin_lets_through_the_share_it_was_chosen_for_and_no_more_where_leads_are_equal() -> None:
    leads = [0.5, 0.1, 0.4, 0.2]
    assert [0.4, 0.2, float("-inf")] == [margin_for(leads, share) for share in (0.25, 0.5, 1.0)]
    assert 0 == sum(lead > margin_for([0.3, 0.3, 0.1], 1 / 3) for lead in (0.3, 0.3, 0.1))


def test_vectors_decide_the_clearest_texts_and_the_others_keep_their_label() -> None:
    texts = [
        scored("a", (0.9, 0.1, 0.1), (0.1, 0.8, 0.2)),  # a clear lead for a label that the full pass does not have
        scored("b", (0.1, 0.9), (0.1, 0.6)),
        scored("c", (0.1, 0.1, 0.9), (0.4, 0.3, 0.3)),
        scored("a", (0.9, 0.1), (0.1, 0.2)),
    ]
    found = trust_vectors(texts, 0.5)
    assert (0.5, 0.5, 0.5) == (found.accepted, found.otherwise, found.pairs_run)
    assert found.margin == pytest.approx(0.1)
    # Of two a one is left, and the b beside the true one is wrong.
    assert found.macro_f1_difference == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3 - 100)


def test_where_no_text_is_accepted_nothing_changes() -> None:
    found = trust_vectors([scored("a", (0.9, 0.1, 0.1)), scored("b", (0.1, 0.9, 0.1))], 0.5)
    assert (0.0, 0.0, 1.0, 0.0) == (found.accepted, found.otherwise, found.pairs_run, found.macro_f1_difference)


def test_a_single_candidate_leads_without_a_second() -> None:
    assert float("inf") == scored("a", (0.5,), (0.1,)).lead


def test_macro_f1_is_taken_set_by_set() -> None:
    texts = [scored("a", (0.9, 0.1)), scored("b", (0.1, 0.9)), scored("a", (0.1, 0.9), name="other")]
    assert 50.0 == mean_macro_f1(texts, [0, 1, 1])


def test_labels_are_likened_without_what_they_have_in_common() -> None:
    table = TokenVectors(np.array([[5, 0], [0, 3], [0, -3]], np.int8), np.ones(3, np.float32))
    text, labels = np.array([1], np.int32), [np.array([0, 1], np.int32), np.array([0, 2], np.int32)]
    assert likeness_of(table, text, labels).tolist() == pytest.approx([1.0, -1.0])


def test_a_run_scores_every_pair_once_and_prints_one_json_object_or_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gzip.open(tmp_path / "kinds.test.jsonl.gz", "wt", encoding="utf-8") as stream:
        for number in range(9):
            label = ("an_invoice", "a_parcel", "a_password")[number % 3]
            stream.write(json.dumps({"text": f"about {label.replace('_', ' ')}, {number}", "label": label}) + "\n")
    model = write_tiny_model(tmp_path / "model")
    asked = ["--data", str(tmp_path), "--model", str(model), "--texts", "6"]

    assert 0 == main([*asked, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (6, 18, 1) == (report["texts"], report["pairs"], report["sets"])
    assert 100.0 == report["vectors_macro_f1"]  # each text names its label
    assert [0.9, 0.95, 0.99] * 2 == [row["threshold"] for row in report["stopping"]]
    assert all(1 / 3 <= row["pairs_run"] <= 1 for row in report["stopping"])
    assert [0.05, 0.1, 0.2, 0.4] == [row["aimed"] for row in report["trusting"]]
    assert [0.0, pytest.approx(1 / 6, abs=1e-4)] == [row["accepted"] for row in report["trusting"][:3:2]]

    assert 0 == main(asked)
    assert 2 + 6 + 2 + 4 == sum(line.startswith("|") for line in capsys.readouterr().out.splitlines())
