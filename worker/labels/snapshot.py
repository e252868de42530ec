"""Everything that is known of label schemas at one moment, replaced whole and never changed. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from worker.errors import SchemaError
from worker.labels.published import Pointer, Publication, read_pointer
from worker.labels.schema import LabelSchema
from worker.messages.reference import SchemaReference

_MALFORMED = 'the pointer: expected {"version": n}'

Read = Callable[[str, bytes], LabelSchema]
"""The label schema under a reference; raises SchemaError where it is none, or cannot be used here."""


@dataclass(frozen=True, slots=True)
class SchemaRefusal:
    """A document that was refused, and why; what held before still holds."""

    origin: str
    reason: str
    name: str | None = None
    """The label schema it would have been, where it says so."""

    def __str__(self) -> str:
        """`origin: reason`."""
        return f"{self.origin}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Judged:
    """One document of the topic, and what became of it."""

    value: bytes
    schema: LabelSchema | None
    reason: str | None
    """Why it is refused."""
    first_digest: str | None
    """Of the first document that was accepted under this version: no other can ever be."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the topic's word on one label schema comes to."""

    judged: Mapping[int, Judged] = field(default_factory=dict)
    valid: Mapping[int, LabelSchema] = field(default_factory=dict)
    is_bound: bool = False
    pointed: int | None = None
    """The version that the pointer names; None where there is no pointer, or it cannot be read."""
    in_force: LabelSchema | None = None
    """The version pointed to if it is valid, else the highest valid one below it."""
    reason: str | None = None
    """Why the version pointed to is refused."""
    refusals: tuple[SchemaRefusal, ...] = ()
    """Of what is newer than the version in force."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What readers see: of a name that the topic binds its verdict holds, of others the highest version of files."""

    files: Mapping[str, Mapping[int, LabelSchema]] = field(default_factory=dict)
    topic: Mapping[str, Verdict] = field(default_factory=dict)
    file_refusals: tuple[SchemaRefusal, ...] = ()
    retired: Mapping[str, LabelSchema] = field(default_factory=dict)
    """By reference, what held once and is no longer there: for records that were read before it went."""

    def get(self, reference: SchemaReference) -> LabelSchema | None:
        """The label schema that `reference` stands for."""
        name, version = reference
        verdict, files = self.topic.get(name), self.files.get(name, {})
        if version is None:
            if verdict is not None and verdict.in_force is not None:
                return verdict.in_force
            usable = files.keys() if verdict is None else files.keys() & self.versions(name)
            if not usable:
                return None
            version = max(usable)
        # One version is one document: of what the topic has, a file of the same version is no other.
        if verdict is not None and version in verdict.judged:
            return verdict.valid.get(version)
        return files.get(version)

    def source(self, name: str) -> str:
        """`topic` or `directory`: where the version of `name` that holds came from."""
        verdict = self.topic.get(name)
        return "topic" if verdict is not None and verdict.in_force is not None else "directory"

    def names(self) -> set[str]:
        """Every name that has a version."""
        return {*self.files, *(name for name, verdict in self.topic.items() if verdict.valid)}

    def versions(self, name: str) -> set[int]:
        """Every version of `name` that can be pinned."""
        verdict = self.topic.get(name, Verdict())
        return {*(self.files.get(name, {}).keys() - verdict.judged.keys()), *verdict.valid}

    def refusals(self) -> tuple[SchemaRefusal, ...]:
        """Of both sources."""
        return (*self.file_refusals, *(r for _, verdict in sorted(self.topic.items()) for r in verdict.refusals))

    def holding(self, schema: LabelSchema) -> "Snapshot":
        """With `schema` from a file; what is there stays the very object, reading it again is no change."""
        versions = {schema.version: schema, **self.files.get(schema.name, {})}
        return replace(self, files={**self.files, schema.name: versions})

    def hearing(self, verdicts: Mapping[str, Verdict]) -> "Snapshot":
        """With `verdicts` in the place of earlier ones of the same names; remembers what goes."""
        after = replace(self, topic={**self.topic, **verdicts})
        gone: dict[str, LabelSchema] = {}
        for name in verdicts:
            for version in (None, *self.versions(name)):
                reference = SchemaReference(name, version)
                before = self.get(reference)
                if before is not None and after.get(reference) is None:
                    gone[name if version is None else f"{name}@{version}"] = before
        return replace(after, retired={**self.retired, **gone}) if gone else after

    def current(self) -> dict[str, LabelSchema]:
        """By name, what holds now."""
        found = ((name, self.get(SchemaReference(name))) for name in sorted(self.names()))
        return {name: schema for name, schema in found if schema is not None}


def judge(name: str, publication: Publication, before: Verdict, read: Read) -> Verdict:
    """What `publication` comes to, after `before`; documents that have not changed are not read again."""
    judged = {
        version: _judge_document(f"{name}@{version}", value, before.judged.get(version), read)
        for version, value in sorted(publication.documents.items())
    }
    valid = {version: each.schema for version, each in judged.items() if each.schema is not None}
    if publication.pointer is None:
        return Verdict(judged, valid)
    refused = {version: each.reason for version, each in judged.items() if each.reason is not None}
    pointer = read_pointer(publication.pointer)
    if pointer is None:
        in_force = valid[max(valid)] if valid else None
        reason: str | None = _MALFORMED
        malformed = SchemaRefusal(f"topic: {name}", _MALFORMED, name)
        standing = (*_standing(name, refused, in_force), malformed)
    else:
        if (misfit := _misfit(pointer, valid)) is not None:
            valid.pop(pointer.version, None)
            refused.setdefault(pointer.version, misfit)
        below = [version for version in valid if version <= pointer.version]
        in_force = valid[max(below)] if below else None
        reason = refused.get(pointer.version)
        standing = _standing(name, refused, in_force)
    pointed = None if pointer is None else pointer.version
    return Verdict(judged, valid, True, pointed, in_force, reason, standing)  # noqa: FBT003


def _judge_document(reference: str, value: bytes, before: Judged | None, read: Read) -> Judged:
    if before is not None and before.value == value:
        return before
    first = None if before is None else before.first_digest
    try:
        schema = read(reference, value)
    except SchemaError as error:
        return Judged(value, None, str(error), first)
    if first is not None and first != schema.digest:
        return Judged(value, None, "version: expected one that is not in use; it had other content", first)
    return Judged(value, schema, None, schema.digest)


def _misfit(pointer: Pointer, valid: Mapping[int, LabelSchema]) -> str | None:
    schema = valid.get(pointer.version)
    if schema is None:
        return "version: expected one that has a document"
    if pointer.digest not in {None, schema.digest}:
        return "digest: expected that of the pointer; the document was written anew"
    return None


def _standing(name: str, refused: Mapping[int, str], in_force: LabelSchema | None) -> tuple[SchemaRefusal, ...]:
    """Refusals of what is newer than what holds: older ones are history."""
    held = -1 if in_force is None else in_force.version
    return tuple(
        SchemaRefusal(f"topic: {name}@{version}", reason, name)
        for version, reason in sorted(refused.items())
        if version > held
    )
