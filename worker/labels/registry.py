"""Which version of each label schema holds now, and which labels a request is scored under (step 3)."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from worker.documents import key_path
from worker.errors import ErrorCode, MessageError, RetryableError, SchemaError, Stage
from worker.labels.inline import RecentSets, check_template, inline_schema, overridden_schema
from worker.labels.schema import LabelLimits, LabelSchema, parse_schema
from worker.messages.reference import SchemaReference, parse_reference
from worker.types import JsonValue, Request


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
class RegistryChange:
    """What one load or offer did."""

    now_in_force: tuple[LabelSchema, ...]
    """Schemas that hold from now on, and did not before."""
    refused: tuple[SchemaRefusal, ...]
    """Documents that are refused now, and were not before for the same reason."""


Listener = Callable[[RegistryChange], None]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Everything a reader needs, replaced whole and never changed."""

    schemas: Mapping[str, Mapping[int, LabelSchema]] = field(default_factory=dict)
    refusals: tuple[SchemaRefusal, ...] = ()

    def get(self, reference: SchemaReference) -> LabelSchema | None:
        versions = self.schemas.get(reference.name)
        if not versions:
            return None
        return versions.get(max(versions) if reference.version is None else reference.version)

    def holding(self, schema: LabelSchema) -> "_Snapshot":
        # What is there stays the very object: a document that is read again is no change.
        versions = {schema.version: schema, **self.schemas.get(schema.name, {})}
        return replace(self, schemas={**self.schemas, schema.name: versions})

    def current(self) -> dict[str, LabelSchema]:
        return {name: versions[max(versions)] for name, versions in self.schemas.items()}


