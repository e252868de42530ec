"""Label schema documents: what is taken, what is refused, and what is said of it."""

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import SchemaError
from worker.labels.parts import Hierarchy, LongText
from worker.labels.schema import DefaultLimits, Label, LabelSchema, fill_template, is_template, parse_schema
from worker.types import JsonValue

MARKER = "zq-marker-7f3"
MODEL = "sha256:" + "0" * 64
DOCUMENT: dict[str, JsonValue] = {"name": "support", "version": 7, "labels": [{"name": "billing"}, {"name": "bug"}]}


def refusal(document: JsonValue) -> str:
    with pytest.raises(SchemaError) as caught:
        parse_schema(document, "f.yaml")
    return str(caught.value)


def test_a_document_with_every_key_is_taken() -> None:
    document: dict[str, Any] = {
        "name": "support-intent",
        "version": 0,
        "description": "What a customer wants.",
        "multi_label": False,
        "hypothesis_templates": ["This is about {}.", "{}"],
        "labels": [
            {
                "name": "billing",
                "description": "an invoice",
                "threshold": 1,
                "children": [{"name": "refund"}, {"name": "invoice", "children": []}],
            },
            {"name": "bug", "hypothesis": "Something {is} broken."},
        ],
        "abstain": {"below": 0.4, "margin": 0.05, "label": "other"},
        "top_k": 3,
        "calibration": {"model": MODEL, "temperature": 1.3, "bias": {"bug": -0.2}},
        "hierarchy": {"open_above": 0.3},
        "long_text": {"strategy": "windows", "overlap_tokens": 16, "aggregate": "mean"},
        "requires_model": None,
    }
    schema = parse_schema(document, "f.yaml")
    assert document == schema.document()
    assert ("This is about {}.", "{}") == schema.hypothesis_templates
    assert "support-intent@0" == schema.reference


def test_the_digest_is_of_the_document_as_given() -> None:
    document = {**DOCUMENT, "description": "grüß"}
    given_document = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert "sha256:" + hashlib.sha256(given_document).hexdigest() == parse_schema(document, "f").digest
    assert parse_schema(DOCUMENT, "f").digest != parse_schema({**DOCUMENT, "multi_label": False}, "f").digest
    assert parse_schema(DOCUMENT, "f").digest == parse_schema(dict(reversed(DOCUMENT.items())), "g").digest


def test_a_schema_made_in_code_has_the_digest_of_its_document() -> None:
    schema = LabelSchema(name="support", version=7, labels=(Label(name="billing"), Label(name="bug")))
    assert parse_schema(DOCUMENT, "f").digest == schema.digest


def tree(child: dict[str, JsonValue]) -> JsonValue:
    """A label with one child."""
    return [{"name": "a", "children": [{"name": "b", **child}]}]


