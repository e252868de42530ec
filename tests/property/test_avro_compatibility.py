"""What the check of Avro schemas lets pass, a reader of Avro reads."""

import copy
import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.avro_compatibility import unread
from worker.interfaces import interface_files

PREDICTION = json.loads(interface_files()["messages/prediction.avsc"])
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=5),
}
SIMPLE = st.sampled_from(sorted(PRIMITIVES))
TYPES = st.one_of(
    SIMPLE,
    st.lists(SIMPLE, min_size=1, max_size=3, unique=True),
    SIMPLE.map(lambda items: {"type": "array", "items": items}),
    SIMPLE.map(lambda values: {"type": "map", "values": values}),
)


@st.composite
def schemas(draw: st.DrawFn) -> tuple[Any, Any]:
    """A record of a few fields, and one that somebody made of it."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True))
    before: list[dict[str, Any]] = [{"name": name, "type": draw(TYPES)} for name in names]
    after: list[dict[str, Any]] = []
    for field in before:
        match draw(st.sampled_from(["keep", "keep", "drop", "default", "change"])):
            case "keep":
                after.append(field)
            case "default":
                after.append({**field, "type": ["null", "string"], "default": None})
            case "change":
                after.append({**field, "type": draw(TYPES)})
    if draw(st.booleans()):
        after.append({"name": "e", "type": ["null", draw(st.sampled_from(["long", "string"]))], "default": None})
    return record(before), record(after)


def record(fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": "Row", "fields": fields}


def values(schema: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401  an Avro schema
    if isinstance(schema, list):
        return st.one_of([values(each) for each in schema])
    if isinstance(schema, str):
        return PRIMITIVES[schema]
    if schema["type"] == "array":
        return st.lists(values(schema["items"]), max_size=2)
    if schema["type"] == "map":
        return st.dictionaries(st.text(max_size=2), values(schema["values"]), max_size=2)
    return st.fixed_dictionaries({field["name"]: values(field["type"]) for field in schema["fields"]})


def read_as(writer: Any, reader: Any, value: Any) -> object:  # noqa: ANN401  Avro schemas and a value of them
    body = io.BytesIO()
    fastavro.schemaless_writer(body, copy.deepcopy(writer), value)
    body.seek(0)
    return fastavro.schemaless_reader(body, copy.deepcopy(writer), copy.deepcopy(reader))


@given(pair=schemas(), data=st.data())
def test_what_is_not_found_to_break_is_read(pair: tuple[Any, Any], data: st.DataObject) -> None:
    writer, reader = pair
    if not unread(writer, reader):
        read_as(writer, reader, data.draw(values(writer)))


@given(data=st.data())
def test_a_prediction_is_read_by_who_knows_a_field_more(data: st.DataObject) -> None:
    added = {"name": "added", "type": ["null", "string"], "default": None}
    after = {**PREDICTION, "fields": [*PREDICTION["fields"], added]}
    value = data.draw(values(PREDICTION))
    assert {**value, "added": None} == read_as(PREDICTION, after, value)
    assert value == read_as(after, PREDICTION, value)


@pytest.mark.parametrize(("written", "wanted"), [("long", "string"), ("double", "long"), (["null", "long"], "long")])
def test_what_is_found_to_break_is_not_read(written: Any, wanted: Any) -> None:  # noqa: ANN401  Avro types
    writer, reader = (record([{"name": "a", "type": each}]) for each in (written, wanted))
    assert unread(writer, reader)
    value = {"a": None if isinstance(written, list) else 1}
    with pytest.raises(fastavro.read.SchemaResolutionError):
        read_as(writer, reader, value)
