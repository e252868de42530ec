"""What a change of a label schema comes to, before it is written. Pure."""

from dataclasses import dataclass

from worker.documents import DocumentError, parse_json
from worker.errors import SchemaError
from worker.labels.published import Publication, read_pointer, read_published
from worker.labels.schema import LabelLimits, LabelSchema, canonical_json, digest_of, parse_schema
from worker.labels.snapshot import Verdict, judge
from worker.types import JsonValue


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A document as it is to stand in the topic."""

    version: int
    canonical: bytes
    """As given, by `canonical_json`: the digest is taken of these very bytes."""
    rollback_of: int | None = None
    """The version whose content it has."""


def verdict_of(name: str, publication: Publication, limits: LabelLimits) -> Verdict:
    """What `publication` comes to for whoever has no model of its own."""

    def read(reference: str, value: bytes) -> LabelSchema:
        return read_published(reference, value, limits)

    return judge(name, publication, Verdict(), read)


def document_at(publication: Publication, version: int) -> dict[str, JsonValue] | None:
    """The document of `version` as it stands in the topic; None where there is none that is a mapping."""
    try:
        document = parse_json(publication.documents[version].decode("utf-8"))
    except (KeyError, UnicodeDecodeError, DocumentError):
        return None
    return document if isinstance(document, dict) else None


def proposed(document: JsonValue, origin: str, publication: Publication, limits: LabelLimits) -> NewVersion:
    """`document` as the next version.

    Raises:
        SchemaError: it is no label schema, or its version does not rise above every one that was ever written.
    """
    schema = parse_schema(document, origin, limits)
    new = NewVersion(schema.version, canonical_json(document))
    least = max(publication.documents, default=-1) + 1
    if schema.version < least and not is_there(new, publication):
        raise SchemaError(f"{origin}: version: expected at least {least}; versions rise and are never used again")
    return new


def is_there(new: NewVersion, publication: Publication) -> bool:
    """Whether `new` is what the pointer names already: there is nothing to write."""
    pointer = None if publication.pointer is None else read_pointer(publication.pointer)
    is_pointed = pointer is not None and pointer.version == new.version
    return is_pointed and digest_at(publication, new.version) == digest_of(new.canonical)


def rolled_back(name: str, publication: Publication, to: int | None, limits: LabelLimits) -> NewVersion:
    """The content of version `to` as the next version.

    Without `to` that of the last version before the one in force that differs from it; where the version pointed to
    is refused, that of the one in force.

    Raises:
        SchemaError: there is no such version, it is not valid, or it is what holds already.
    """
    verdict = verdict_of(name, publication, limits)
    if not verdict.is_bound:
        raise SchemaError(f"{name}: expected a label schema that the topic binds")
    contents = {version: _content(publication, version) for version in verdict.valid}
    held = None if verdict.in_force is None else verdict.in_force.version
    present = None if held is None else contents[held]
    if to is None and held != verdict.pointed:
        to = held
    if to is None:
        former = [v for v in contents if held is not None and v < held and contents[v] != present]
        if not former:
            raise SchemaError(f"{name}: expected a former version that differs from the present one; there is none")
        to = max(former)
    elif to not in contents:
        raise SchemaError(f"{name}@{to}: expected a version that is there and valid")
    elif contents[to] == present and held == verdict.pointed:
        raise SchemaError(f"{name}@{to}: expected another version; its content holds already")
    version = max(publication.documents) + 1
    return NewVersion(version, canonical_json({**contents[to], "version": version}), to)


def digest_at(publication: Publication, version: int) -> str | None:
    """The digest of the document of `version`; None where there is none that can be read."""
    document = document_at(publication, version)
    return None if document is None else digest_of(canonical_json(document))


def _content(publication: Publication, version: int) -> dict[str, JsonValue]:
    return {key: value for key, value in (document_at(publication, version) or {}).items() if key != "version"}