REFUSED: list[tuple[dict[str, JsonValue], str]] = [
    ({"name": "a b"}, "name: expected a string that matches"),
    ({"name": "inline"}, "name: expected another name"),
    ({"name": 5}, "name: expected a string"),
    ({"version": -1}, "version: expected a number of at least 0"),
    ({"version": "7"}, "version: expected an integer"),
    ({"version": True}, "version: expected an integer"),
    ({"labels": []}, "labels: expected at least 1"),
    ({"labels": ["a"]}, "labels.0: expected a mapping"),
    ({"labels": [{"name": " "}]}, "labels.0.name: expected a string that is not blank"),
    ({"labels": [{"name": "a", "hypothesis": ""}]}, "labels.0.hypothesis: expected a string that is not blank"),
    ({"labels": [{"name": "a"}, {"name": "a"}]}, "labels.1.name: expected a unique name; it is that of labels.0"),
    ({"labels": [{"name": "a", "threshold": 1.01}]}, "labels.0.threshold: expected a number of at most 1.0"),
    ({"labels": [{"name": "a", "threshold": -0.01}]}, "labels.0.threshold: expected a number of at least 0.0"),
    ({"labels": [{"name": "a", "negative": "n"}]}, "labels.0.negative: expected only with `multi_label: true`"),
    ({"labels": [{"name": "a", "title": 1}]}, "labels.0.title: expected no such key"),
    ({"labels": [{"name": "a" * 1025}]}, "labels.0.name: expected at most 1024 bytes"),
    ({"labels": [{"name": str(number)} for number in range(1001)]}, "labels: expected at most 1000 labels"),
    ({"hypothesis_templates": "a {}"}, "hypothesis_templates: expected a list"),
    ({"hypothesis_templates": []}, "hypothesis_templates: expected at least 1"),
    ({"hypothesis_templates": ["{}" + "a" * 1024]}, "hypothesis_templates.0: expected at most 1024 bytes"),
    ({"multi_label": True, "abstain": {}}, "abstain: expected only without `multi_label`"),
    ({"abstain": {"label": "bug"}}, "abstain.label: expected a name that is not one of the labels"),
    ({"top_k": 0}, "top_k: expected a number of at least 1"),
    ({"calibration": {"model": "x"}}, "calibration.model: expected a string that matches"),
    ({"calibration": {"model": MODEL, "temperature": 0}}, "calibration.temperature: expected a number above 0"),
    ({"calibration": {"model": MODEL, "bias": {"x": 1}}}, "calibration.bias: expected only names of labels"),
    ({"calibration": {"model": MODEL, "bias": {"x": "1"}}}, "calibration.bias: expected a number"),
    ({"hierarchy": {"open_above": 0.2}}, "hierarchy: expected only where a label has `children`"),
    ({"shortlist": {"top_k": 0}}, "shortlist.top_k: expected a number of at least 1"),
    ({"shortlist": {}}, "shortlist.top_k: expected a value; the key is missing"),
    (
        {"shortlist": {"top_k": 5}, "multi_label": True, "labels": [{"name": "a", "threshold": 0.0}]},
        "labels.0.threshold: expected none in a `multi_label` schema with a `shortlist`",
    ),
    (
        {"shortlist": {"top_k": 5}, "multi_label": True, "labels": tree({})},
        "labels.0.children: expected none in a `multi_label` schema with a `shortlist`",
    ),
    ({"labels": tree({}), "hierarchy": {"open_above": 2}}, "hierarchy.open_above: expected a number of"),
    ({"labels": [{"name": "a", "children": {}}]}, "labels.0.children: expected a list"),
    ({"labels": tree({"name": "a"})}, "labels.0.children.0.name: expected a unique name; it is that of labels.0"),
    ({"labels": tree({"name": " "})}, "labels.0.children.0.name: expected a string that is not blank"),
    ({"labels": tree({"title": 1})}, "labels.0.children.0.title: expected no such key"),
    ({"labels": tree({"negative": "n"})}, "labels.0.children.0.negative: expected only with `multi_label: true`"),
    ({"labels": tree({"hypothesis": "b" * 1025})}, "labels.0.children.0.hypothesis: expected at most 1024 bytes"),
    ({"labels": tree({}), "abstain": {"label": "b"}}, "abstain.label: expected a name that is not one of the labels"),
    ({"long_text": {"strategy": "fold"}}, "long_text.strategy: expected 'truncate' or 'windows'"),
    ({"long_text": {"overlap_tokens": 8}}, "long_text.overlap_tokens: expected only with `strategy: windows`"),
    ({"long_text": {"strategy": "windows", "overlap_tokens": -1}}, "long_text.overlap_tokens: expected a number of at"),
    ({"long_text": {"strategy": "windows", "aggregate": "min"}}, "long_text.aggregate: expected 'max' or 'mean'"),
    ({"digest": "x"}, "digest: expected no such key"),
    (
        {"hypothesis_template": "a {}"},
        "hypothesis_template: expected no such key; did you mean `hypothesis_templates`?",
    ),
    ({"description": "\ud800"}, "expected strings, finite numbers"),
    ({"top_k": float("nan")}, "expected strings, finite numbers"),
    ({"top_k": float("inf")}, "expected strings, finite numbers"),
]


@pytest.mark.parametrize(("changes", "expected"), REFUSED)
def test_a_refusal_names_origin_key_and_what_was_expected(changes: dict[str, JsonValue], expected: str) -> None:
    assert refusal({**DOCUMENT, **changes}).startswith(f"f.yaml: {expected}")


@pytest.mark.parametrize("document", [None, [], "x", 5])
def test_a_document_that_is_no_mapping_is_refused(document: JsonValue) -> None:
    assert "f.yaml: expected a mapping with name, version and labels" == refusal(document)


@pytest.mark.parametrize("key", ["name", "version", "labels"])
def test_a_document_without_a_key_that_it_needs_is_refused(key: str) -> None:
    document = {name: value for name, value in DOCUMENT.items() if name != key}
    assert f"f.yaml: {key}: expected a value; the key is missing" == refusal(document)


