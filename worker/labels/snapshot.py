"""Everything that is known of label schemas at one moment, replaced whole and never changed. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from worker.errors import SchemaError
from worker.labels.published import Pointer, Publication, read_pointer
from worker.labels.schema import LabelSchema
from worker.labels.seal import SEAL, Seal, read_seal
from worker.messages.reference import SchemaReference

_MALFORMED = 'the pointer: expected {"version": n}'
_MALFORMED_SEAL = "the seal: expected {version, digests}; nothing vouches for the documents"
_ANEW = "digest: expected that under which it was applied; the document was written anew"
_MISSING = "version: expected one that has a document"

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
    """Why it is refused by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the topic's word on one label schema comes to."""

    judged: Mapping[int, Judged] = field(default_factory=dict)
    valid: Mapping[int, LabelSchema] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    """By version, why its document is refused."""
    is_bound: bool = False
    pointed: int | None = None
    """The version that the pointer names; None where there is no pointer, or it cannot be read."""
    in_force: LabelSchema | None = None
    """The version pointed to if it is valid, else the highest valid one below it, or up to a seal that is higher."""
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

    def fallen_back(self, newest: Mapping[str, tuple[int, str]]) -> Iterator[SchemaRefusal]:
        """What is to be said where the `newest` file of a name, its version and origin, is older than what holds."""
        for name, (version, origin) in newest.items():
            held = max(self.files[name])
            if version < held and self.source(name) == "directory":
                reason = f"version: expected at least {held}, which holds; give what is to hold again a higher version"
                yield SchemaRefusal(origin, reason, name)

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
    """What `publication` comes to; documents that have not changed since `before` are not read again.

    A function of `publication` alone, and so the same for whoever reads it: `before` only saves work.
    """
    judged = {
        version: _judge_document(f"{name}@{version}", value, before.judged.get(version), read)
        for version, value in sorted(publication.documents.items())
    }
    pointer = None if publication.pointer is None else read_pointer(publication.pointer)
    seal = None if publication.seal is None else read_seal(publication.seal)
    refused = dict(_refused(judged, seal or Seal(), pointer))
    valid = {v: each.schema for v, each in judged.items() if each.schema is not None and v not in refused}
    if publication.pointer is None:
        return Verdict(judged, valid, refused)
    against = _against_pointer(name, pointer, seal or Seal(), judged.keys(), refused)
    below = [v for v in valid if pointer is None or v <= max(pointer.version, (seal or Seal()).version)]
    in_force = valid[max(below)] if below else None
    standing = [*_standing(name, refused, in_force)]
    if publication.seal is not None and seal is None:
        standing.append(SchemaRefusal(f"topic: {name}@{SEAL}", _MALFORMED_SEAL, name))
    if against is not None and against not in standing:
        standing.append(against)
    return Verdict(
        judged=judged,
        valid=valid,
        refused=refused,
        is_bound=True,
        pointed=None if pointer is None else pointer.version,
        in_force=in_force,
        reason=None if against is None else against.reason,
        refusals=tuple(standing),
    )


def _judge_document(reference: str, value: bytes, before: Judged | None, read: Read) -> Judged:
    if before is not None and before.value == value:
        return before
    try:
        return Judged(value, read(reference, value), None)
    except SchemaError as error:
        return Judged(value, None, str(error))


def _refused(judged: Mapping[int, Judged], seal: Seal, pointer: Pointer | None) -> Iterator[tuple[int, str]]:
    """Documents that are wrong by themselves, and those that are not what they were when they were applied."""
    for version, each in judged.items():
        vouched = {seal.digests.get(version)}
        if pointer is not None and pointer.version == version:
            vouched.add(pointer.digest)
        if each.schema is None:
            yield version, each.reason or ""
        elif not vouched <= {None, each.schema.digest}:
            yield version, _ANEW


def _against_pointer(
    name: str, pointer: Pointer | None, seal: Seal, there: Collection[int], refused: Mapping[int, str]
) -> SchemaRefusal | None:
    """Why the version pointed to does not hold; None where it does."""
    if pointer is None:
        return SchemaRefusal(f"topic: {name}", _MALFORMED, name)
    version = pointer.version
    if version < seal.version:
        reason = f"the pointer: expected at least {seal.version}; versions rise, and a rollback writes a new one"
        return SchemaRefusal(f"topic: {name}", reason, name)
    why = refused.get(version) if version in there else _MISSING
    return None if why is None else SchemaRefusal(f"topic: {name}@{version}", why, name)


def _standing(name: str, refused: Mapping[int, str], in_force: LabelSchema | None) -> tuple[SchemaRefusal, ...]:
    """Refusals of what is newer than what holds: older ones are history."""
    held = -1 if in_force is None else in_force.version
    return tuple(
        SchemaRefusal(f"topic: {name}@{version}", reason, name)
        for version, reason in sorted(refused.items())
        if version > held
    )
