"""What a change of a label schema comes to, before it is written. Pure."""

from dataclasses import dataclass

from worker.documents import mapping_in
from worker.errors import SchemaError
from worker.labels.published import Publication, read_pointer, read_published
from worker.labels.schema import LabelLimits, LabelSchema, canonical_json, digest_of, parse_schema
from worker.labels.seal import Seal, read_seal
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
    value = publication.documents.get(version)
    return None if value is None else mapping_in(value)


def proposed(document: JsonValue, origin: str, publication: Publication, limits: LabelLimits) -> NewVersion:
    """`document` as the next version.

    Raises:
        SchemaError: it is no label schema, or its version does not rise above every one that was ever written.
    """
    schema = parse_schema(document, origin, limits)
    new = NewVersion(schema.version, canonical_json(document))
    least = next_version(publication)
    if schema.version < least and not is_there(new, publication):
        raise SchemaError(f"{origin}: version: expected at least {least}; versions rise and are never used again")
    return new


def is_there(new: NewVersion, publication: Publication) -> bool:
    """Whether `new` is what the pointer names already: there is nothing to write."""
    pointer = None if publication.pointer is None else read_pointer(publication.pointer)
    is_pointed = pointer is not None and pointer.version == new.version
    return is_pointed and digest_at(publication, new.version) == digest_of(new.canonical)


def rolled_back(
    name: str, publication: Publication, to: int | None, limits: LabelLimits, held: int | None = None
) -> NewVersion:
    """The content of version `to` as the next version.

    Without `to` that of the last version before the one in force that differs from it; where the version pointed to
    is refused, that of the one in force. That is `held` where the workers have said so: they know the model.

    Raises:
        SchemaError: there is no such version, it is not valid, or it is what holds already.
    """
    verdict = verdict_of(name, publication, limits)
    if not verdict.is_bound:
        raise SchemaError(f"{name}: expected a label schema that the topic binds")
    contents = {version: _content(publication, version) for version in verdict.valid}
    if held not in contents:
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
    version = next_version(publication)
    return NewVersion(version, canonical_json({**contents[to], "version": version}), to)


def next_version(publication: Publication) -> int:
    """The lowest version that was never written, nor applied."""
    seal = _seal(publication)
    return max([seal.version, *seal.digests, *publication.documents], default=-1) + 1


def sealed(publication: Publication, new: NewVersion | None) -> Seal:
    """What is to vouch for the documents once `new` is applied, or the name unbound.

    What was vouched for stays; a document that nobody has vouched for yet is taken as it is.
    """
    before = _seal(publication)
    digests = {version: digest_at(publication, version) for version in publication.documents}
    pointer = None if publication.pointer is None else read_pointer(publication.pointer)
    if pointer is not None and pointer.digest is not None:
        digests[pointer.version] = pointer.digest
    found = {version: digest for version, digest in digests.items() if digest is not None}
    found.update(before.digests)
    if new is None:
        return Seal(before.version, found)
    return Seal(max(before.version, new.version), {**found, new.version: digest_of(new.canonical)})


def digest_at(publication: Publication, version: int) -> str | None:
    """The digest of the document of `version`; None where there is none that can be read."""
    document = document_at(publication, version)
    try:
        return None if document is None else digest_of(canonical_json(document))
    except ValueError:  # a string that is no Unicode
        return None


def _seal(publication: Publication) -> Seal:
    return (None if publication.seal is None else read_seal(publication.seal)) or Seal()


def _content(publication: Publication, version: int) -> dict[str, JsonValue]:
    return {key: value for key, value in (document_at(publication, version) or {}).items() if key != "version"}
