"""Whether an Avro schema may follow another: `FULL`, as a schema registry calls it, and no field is taken away."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Any
"""As in an .avsc file: a name, a list for a union, or a mapping."""

_PROMOTED: Mapping[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""What a value may be read as, by what it was written as: the Avro specification, "Schema Resolution"."""


def avro_breaks(before: Schema, after: Schema) -> list[str]:
    """What of `after` would break who knows `before`; nothing where it may follow."""
    new = [f"new readers: {found}" for found in unread(before, after)]
    old = [f"old readers: {found}" for found in unread(after, before)]
    return sorted([*new, *old, *(f"{path}: is gone" for path in _fields(before) - _fields(after))])


def unread(writer: Schema, reader: Schema) -> list[str]:
    """What was written under one schema and cannot be read under the other."""
    return sorted(set(_Resolution(writer, reader).at(writer, reader, "$")))


class _Resolution:
    def __init__(self, writer: Schema, reader: Schema) -> None:
        self._written, self._wanted = dict(_named(writer)), dict(_named(reader))
        self._seen: set[tuple[str, str]] = set()

    def at(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        if isinstance(writer, list):
            for option in writer:
                yield from self.at(option, reader, path)
            return
        written = self._written.get(writer, writer) if isinstance(writer, str) else writer
        readers = [self._wanted.get(each, each) if isinstance(each, str) else each for each in _options(reader)]
        same = [each for each in readers if _kind(each) == _kind(written)]
        promoted = [each for each in readers if _kind(each) in _PROMOTED.get(_kind(written), frozenset())]
        if not same and not promoted:
            yield f"{path}: {_kind(written)} is not taken"
        elif same:
            yield from self._same(written, same[0], path)

    def _same(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        kind = _kind(writer)
        if kind == "array":
            yield from self.at(writer["items"], reader["items"], f"{path}[]")
        elif kind == "map":
            yield from self.at(writer["values"], reader["values"], f"{path}{{}}")
        elif kind in {"record", "enum", "fixed"}:
            yield from self._one_name(kind, writer, reader, path)

    def _one_name(self, kind: str, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        if writer["name"] not in {reader["name"], *reader.get("aliases", ())}:
            yield f"{path}: {writer['name']} is called {reader['name']}"
        elif kind == "enum" and "default" not in reader:
            for symbol in sorted(set(writer["symbols"]) - set(reader["symbols"])):
                yield f"{path}: {symbol} is not taken"
        elif kind == "fixed" and writer["size"] != reader["size"]:
            yield f"{path}: size has changed"
        elif kind == "record" and (writer["name"], reader["name"]) not in self._seen:
            self._seen.add((writer["name"], reader["name"]))
            yield from self._record(writer, reader, path)

    def _record(self, writer: Schema, reader: Schema, path: str) -> Iterator[str]:
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            names = [name for name in (field["name"], *field.get("aliases", ())) if name in written]
            if names:
                yield from self.at(written[names[0]]["type"], field["type"], f"{path}.{field['name']}")
            elif "default" not in field:
                yield f"{path}.{field['name']}: was not written, and has no default"


def _options(schema: Schema) -> list[Schema]:
    return schema if isinstance(schema, list) else [schema]


def _kind(schema: Schema) -> str:
    return str(schema if isinstance(schema, str) else schema["type"])


def _named(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every type that has a name, under it and under its full one."""
    for option in _options(schema):
        if not isinstance(option, str):
            if "name" in option:
                yield option["name"], option
                yield f"{option.get('namespace', '')}.{option['name']}", option
            for inner in _inner(option).values():
                yield from _named(inner)


def _fields(schema: Schema, path: str = "$") -> set[str]:
    found: set[str] = set()
    for option in _options(schema):
        if not isinstance(option, str):
            for step, inner in _inner(option).items():
                found |= ({path + step} if step.startswith(".") else set()) | _fields(inner, path + step)
    return found


def _inner(schema: Mapping[str, Any]) -> dict[str, Schema]:
    """The schemas that one is made of, by the step that leads there."""
    parts = {f".{field['name']}": field["type"] for field in schema.get("fields", ())}
    return parts | {step: schema[key] for key, step in (("items", "[]"), ("values", "{}")) if key in schema}
