"""Documents that people write: read strictly, with words for what is wrong that never quote them."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from worker.types import JsonValue

_TAG = "tag:yaml.org,2002:"
_KEY_CHARACTERS = 64
_LIKENESS = 0.75
"""From which share of characters in common on a key is taken for a misspelt one (difflib's ratio)."""
_QUOTED_WORD = re.compile(r"'[^'<\s]{2,}'")
_PHRASES = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "extra_forbidden": "no such key; it is not known",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "missing": "a value; the key is missing",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "a string that matches {pattern}",
    "string_too_short": "a string that is not empty",
    "string_type": "a string",
    "too_short": "at least {min_length}, not {actual_length}",
    "tuple_type": "a list",
}


class DocumentError(Exception):
    """A file is no document; the message says what was expected and where, without the file's name."""


class Problem(NamedTuple):
    """The first thing that is wrong with a document."""

    path: str
    """The key, as `topics.0.input`; empty for the document as a whole."""
    expected: str

    def __str__(self) -> str:
        """`path: expected`, or what was expected alone."""
        return f"{self.path}: {self.expected}" if self.path else self.expected


class MisfitError(ValueError):
    """Raised by a model's own check, to name a key below the one being validated."""

    def __init__(self, path: Sequence[str | int], expected: str) -> None:
        """`path` is relative to the model that raises; `expected` never quotes a value."""
        super().__init__(expected)
        self.path = tuple(path)
        self.expected = expected


def read_document(path: Path) -> JsonValue:
    """What the file says, as plain JSON values; `.json` is read as JSON, anything else as YAML. Blocks.

    Raises:
        DocumentError: the file cannot be read, is not UTF-8, not one document, or has a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(f"expected UTF-8; byte {error.start} is not") from None
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or 'input/output error'}") from None
    return parse_json(text) if path.suffix == ".json" else parse_yaml(text)


def parse_yaml(text: str) -> JsonValue:
    """The values of one YAML document. Dates stay strings, keys are strings and stand once.

    Raises:
        DocumentError: it is not such a document.
    """
    try:
        document: JsonValue = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, made stricter
    except (yaml.scanner.ScannerError, yaml.parser.ParserError) as error:
        # Only these two describe what they found by kind; the one word that they may quote is left out.
        problem = _QUOTED_WORD.sub("…", error.problem or "not understood")
        raise DocumentError(f"expected YAML; {problem}{_place(error.problem_mark)}") from None
    except yaml.MarkedYAMLError as error:
        raise DocumentError(f"expected YAML; not understood{_place(error.problem_mark)}") from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise DocumentError("expected YAML") from None
    except RecursionError:
        raise DocumentError("expected a document that is less deeply nested") from None
    return document


def parse_json(text: str) -> JsonValue:
    """The values of one JSON document, in which no key stands twice.

    Raises:
        DocumentError: it is not such a document.
    """
    try:
        document: JsonValue = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DocumentError(f"expected JSON; not understood (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise DocumentError("expected a document that is less deeply nested") from None
    except ValueError:
        raise DocumentError("expected JSON; a number is too long") from None
    return document


def mapping_in(value: bytes) -> dict[str, JsonValue] | None:
    """The JSON object that `value` is, in UTF-8; None where it is none."""
    try:
        document = parse_json(value.decode("utf-8"))
    except (UnicodeDecodeError, DocumentError):
        return None
    return document if isinstance(document, dict) else None


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> Problem:
    """What to tell a person of a failed validation: the key and what was expected, never a value.

    With the `model` that was validated, a key that is not known is told with the one that it resembles, and before the
    complaint that this one is missing.
    """
    details = error.errors(include_url=False, include_input=False)
    return _problem(details[0], details, model)


def all_problems(error: ValidationError, model: type[BaseModel]) -> tuple[Problem, ...]:
    """All that a failed validation found, as `first_problem` tells it, each once and the first of each key."""
    details = error.errors(include_url=False, include_input=False)
    found: dict[str, Problem] = {}
    for detail in details:
        if detail["type"] == "too_short" and any(_is_below(each, detail) for each in details):
            continue  # only items that are well formed were counted
        problem = _problem(detail, details, model)
        found.setdefault(problem.path, problem)
    return tuple(found.values())


def _problem(detail: ErrorDetails, details: Iterable[ErrorDetails], model: type[BaseModel] | None) -> Problem:
    path: tuple[str | int, ...] = detail["loc"]
    if model is not None and detail["type"] in {"missing", "extra_forbidden"}:
        misspelt = _misspelt(detail, details, model)
        if misspelt is not None:
            return misspelt
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, MisfitError):
        return Problem(key_path((*path, *cause.path)), cause.expected)
    if isinstance(cause, ValueError):
        return Problem(key_path(path), str(cause))
    phrase = _PHRASES.get(detail["type"])
    if phrase is None:
        return Problem(key_path(path), "expected " + detail["msg"].removeprefix("Input should be "))
    return Problem(key_path(path), "expected " + phrase.format(**detail.get("ctx", {})))


def _is_below(one: ErrorDetails, other: ErrorDetails) -> bool:
    depth = len(other["loc"])
    return len(one["loc"]) > depth and one["loc"][:depth] == other["loc"]


def inner_model(annotation: object) -> type[BaseModel] | None:
    """The model that a field of this type holds: alone, in a list, or where there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := inner_model(each)) is not None), None)


