"""Whether a JSON Schema may follow another: what people wrote stays valid, what they read stays where it was."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

Direction = Literal["read", "written"]
"""`read`: others write it and we read it. `written`: we write it and others read it."""
Schema = Mapping[str, Any]

_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_ALL_TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


def breaks(before: Schema, after: Schema, direction: Direction) -> list[str]:
    """What of `after` would break who knows `before`; nothing where it may follow."""
    return sorted(set(_Comparison(before, after, direction).at(before, after, "$", frozenset())))


class _Comparison:
    def __init__(self, before: Schema, after: Schema, direction: Direction) -> None:
        self._before, self._after, self._direction = before, after, direction

    def at(self, before: Schema, after: Schema, path: str, seen: frozenset[str]) -> Iterator[str]:
        before_ref = before.get("$ref", "")
        if before_ref and before_ref in seen:
            return
        before, after = _resolved(before, self._before), _resolved(after, self._after)
        olds, news = self._by_type(before, self._before), self._by_type(after, self._after)
        for lost in sorted(self._uncovered(olds.keys(), news.keys())):
            yield f"{path}: {lost} is no longer taken" if self._direction == "read" else f"{path}: may now be {lost}"
        for name in sorted(olds.keys() & news.keys()):
            yield from self._one(name, olds[name], news[name], path, seen | {before_ref})

    def _uncovered(self, olds: Any, news: Any) -> set[str]:  # noqa: ANN401  views of keys
        wide, narrow = (set(news), set(olds)) if self._direction == "read" else (set(olds), set(news))
        return {name for name in narrow - wide if not (name == "integer" and "number" in wide)}

    def _one(self, name: str, old: Schema, new: Schema, path: str, seen: frozenset[str]) -> Iterator[str]:
        yield from self._values(old, new, path)
        yield from self._bounds(old, new, path)
        if name == "array" and "items" in old and "items" in new:
            yield from self.at(old["items"], new["items"], f"{path}[]", seen)
        if name == "object":
            yield from self._object(old, new, path, seen)

    def _object(self, old: Schema, new: Schema, path: str, seen: frozenset[str]) -> Iterator[str]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        for key in sorted(olds.keys() - news.keys()):
            yield f"{path}.{key}: is gone"
        needed, was_needed = set(new.get("required", ())), set(old.get("required", ()))
        for key in sorted(needed - was_needed if self._direction == "read" else was_needed - needed):
            yield f"{path}.{key}: is now needed" if self._direction == "read" else f"{path}.{key}: may now be missing"
        was_closed, is_closed = (each.get("additionalProperties") is False for each in (old, new))
        if self._direction == "read" and is_closed and not was_closed:
            yield f"{path}: other keys are no longer taken"
        for key in sorted(olds.keys() & news.keys()):
            yield from self.at(olds[key], news[key], f"{path}.{key}", seen)

    def _values(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        olds, news = _allowed(old), _allowed(new)
        narrow, wide = (olds, news) if self._direction == "read" else (news, olds)
        if wide is not None and (narrow is None or narrow - wide):
            yield f"{path}: its values have changed"

    def _bounds(self, old: Schema, new: Schema, path: str) -> Iterator[str]:
        loose, tight = (old, new) if self._direction == "read" else (new, old)
        for key in _LOWER:
            if key in tight and loose.get(key, float("-inf")) < tight[key]:
                yield f"{path}: {key} has changed"
        for key in _UPPER:
            if key in tight and loose.get(key, float("inf")) > tight[key]:
                yield f"{path}: {key} has changed"
        if "pattern" in tight and loose.get("pattern") != tight["pattern"]:
            yield f"{path}: pattern has changed"

    def _by_type(self, schema: Schema, root: Schema) -> dict[str, Schema]:
        found: dict[str, Schema] = {}
        for option in schema.get("anyOf", [schema]):
            resolved = _resolved(option, root)
            for name in _types(resolved):
                found[name] = resolved
        return found


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema


def _types(schema: Schema) -> frozenset[str]:
    if "type" in schema:
        return frozenset([schema["type"]] if isinstance(schema["type"], str) else schema["type"])
    values = _allowed(schema)
    if values is not None:
        names = {str: "string", int: "integer", bool: "boolean", float: "number", type(None): "null"}
        return frozenset(names[type(value)] for value in values)
    return _ALL_TYPES


def _allowed(schema: Schema) -> set[Any] | None:
    if "const" in schema:
        return {schema["const"]}
    return set(schema["enum"]) if "enum" in schema else None
