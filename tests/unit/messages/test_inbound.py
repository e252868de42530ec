"""JSON Pointers and references."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages.inbound import parse_pointer, read_pointer
from worker.messages.reference import SchemaReference, parse_reference
from worker.types import JsonValue

# RFC 6901, section 5
DOCUMENT: JsonValue = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/2", None),
        ("/foo/-", None),
        ("/foo/00", None),
        ("/foo/01", None),
        ("/foo/\u0660", None),
        ("/foo/bar", None),
        ("/foo/0/0", None),
        ("/foo/99999999999999999999999", None),
        ("/none", None),
    ],
)
def test_a_pointer_names_what_the_standard_says(pointer: str, expected: JsonValue) -> None:
    assert expected == read_pointer(DOCUMENT, parse_pointer(pointer))


@pytest.mark.parametrize("pointer", ["", "foo", "#/foo", "/a~2", "/a~"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="expected a JSON Pointer"):
        parse_pointer(pointer)


@given(st.dictionaries(st.text(), st.integers(), min_size=1))
def test_every_key_can_be_pointed_at(document: dict[str, JsonValue]) -> None:
    for key, value in document.items():
        pointer = "/" + key.replace("~", "~0").replace("/", "~1")
        assert value == read_pointer(document, parse_pointer(pointer))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("support-intent", SchemaReference("support-intent")),
        ("support@7", SchemaReference("support", 7)),
        ("a@0", SchemaReference("a", 0)),
        ("", None),
        ("a@", None),
        ("a@b", None),
        ("a@-1", None),
        ("a@1@2", None),
        ("a b", None),
        ("../a", None),
        ("a\n", None),
        ("inline", None),
        ("inline@0", None),
        ("a@" + "9" * 5000, None),
        ("a@\u0663", None),
    ],
)
def test_a_reference_is_a_name_with_or_without_a_version(text: str, expected: SchemaReference | None) -> None:
    assert expected == parse_reference(text)
