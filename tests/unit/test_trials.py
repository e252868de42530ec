"""What a change would flip, and what a model says of labels: with a model whose every score is known."""

import json
from collections.abc import Callable, Sequence

import pytest

from worker.classifier import Answer
from worker.engines.load import EngineChoice
from worker.errors import ErrorCode, SchemaError, Stage
from worker.labels.registry import LabelRegistry
from worker.labels.schema import LabelSchema, parse_schema
from worker.lint import FEWEST_TEXTS, FLAT_LABELS, FLAT_TEXTS, lint
from worker.settings import Limits
from worker.trials import Decode, Try, compare, decision_of, open_trials
from worker.types import JsonValue, LabelScore, PairCounts, Prediction, Record, Refusal, Request, TokenSpan

Score = Callable[[str, str], float]
"""Of a text and a label's hypothesis, description or name."""


def schema(*labels: JsonValue, version: int = 1, **more: JsonValue) -> LabelSchema:
    listed: list[JsonValue] = [label if isinstance(label, dict) else {"name": label} for label in labels]
    return parse_schema({"name": "kinds", "version": version, "labels": listed, **more}, "f")


def records(*texts: str) -> list[Record]:
    return [Record("t", 0, n, 0, None, json.dumps({"text": text}).encode()) for n, text in enumerate(texts)]


def decode(record: Record) -> Request:
    return Request(f"id-{record.offset}", json.loads(record.value or b"")["text"])


def attempt_with(score: Score) -> Try:
    def attempt(schema: LabelSchema, sample: Sequence[Record], decode: Decode) -> list[Answer]:
        answers = []
        for record in sample:
            request = decode(record)
            if request.text == "refused":
                refusal = Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "empty")
                answers.append(Answer(record, None, None, refusal))
                continue
            words = [label.hypothesis or label.description or label.name for label in schema.labels]
            scores = tuple(
                LabelScore(label.name, score(request.text, said))
                for label, said in zip(schema.labels, words, strict=True)
            )
            best = max(scores, key=lambda each: each.score)
            selected = (best.label,) if best.score >= 0.5 else ()
            counts = PairCounts(len(scores))
            outcome = Prediction("single", None, selected, scores, False, TokenSpan(1, 0), counts)
            answers.append(Answer(record, request, schema, outcome))
        return answers

    return attempt


def equal(text: str, label: str) -> float:
    return 1.0 if text == label else 0.1


def test_flips_moves_abstention_and_cost_are_counted() -> None:
    found = compare(
        attempt_with(equal),
        (schema("a", "b"), schema("a", "c", "d", version=2)),
        records("a", "b", "b", "c", "x", "refused"),
        decode,
    )
    assert 6 == found.messages
    assert [("id-1", "b", "abstains"), ("id-2", "b", "abstains"), ("id-3", "abstains", "c")] == [
        (flip.id, flip.before, flip.after) for flip in found.flips
    ]
    assert (("b", "abstains", 2), ("abstains", "c", 1)) == found.moves
    assert found.before is not None
    assert (2, 3) == (found.before.abstained, found.after.abstained)
    assert (2.0, 3.0) == (found.before.pairs_per_message, found.after.pairs_per_message)
    assert {"text_empty": 1} == found.after.refused


def test_without_a_present_version_only_the_proposed_one_is_tried() -> None:
    found = compare(attempt_with(equal), (None, schema("a")), records("a"), decode)
    assert (None, ()) == (found.before, found.flips)


def test_a_refusal_is_told_by_its_code() -> None:
    assert "refused (text_empty)" == decision_of(Refusal(ErrorCode.TEXT_EMPTY, Stage.DECODE, "r"))


def advice(score: Score, labels: LabelSchema, *texts: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.code, each.labels) for each in lint(attempt_with(score), labels, records(*texts), decode)]


def test_labels_that_follow_from_each_other_are_told_by_how_much() -> None:
    follows = {
        ("dog", "animal"): 0.95,
        ("refund", "repayment"): 0.97,
        ("repayment", "refund"): 0.92,
        ("bill", "invoice"): 0.95,
        ("invoice", "bill"): 0.7,
    }
    names = ("animal", "dog", "refund", "repayment", "bill", "invoice")
    listed: list[JsonValue] = [{"name": name, "hypothesis": name} for name in names]
    labels = schema(*listed, hypothesis_templates=["{}"])
    found = advice(lambda text, label: follows.get((text, label), equal(text, label)), labels)
    assert [("entails", ("dog", "animal")), ("same", ("refund", "repayment")), ("near", ("bill", "invoice"))] == found