def test_a_document_that_contains_itself_is_refused() -> None:
    document = {**DOCUMENT}
    document["description"] = [document]
    assert "expected strings" in refusal(document)


TEMPLATES = ["", "x", "{} {}", "{0.__class__}", "{a}", "{", "}", "{{}}", "{}{", "}{}", "} {"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_without_exactly_one_place_is_refused(template: str) -> None:
    expected = "f.yaml: hypothesis_templates.0: expected exactly one {} and no other brace"
    assert expected == refusal({**DOCUMENT, "hypothesis_templates": [template]})


@given(st.text(), st.text(), st.text())
def test_a_template_is_filled_by_replacement(before: str, after: str, words: str) -> None:
    template = f"{before}{{}}{after}"
    if is_template(template):
        assert before + words + after == fill_template(template, words)
    else:
        assert set("{}") & set(before + after)


def test_thresholds_default_to_a_half_in_multi_mode_and_to_none_in_single() -> None:
    labels: list[JsonValue] = [{"name": "a"}, {"name": "b", "threshold": 0.0}]
    single = parse_schema({**DOCUMENT, "labels": labels}, "f")
    multi = parse_schema({**DOCUMENT, "labels": labels, "multi_label": True}, "f")
    assert [None, 0.0] == [single.threshold_of(label) for label in single.labels]
    assert [0.5, 0.0] == [multi.threshold_of(label) for label in multi.labels]


def test_a_label_within_itself_is_refused_and_so_are_labels_without_end() -> None:
    """Aliases of YAML can make such documents."""
    label: dict[str, JsonValue] = {"name": "a"}
    label["children"] = [label]
    expected = "f.yaml: labels: expected at most 16 levels of `children`, and no label within itself"
    assert expected == refusal({**DOCUMENT, "labels": [label]})
    many: list[JsonValue] = [{"name": "a"}]
    for _ in range(15):
        many = [{"name": "a", "children": many}] * 10  # 10^15 labels
    assert "f.yaml: labels: expected at most 1000 labels" == refusal({**DOCUMENT, "labels": many})


def test_the_labels_of_all_levels_count_towards_the_limit() -> None:
    labels: list[JsonValue] = [{"name": "a", "children": [{"name": "b"}, {"name": "c"}]}]
    assert {"a", "b", "c"} == parse_schema({**DOCUMENT, "labels": labels}, "f", DefaultLimits(labels=3)).label_names
    with pytest.raises(SchemaError, match="labels: expected at most 2 labels"):
        parse_schema({**DOCUMENT, "labels": labels}, "f", DefaultLimits(labels=2))


def test_limits_can_be_set() -> None:
    with pytest.raises(SchemaError, match="labels: expected at most 1 labels"):
        parse_schema(DOCUMENT, "f", DefaultLimits(labels=1))
    with pytest.raises(SchemaError, match=r"labels\.0\.name: expected at most 3 bytes"):
        parse_schema(DOCUMENT, "f", DefaultLimits(label_bytes=3))


JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *LabelSchema.model_fields,
                    *Label.model_fields,
                    *Hierarchy.model_fields,
                    *LongText.model_fields,
                    "\ud800",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON, st.dictionaries(st.sampled_from(list(LabelSchema.model_fields)), JSON))
def test_no_document_raises_anything_but_a_refusal(whole: JsonValue, changes: dict[str, JsonValue]) -> None:
    for document in (whole, {**DOCUMENT, **changes}):
        with contextlib.suppress(SchemaError):
            assert document == parse_schema(document, "f").document()


VALUES = st.sampled_from(
    [MARKER, [MARKER], {"name": MARKER}, [{"name": MARKER}], [{"name": MARKER}] * 2, 1, None, True]
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*LabelSchema.model_fields]), VALUES))
def test_no_value_of_a_document_stands_in_its_refusal(changes: dict[str, JsonValue]) -> None:
    try:
        parse_schema({**DOCUMENT, **changes}, "f.yaml")
        message = ""
    except SchemaError as error:
        message = str(error)
    assert MARKER not in message


def test_names_of_labels_below_bias_do_not_stand_in_a_refusal() -> None:
    message = refusal({**DOCUMENT, "calibration": {"model": MODEL, "bias": {MARKER: "x"}}})
    assert MARKER not in message


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert "expected strings, finite numbers" in refusal({**DOCUMENT, "version": 10**5000})
