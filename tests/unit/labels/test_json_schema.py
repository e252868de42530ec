"""The JSON Schemas that are published."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.documents import read_document
from worker.errors import SchemaError
from worker.labels.json_schema import json_schemas, main
from worker.labels.schema import parse_schema
from worker.types import JsonValue

SCHEMAS = Path(__file__).parents[3] / "schemas"
PUBLISHED = SCHEMAS / "messages"
LABEL_SCHEMA = jsonschema.Draft202012Validator(json.loads(json_schemas()["label-schema.json"]))
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_the_published_json_schema_is_the_generated_one(name: str) -> None:
    """`python -m worker.labels.json_schema` writes them."""
    assert json_schemas()[name] == (PUBLISHED / name).read_text(encoding="utf-8")


def test_they_are_written_into_the_folder_that_is_named(tmp_path: Path) -> None:
    main([str(tmp_path / "new")])
    assert sorted(json_schemas()) == sorted(file.name for file in (tmp_path / "new").iterdir())


def document(*labels: JsonValue, **more: JsonValue) -> dict[str, JsonValue]:
    return {"name": "kinds", "version": 1, "labels": [*labels] or [{"name": "a"}, {"name": "b"}], **more}


def label(**more: JsonValue) -> JsonValue:
    return {"name": "c", **more}


def deep(levels: int) -> JsonValue:
    found: dict[str, JsonValue] = {"name": str(levels)}
    for level in range(levels - 1, 0, -1):
        found = {"name": str(level), "children": [found]}
    return found


CHILD: JsonValue = [{"name": "d"}]
CALIBRATION: dict[str, JsonValue] = {"model": DIGEST}

BAD: dict[str, JsonValue] = {
    "no mapping": [],
    "a key that is not known": document(label=1),
    "no name": {"version": 1, "labels": [{"name": "a"}]},
    "no version": {"name": "kinds", "labels": [{"name": "a"}]},
    "no labels": {"name": "kinds", "version": 1},
    "a name that no reference could have": document() | {"name": "a@b"},
    "an empty name": document() | {"name": ""},
    "a name that is too long": document() | {"name": "a" * 129},
    "the reserved name": document() | {"name": "inline"},
    "a version below 0": document() | {"version": -1},
    "a version that is text": document() | {"version": "1"},
    "a version that is true": document() | {"version": True},
    "a version with a fraction": document() | {"version": 1.5},
    "multi_label that is text": document(multi_label="yes"),
    "an empty set of labels": document() | {"labels": []},
    "a label that is text": document() | {"labels": ["a"]},
    "a label without a name": document({"description": "x"}),
    "a label with a key that is not known": document(label(colour="red")),
    "a blank label": document({"name": " "}),
    "a blank description": document(label(description="")),
    "a blank hypothesis": document(label(hypothesis="\t")),
    "a blank negative": document(label(negative=" "), multi_label=True),
    "a negative without multi_label": document(label(negative="not so")),
    "a negative below, without multi_label": document(label(children=[{"name": "d", "negative": "not so"}])),
    "a threshold above 1": document(label(threshold=1.1)),
    "a threshold below 0": document(label(threshold=-0.1)),
    "a threshold that is text": document(label(threshold="0.5")),
    "the same label twice": document({"name": "a"}, {"name": "a"}),
    "no template": document(hypothesis_templates=[]),
    "a template that is no list": document(hypothesis_templates="About {}."),
    "a template without a place": document(hypothesis_templates=["About."]),
    "a template with two places": document(hypothesis_templates=["About {} or {}."]),
    "a template with another brace": document(hypothesis_templates=["About {} {x}."]),
    "a blank instruction": document(instruction=" "),
    "hierarchy without children": document(hierarchy={}),
    "hierarchy with empty children": document(label(children=[]), hierarchy={}),
    "open_above above 1": document(label(children=CHILD), hierarchy={"open_above": 2}),
    "a key of hierarchy that is not known": document(label(children=CHILD), hierarchy={"open": 0.1}),
    "abstain with multi_label": document(abstain={"below": 0.2}, multi_label=True),
    "below above 1": document(abstain={"below": 40}),
    "margin below 0": document(abstain={"margin": -0.1}),
    "a blank label of abstain": document(abstain={"label": ""}),
    "a key of abstain that is not known": document(abstain={"above": 0.2}),
    "top_k of 0": document(top_k=0),
    "calibration without a model": document(calibration={"temperature": 1.0}),
    "calibration for no digest": document(calibration={"model": "mine"}),
    "a temperature of 0": document(calibration=CALIBRATION | {"temperature": 0}),
    "a bias that is text": document(calibration=CALIBRATION | {"bias": {"a": "x"}}),
    "a key of calibration that is not known": document(calibration=CALIBRATION | {"scale": 1}),
    "a strategy that is not known": document(long_text={"strategy": "head"}),
    "an overlap below 0": document(long_text={"strategy": "windows", "overlap_tokens": -1}),
    "an aggregate that is not known": document(long_text={"strategy": "windows", "aggregate": "sum"}),
    "an overlap without windows": document(long_text={"overlap_tokens": 3}),
    "an aggregate where texts are cut": document(long_text={"strategy": "truncate", "aggregate": "max"}),
    "shortlist without top_k": document(shortlist={}),
    "a shortlist of 0": document(shortlist={"top_k": 0}),
    "a shortlist with thresholds in multi_label": document(
        label(threshold=0.5), shortlist={"top_k": 1}, multi_label=True
    ),
    "a shortlist with children in multi_label": document(
        label(children=CHILD), shortlist={"top_k": 1}, multi_label=True
    ),
    "requires_model that is no digest": document(requires_model="bundled"),
}
"""One for each rule of the parser that a JSON Schema can say."""

BEYOND: dict[str, JsonValue] = {
    "two labels of one name that differ": document({"name": "a"}, {"name": "a", "threshold": 0.5}),
    "a name that stands below another label": document({"name": "a"}, label(children=[{"name": "a"}])),
    "a label of abstain that is one of the labels": document(abstain={"label": "a"}),
    "a bias of a label that is not there": document(calibration=CALIBRATION | {"bias": {"z": 1.0}}),
    "more than 16 levels": document(deep(17)),
    "more labels than limits.labels": document() | {"labels": [{"name": str(n)} for n in range(1001)]},
    "a label longer than limits.label_bytes": document({"name": "x" * 1025}),
    "a template longer than limits.label_bytes": document(hypothesis_templates=["{}" + "x" * 1024]),
    "a number that is not finite": document(calibration=CALIBRATION | {"bias": {"a": float("inf")}}),
    "a string that is no Unicode": document({"name": "\ud800"}),
    "an integer with a point": document() | {"version": 1.0},
}
"""What a JSON Schema cannot say: what one value has to do with another one, limits of a configuration, encodings.

