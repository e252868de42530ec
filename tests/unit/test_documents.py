"""Reading what people write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.documents import DocumentError, key_path, parse_json, parse_yaml, read_document
from worker.types import JsonValue

MARKER = "zq-marker-7f3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: {b: [1, 2.5, true, null, x]}", {"a": {"b": [1, 2.5, True, None, "x"]}}),
        ("x: &x {q: 1}\ny: &y {<<: *x, q: 2}\nz: {<<: *y}", {"x": {"q": 1}, "y": {"q": 2}, "z": {"q": 2}}),
    ],
)
def test_yaml_is_read_as_json_values(text: str, expected: JsonValue) -> None:
    assert expected == parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2", "a: expected each key once (line 2, column 1)"),
        ("x: {b: 1, b: 2}", "b: expected each key once (line 1, column 11)"),
        ("1: 2", "expected keys that are strings (line 1, column 1); quote them"),
        ("[a]: 2", "expected keys that are strings (line 1, column 1); quote them"),
        ("yes: 2", "expected keys that are strings (line 1, column 1); quote them"),
        ("a: !!binary abcd", "expected strings, numbers, booleans, lists and mappings (line 1, column 4)"),
        ("a: !!set {b}", "expected strings, numbers, booleans, lists and mappings (line 1, column 4)"),
        ("a: !!python/object:os.system x", "expected YAML; not understood (line 1, column 4)"),
        (f"a: *{MARKER}", "expected YAML; not understood (line 1, column 4)"),
        (f"a: !{MARKER} x", "expected YAML; not understood (line 1, column 4)"),
        (f"a: !{MARKER}!x y", "expected YAML; found undefined tag handle … (line 1, column 4)"),
        ("a: 1\n---\nb: 2", "expected YAML; not understood (line 2, column 1)"),
        ("a: [1", "expected YAML; expected ',' or ']', but got '<stream end>' (line 1, column 6)"),
        ("a: " + "9" * 5000, "expected YAML"),
        ("'\x01'", "expected YAML"),
        ("[" * 1200, "expected a document that is less deeply nested"),
    ],
)
def test_what_is_no_such_document_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "a": 2}', "a: expected each key once"),
        ("[NaN]", "expected finite numbers; NaN and Infinity are not JSON"),
        ('{\n"' + MARKER + '"', "expected JSON; not understood (line 2, column 16)"),
        ("[" * 100_000, "expected a document that is less deeply nested"),
        ("9" * 5000, "expected JSON; a number is too long"),
    ],
)
def test_what_is_no_json_is_refused(text: str, expected: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(text)
    assert expected == str(caught.value)


@given(st.text(alphabet="ab:[]{}-&*!|>'\"#%@ \n\t1,?<"))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        try:
            parse(text)
        except DocumentError as error:
            message = str(error)
        else:
            message = "expected nothing else"
        assert "expected" in message


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    for name in ("a.json", "a.yaml"):
        (tmp_path / name).write_text("{a: 1}" if name.endswith("yaml") else '{"a": 1}', encoding="utf-8")
        assert {"a": 1} == read_document(tmp_path / name)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file or directory"):
        read_document(tmp_path / "none.yaml")
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        read_document(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"a\xff")
    with pytest.raises(DocumentError, match="expected UTF-8; byte 1 is not"):
        read_document(tmp_path / "x.yaml")


def test_a_key_stands_on_one_line_and_has_a_bounded_length() -> None:
    assert "topics.0.a?b" == key_path(["topics", 0, "a\nb"])
    assert "x" * 64 + "…" == key_path(["x" * 100])
