"""What the compacted label topic says: the last value under each key, and nothing else. Pure.

Compaction keeps the last value of each key. Whoever decides by these alone decides the same, however late it came.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from worker.documents import DocumentError, mapping_in, parse_json
from worker.errors import SchemaError
from worker.labels.schema import LabelLimits, LabelSchema, canonical_json, parse_schema
from worker.labels.seal import SEAL
from worker.messages.reference import SchemaReference, parse_reference
from worker.types import JsonValue

_Key = TypeVar("_Key", str, int)


class Pointer(NamedTuple):
    """Which version of a label schema is to hold."""

    version: int
    digest: str | None = None
    """The digest that its document must have; None where whoever wrote the pointer did not say."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What the topic holds of one label schema, as bytes."""

    documents: Mapping[int, bytes] = field(default_factory=dict)
    """The document of each version."""
    pointer: bytes | None = None
    """None where the name is not bound."""
    seal: bytes | None = None
    """What vouches for the documents; None where nothing does."""


class PublishedSchemas:
    """The last value under each key, as far as the topic was read. Not thread-safe."""

    def __init__(self) -> None:
        self._documents: dict[str, dict[int, bytes]] = {}
        self._pointers: dict[str, bytes] = {}
        self._seals: dict[str, bytes] = {}

    def note(self, key: bytes | None, value: bytes | None) -> str | None:
        """Take in the next record; the name that it concerns, None where the key names no label schema."""
        if (sealed := _sealed(key)) is not None:
            _keep(self._seals, sealed, value)
            return sealed
        reference = _reference(key)
        if reference is None:
            return None
        name, version = reference
        if version is None:
            _keep(self._pointers, name, value)
        else:
            _keep(self._documents.setdefault(name, {}), version, value)
        return name

    def names(self) -> tuple[str, ...]:
        """Every name that has a document or a pointer, sorted."""
        return tuple(sorted({*self._pointers, *(name for name, kept in self._documents.items() if kept)}))

    def of(self, name: str) -> Publication:
        """What there is of `name`."""
        return Publication(dict(self._documents.get(name, {})), self._pointers.get(name), self._seals.get(name))


def pointer_bytes(pointer: Pointer) -> bytes:
    """The value under a name."""
    document: dict[str, JsonValue] = {"version": pointer.version}
    if pointer.digest is not None:
        document["digest"] = pointer.digest
    return canonical_json(document)


def read_pointer(value: bytes) -> Pointer | None:
    """The pointer that `value` is; None where it is none."""
    document = mapping_in(value)
    if document is None:
        return None
    version, digest = document.get("version"), document.get("digest")
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        return None
    return Pointer(version, digest) if digest is None or isinstance(digest, str) else None


def read_published(reference: str, value: bytes, limits: LabelLimits | None = None) -> LabelSchema:
    """The label schema that stands in the topic under `reference`, `name@version`.

    Raises:
        SchemaError: it is none, or another one; the message does not name the origin.
    """
    try:
        document = parse_json(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SchemaError(f"expected UTF-8; byte {error.start} is not") from None
    except DocumentError as error:
        raise SchemaError(str(error)) from None
    try:
        schema = parse_schema(document, reference, limits)
    except SchemaError as error:
        raise SchemaError(str(error).removeprefix(f"{reference}: ")) from None
    if schema.reference != reference:
        raise SchemaError("name, version: expected those of the key that it stands under")
    return schema


def _keep(kept: dict[_Key, bytes], key: _Key, value: bytes | None) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        kept[key] = value


def _sealed(key: bytes | None) -> str | None:
    """The name whose seal stands under `key`."""
    name, _, what = (key or b"").decode("utf-8", "replace").partition("@")
    return name if what == SEAL and parse_reference(name) == SchemaReference(name) else None


def _reference(key: bytes | None) -> SchemaReference | None:
    try:
        text = (key or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    reference = parse_reference(text)
    if reference is None or reference.version is None:
        return reference
    # One spelling only: `a@7` and `a@07` would be two documents of one version.
    return reference if text == f"{reference.name}@{reference.version}" else None