def test_in_a_hierarchy_only_siblings_compete() -> None:
    follows = {("dog", "animal"): 0.95, ("dog", "hound"): 0.95, ("hound", "dog"): 0.95}
    below: list[JsonValue] = [{"name": name, "hypothesis": name} for name in ("dog", "hound")]
    listed: list[JsonValue] = [{"name": "animal", "hypothesis": "animal", "children": below}, "plant"]
    labels = schema(*listed, hypothesis_templates=["{}"])
    found = advice(lambda text, label: follows.get((text, label), equal(text, label)), labels)
    assert [("same", ("dog", "hound"))] == found


def test_a_label_that_no_text_of_a_large_sample_gets_is_told() -> None:
    labels = schema("a", "b")
    assert [("unused", ("b",))] == advice(equal, labels, *["a"] * FEWEST_TEXTS)


def test_a_template_under_which_all_labels_score_alike_is_told() -> None:
    assert ["flat"] == [code for code, _ in advice(lambda _, __: 0.5, schema("a", "b"))]


def test_of_a_sample_that_is_too_small_to_miss_labels_in_that_is_told() -> None:
    assert [("small", ())] == advice(equal, schema("a", "b"), *["a"] * (FEWEST_TEXTS - 1))


@pytest.mark.parametrize("texts", [0, 200])
def test_a_very_large_set_costs_a_bounded_number_of_pairs_and_what_was_left_out_is_told(texts: int) -> None:
    pairs: list[int] = []
    scripted = attempt_with(equal)

    def attempt(schema: LabelSchema, sample: Sequence[Record], decode: Decode) -> list[Answer]:
        pairs.append(len(schema.labels) * len(schema.hypothesis_templates) * len(sample))
        return scripted(schema, sample, decode)

    labels = schema(*(str(n) for n in range(1000)), hypothesis_templates=["a {}", "b {}"])
    found = list(lint(attempt, labels, records(*["0"] * texts), decode))
    assert sum(pairs) <= 2 * FLAT_TEXTS * FLAT_LABELS + 2 * 1000 * texts, "the sample itself is scored once"
    assert {"too_many", "partial"} <= {each.code for each in found}
    [partial] = [each for each in found if each.code == "partial"]
    assert "1000 labels: templates are tried with 100 of them, on 20 texts" == partial.message


def test_what_the_model_refuses_gets_no_advice() -> None:
    unusable = schema("a", "b", requires_model="sha256:" + "0" * 64)
    with (
        open_trials(EngineChoice("bundled", "fake", "auto"), Limits()) as trials,
        pytest.raises(SchemaError, match="requires_model"),
    ):
        list(lint(trials.attempt, unusable, [], decode))


def test_what_records_name_themselves_is_resolved_as_a_worker_would() -> None:
    """Pinned elsewhere they do not flip; only what names the tried schema, or its version, is of the change."""
    present, proposed = schema("a", version=1), schema("b", version=2)
    other = parse_schema({"name": "other", "version": 4, "labels": [{"name": "o"}]}, "f")
    named = (None, "kinds", "kinds@1", "kinds@2", "other", "other@4", "other@5", "?")

    def fill(labels: LabelRegistry) -> None:
        for each in (present, other):
            labels.offer(each)

    def naming(record: Record) -> Request:
        return Request(str(named[record.offset]), "text", label_schema=named[record.offset], multi_label=True)

    with open_trials(EngineChoice("bundled", "fake", "auto"), Limits(), fill) as trials:
        outcomes = [
            [answer.schema.reference if answer.schema is not None else decision_of(answer.outcome) for answer in found]
            for found in (trials.attempt(each, records(*[""] * len(named)), naming) for each in (present, proposed))
        ]
    before, after = outcomes
    unknown = ["refused (schema_version_unknown)", "refused (schema_unknown)"]
    assert ["kinds@1"] * 3 + [unknown[0], "other@4", "other@4", *unknown] == before
    assert ["kinds@2"] * 2 + ["kinds@1", "kinds@2", "other@4", "other@4", *unknown] == after


def test_trials_run_on_an_engine_under_any_schema() -> None:
    with open_trials(EngineChoice("bundled", "fake", "auto"), Limits()) as trials:
        found = compare(trials.attempt, (schema("a", "b"), schema("c", version=2)), records("one", "two"), decode)
    assert (2, 2) == (found.after.predicted, found.messages)
    assert 1.0 == found.after.pairs_per_message
    assert all("c" not in flip.before for flip in found.flips)
