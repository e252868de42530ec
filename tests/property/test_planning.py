"""Planning: every label gets its hypotheses, each different one is scored once, and words are never read as formats."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.errors import ErrorCode, MessageError, Stage
from worker.labels.schema import DEFAULT_TEMPLATE, LabelSchema, parse_schema
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.types import JsonValue, Request

REQUEST = Request("id", "some text")

plain = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
formats = st.sampled_from(["{}", "{0}", "{0.__class__}", "{{}}", "{", "}", "%s", "$name", "a {} b {}", "\\1"])
words = (plain | formats | st.tuples(plain, formats).map("".join)).filter(lambda text: text.strip() != "")
without_braces = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=12)
templates = st.lists(st.tuples(without_braces, without_braces).map("{}".join), min_size=1, max_size=3)


@st.composite
def schemas(draw: st.DrawFn) -> LabelSchema:
    multi_label = draw(st.booleans())
    labels: list[JsonValue] = []
    for name in draw(st.lists(words, min_size=1, max_size=6, unique=True)):
        label: dict[str, JsonValue] = {"name": name}
        optional = ["description", "hypothesis", *(["negative"] if multi_label else [])]
        # From few words, so that labels share hypotheses.
        label |= {key: draw(st.sampled_from(["a", "b", "not a"]) | words) for key in optional if draw(st.booleans())}
        labels.append(label)
    return parse_schema(
        {
            "name": "drawn",
            "version": 1,
            "multi_label": multi_label,
            "hypothesis_templates": [*draw(templates)],
            "labels": labels,
        },
        "test",
    )


def texts_of(plan: PairPlan, indices: tuple[int, ...]) -> list[str]:
    return [plan.hypotheses[index] for index in indices]


def expected_hypotheses(schema: LabelSchema) -> list[list[str]]:
    return [
        [label.hypothesis]
        if label.hypothesis is not None
        # Cut at the placeholder and joined again: nothing is read as a format.
        else [(label.description or label.name).join(template.split("{}")) for template in schema.hypothesis_templates]
        for label in schema.labels
    ]


@given(schemas())
def test_every_label_has_its_own_hypotheses_in_the_order_of_templates(schema: LabelSchema) -> None:
    plan = plan_pairs(REQUEST, schema, 1000)
    assert expected_hypotheses(schema) == [texts_of(plan, pairs.positive) for pairs in plan.labels]
    negatives = [None if pairs.negative is None else plan.hypotheses[pairs.negative] for pairs in plan.labels]
    assert [label.negative for label in schema.labels] == negatives


@given(schemas())
def test_a_hypothesis_that_labels_share_is_one_pair_and_none_is_for_nobody(schema: LabelSchema) -> None:
    plan = plan_pairs(REQUEST, schema, 1000)
    assert len(set(plan.hypotheses)) == len(plan.hypotheses)
    used = {index for pairs in plan.labels for index in pairs.positive}
    used |= {pairs.negative for pairs in plan.labels if pairs.negative is not None}
    assert set(range(len(plan.hypotheses))) == used


@given(schemas(), st.integers(1, 20))
def test_a_schema_that_needs_more_pairs_than_allowed_is_refused_and_no_other_is(
    schema: LabelSchema, max_pairs: int
) -> None:
    needed = len(plan_pairs(REQUEST, schema, 1000).hypotheses)
    if needed <= max_pairs:
        assert needed == len(plan_pairs(REQUEST, schema, max_pairs).hypotheses)
        return
    with pytest.raises(MessageError) as refusal:
        plan_pairs(REQUEST, schema, max_pairs)
    assert (ErrorCode.TOO_MANY_PAIRS, Stage.PLAN) == (refusal.value.code, refusal.value.stage)


@given(words)
def test_a_label_that_looks_like_a_format_is_put_into_the_template_letter_by_letter(name: str) -> None:
    assume(name != "other")
    schema = parse_schema({"name": "a", "version": 1, "labels": [{"name": name}, {"name": "other"}]}, "test")
    plan = plan_pairs(REQUEST, schema, 10)
    before, after = DEFAULT_TEMPLATE.split("{}")
    assert (before + name + after, "This example is other.") == plan.hypotheses


@given(schemas(), plain)
def test_the_plan_carries_request_and_schema_as_they_came(schema: LabelSchema, text: str) -> None:
    request = Request("7", text)
    plan = plan_pairs(request, schema, 1000)
    assert (request, schema) == (plan.request, plan.schema)
    assert len(schema.labels) == len(plan.labels)