class LabelRegistry:
    """The label schemas that were accepted: of each name the highest version holds, all can be pinned.

    Nothing that was accepted is ever given up: a version is never replaced, and the one that holds never goes back.
    Thread-safe: readers see one snapshot, which is swapped whole.
    """

    def __init__(self, limits: LabelLimits | None = None, model_digest: str | None = None) -> None:
        """`limits` are for documents; with `model_digest`, schemas that require another model are refused."""
        self._limits = limits
        self._model_digest = model_digest
        self._writing = threading.Lock()
        self._snapshot = _Snapshot()
        self._listeners: tuple[Listener, ...] = ()
        self._recent = RecentSets()

    def subscribe(self, listener: Listener) -> None:
        """Have `listener` called after every change, on the thread that made it."""
        self._listeners = (*self._listeners, listener)

    def load(self, documents: Mapping[str, JsonValue], unreadable: Mapping[str, str] | None = None) -> RegistryChange:
        """Take in all documents of a source, by their origin; `unreadable` are those that could not be read, and why.

        Each document is accepted or refused by itself; the refusals are those of this load from now on.
        """
        refusals = [SchemaRefusal(origin, reason) for origin, reason in (unreadable or {}).items()]
        with self._writing:
            before = self._snapshot
            after = before
            for origin, document in documents.items():
                try:
                    schema = parse_schema(document, origin, self._limits)
                    self._check(schema, after, origin)
                except SchemaError as error:
                    reason = str(error).removeprefix(f"{origin}: ")
                    refusals.append(SchemaRefusal(origin, reason, _name_in(document)))
                else:
                    after = after.holding(schema)
            after = replace(after, refusals=tuple(refusals))
            self._snapshot = after
        return self._tell(before, after)

    def offer(self, schema: LabelSchema, origin: str = "offered") -> RegistryChange:
        """Take in one label schema; a refusal replaces an earlier one of the same origin."""
        with self._writing:
            before = self._snapshot
            refusals = tuple(refusal for refusal in before.refusals if refusal.origin != origin)
            try:
                self._check(schema, before, origin)
            except SchemaError as error:
                refusal = SchemaRefusal(origin, str(error).removeprefix(f"{origin}: "), schema.name)
                after = replace(before, refusals=(*refusals, refusal))
            else:
                after = replace(before.holding(schema), refusals=refusals)
            self._snapshot = after
        return self._tell(before, after)

    def names(self) -> tuple[str, ...]:
        """The label schemas there are, sorted."""
        return tuple(sorted(self._snapshot.schemas))

    def current(self, name: str) -> LabelSchema | None:
        """The version of `name` that holds now."""
        return self._snapshot.get(SchemaReference(name))

    def versions(self, name: str) -> tuple[int, ...]:
        """Every version of `name` that can be pinned, rising."""
        return tuple(sorted(self._snapshot.schemas.get(name, ())))

    def find(self, reference: str) -> LabelSchema | None:
        """The label schema that `name` or `name@version` stands for now."""
        parsed = parse_reference(reference)
        return None if parsed is None else self._snapshot.get(parsed)

    def refusals(self) -> tuple[SchemaRefusal, ...]:
        """The documents that are refused at present."""
        return self._snapshot.refusals

    def describe(self) -> dict[str, JsonValue]:
        """What holds and what is refused, as JSON; label sets that messages carry are not in it."""
        snapshot = self._snapshot
        schemas: list[JsonValue] = [
            {
                "name": name,
                "version": schema.version,
                "digest": schema.digest,
                "mode": "multi" if schema.multi_label else "single",
                "labels": [label.name for label in schema.labels],
                "versions": [*sorted(snapshot.schemas[name])],
            }
            for name, schema in sorted(snapshot.current().items())
        ]
        refused: list[JsonValue] = [
            {"name": refusal.name, "origin": refusal.origin, "reason": refusal.reason} for refusal in snapshot.refusals
        ]
        return {"schemas": schemas, "refusals": refused}

    def resolve(self, request: Request, default: str | None, limits: LabelLimits) -> LabelSchema:
        """The labels that `request` is scored under, pinned; `default` is its topic's own schema.

        What a message changes of a named schema makes a variant of the same name and version, with the digest of the
        effective document; see `worker.labels.inline`.

        Raises:
            MessageError: at the stage `resolve`: the request's labels, template or schema cannot be used.
            RetryableError: the topic's own schema is not there; the request is not at fault.
        """
        snapshot = self._snapshot
        if request.labels is not None:
            base = None if default is None else _own(snapshot, default)
            return self._recent.get_or_make(request, base, limits, lambda: inline_schema(request, base, limits))
        check_template(request.hypothesis_template, limits)
        if request.label_schema is not None:
            schema = _named(snapshot, request.label_schema)
        elif default is not None:
            schema = _own(snapshot, default)
        else:
            reason = "labels: expected labels or label_schema; the topic has no label schema of its own"
            raise MessageError(ErrorCode.LABELS_MISSING, Stage.RESOLVE, reason)
        if request.hypothesis_template is None and request.multi_label is None:
            return schema
        return self._recent.get_or_make(request, schema, limits, lambda: overridden_schema(schema, request, limits))

    def _check(self, schema: LabelSchema, snapshot: _Snapshot, origin: str) -> None:
        held = snapshot.get(SchemaReference(schema.name, schema.version))
        if held is not None and held.digest != schema.digest:
            raise SchemaError(f"{origin}: version: expected one that is not in use; {schema.version} has other content")
        if self._model_digest is not None and schema.requires_model not in {None, self._model_digest}:
            raise SchemaError(f"{origin}: requires_model: expected the model of this worker, which is another")

    def _tell(self, before: _Snapshot, after: _Snapshot) -> RegistryChange:
        earlier = before.current()
        change = RegistryChange(
            now_in_force=tuple(schema for name, schema in after.current().items() if earlier.get(name) is not schema),
            refused=tuple(refusal for refusal in after.refusals if refusal not in before.refusals),
        )
        if change.now_in_force or change.refused:
            for listener in self._listeners:
                listener(change)
        return change


def _name_in(document: JsonValue) -> str | None:
    name = document.get("name") if isinstance(document, dict) else None
    return name if isinstance(name, str) and parse_reference(name) == SchemaReference(name) else None


def _own(snapshot: _Snapshot, default: str) -> LabelSchema:
    reference = parse_reference(default)
    schema = None if reference is None else snapshot.get(reference)
    if schema is None:
        raise RetryableError(f"label schema {key_path([default])}: the topic's own, and not there yet")
    return schema


def _named(snapshot: _Snapshot, text: str) -> LabelSchema:
    name, _, _ = text.partition("@")
    reference = parse_reference(text)
    schema = None if reference is None else snapshot.get(reference)
    if schema is not None:
        return schema
    if name in snapshot.schemas:
        reason = "label_schema: no such version of this label schema"
        raise MessageError(ErrorCode.SCHEMA_VERSION_UNKNOWN, Stage.RESOLVE, reason)
    raise MessageError(ErrorCode.SCHEMA_UNKNOWN, Stage.RESOLVE, "label_schema: no such label schema")