def _misspelt(first: ErrorDetails, details: Iterable[ErrorDetails], model: type[BaseModel]) -> Problem | None:
    """The unknown key that stands for what `first` misses, or that `first` itself is."""
    for detail in details:
        *parents, key = detail["loc"]
        if detail["type"] != "extra_forbidden" or tuple(parents) != first["loc"][:-1]:
            continue
        meant = difflib.get_close_matches(str(key), _keys(model, parents), 1, _LIKENESS)
        if meant and (detail is first or meant[0] == first["loc"][-1]):
            return Problem(key_path(detail["loc"]), f"expected no such key; did you mean `{meant[0]}`?")
    return None


def _keys(model: type[BaseModel], path: Iterable[str | int]) -> list[str]:
    """The keys that a mapping at `path` may have."""
    inner: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, str) and inner is not None:
            field = inner.model_fields.get(part)
            inner = None if field is None else inner_model(field.annotation)
    return [] if inner is None else list(inner.model_fields)


def key_path(path: Sequence[str | int]) -> str:
    """`topics.0.input` for `("topics", 0, "input")`, each part on one line and of bounded length."""
    return ".".join(_printable(part) if isinstance(part, str) else str(part) for part in path)


def _printable(part: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in part)
    return shown if len(shown) <= _KEY_CHARACTERS else shown[:_KEY_CHARACTERS] + "…"


def _place(mark: yaml.Mark | None) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"{_printable(twice)}: expected each key once")
    return document


def _refuse_constant(_: str) -> NoReturn:
    raise DocumentError("expected finite numbers; NaN and Infinity are not JSON")


def _construct_only_json(loader: yaml.SafeLoader, node: yaml.Node) -> NoReturn:
    del loader
    raise DocumentError(f"expected strings, numbers, booleans, lists and mappings{_place(node.start_mark)}")


class _Loader(yaml.SafeLoader):
    """YAML as JSON values only."""

    # A date in a label is a label: YAML's own timestamps would turn it into something JSON has no word for.
    yaml_implicit_resolvers = {  # noqa: RUF012 - a table of the parent's
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - a table of the parent's
        **yaml.SafeLoader.yaml_constructors,
        **{f"{_TAG}{kind}": _construct_only_json for kind in ("binary", "set", "omap", "pairs", "timestamp")},
    }

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """The next mapping, refused when a key is no string or stands twice (before merge keys are filled in)."""
        node = super().compose_mapping_node(anchor)
        written: set[str] = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                raise DocumentError(f"expected keys that are strings{_place(key.start_mark)}; quote them")
            if key.value in written:
                raise DocumentError(f"{_printable(key.value)}: expected each key once{_place(key.start_mark)}")
            written.add(key.value)
        return node