Beyond any document alone: a version that does not rise, a digest that differs, a model that is not ours, a hypothesis
that leaves no room for text.
"""

GOOD: list[JsonValue] = [
    document(),
    document({"name": "\n x", "description": None, "threshold": None, "children": []}),
    document(label(negative=None), abstain={}, hierarchy=None, shortlist=None, long_text=None, calibration=None),
    document(label(negative="not so", threshold=1, children=[{"name": "d", "negative": "x"}]), multi_label=True),
    document(label(children=CHILD), label(name="e"), hierarchy={"open_above": 0}, shortlist={"top_k": 1}),
    document({"name": "a", "threshold": 0.4}, shortlist={"top_k": 3}, abstain={"below": 1, "margin": 0, "label": "z"}),
    document(shortlist={"top_k": 3}, multi_label=True, long_text={}, hypothesis_templates=["{}", "a\n{} b"]),
    document(long_text={"strategy": "windows", "overlap_tokens": 0, "aggregate": "mean"}, top_k=1),
    document(calibration=CALIBRATION | {"temperature": 0.1, "bias": {"a": -3}}, requires_model=DIGEST),
    document(deep(16), instruction="Which?"),
]


def is_refused(value: JsonValue) -> bool:
    try:
        parse_schema(value, "f")
    except SchemaError:
        return True
    return False


@pytest.mark.parametrize("rule", BAD)
def test_what_the_parser_refuses_an_editor_refuses_too(rule: str) -> None:
    assert is_refused(BAD[rule])
    assert not LABEL_SCHEMA.is_valid(BAD[rule])


@pytest.mark.parametrize("rule", BEYOND)
def test_what_only_the_parser_refuses_is_known_by_name(rule: str) -> None:
    assert is_refused(BEYOND[rule])
    assert LABEL_SCHEMA.is_valid(BEYOND[rule])


@pytest.mark.parametrize("good", GOOD)
def test_what_the_parser_takes_an_editor_takes_too(good: JsonValue) -> None:
    parse_schema(good, "f")
    LABEL_SCHEMA.validate(good)


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_name_the_json_schema_that_they_keep_to(path: Path) -> None:
    LABEL_SCHEMA.validate(read_document(path))
    first, _ = path.read_text(encoding="utf-8").split("\n", 1)
    assert "# yaml-language-server: $schema=messages/label-schema.json" == first
    assert (path.parent / first.partition("$schema=")[2]).is_file()


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 0.5, "", "a", "About {}.", DIGEST, [], {}, [{"name": "d"}], ["{}"], {"top_k": 2}]
)
LABELS = st.fixed_dictionaries(
    {"name": st.sampled_from("abc")},
    optional=dict.fromkeys(("description", "hypothesis", "negative", "threshold", "children"), VALUES),
)
ABSTAIN = st.dictionaries(st.sampled_from(["below", "margin", "label"]), VALUES)
LONG_TEXT = st.dictionaries(
    st.sampled_from(["strategy", "overlap_tokens", "aggregate"]), st.sampled_from(["windows", "truncate", "max", 1])
)
DOCUMENTS = st.fixed_dictionaries(
    {"name": st.just("kinds"), "version": st.just(1), "labels": st.lists(LABELS, max_size=3)},
    optional={
        "multi_label": st.booleans(),
        "hypothesis_templates": VALUES,
        "hierarchy": st.none() | st.just({}) | VALUES,
        "abstain": ABSTAIN | VALUES,
        "long_text": LONG_TEXT | VALUES,
        "shortlist": VALUES,
        "calibration": VALUES,
        "requires_model": VALUES,
        "top_k": VALUES,
    },
)


@settings(deadline=None, max_examples=300)
@given(DOCUMENTS)
def test_an_editor_refuses_nothing_that_the_parser_takes(value: dict[str, Any]) -> None:
    if not LABEL_SCHEMA.is_valid(value):
        assert is_refused(value)
