"""Which version of each label schema holds now, and which labels a request is scored under (step 3)."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from worker.documents import key_path
from worker.errors import ErrorCode, MessageError, RetryableError, SchemaError, Stage
from worker.labels.inline import RecentSets, check_template, inline_schema, overridden_schema
from worker.labels.published import Publication, read_published
from worker.labels.schema import LabelLimits, LabelSchema, parse_schema
from worker.labels.snapshot import SchemaRefusal, Snapshot, Verdict, judge
from worker.messages.reference import SchemaReference, parse_reference
from worker.types import JsonValue, Request

__all__ = ["LabelRegistry", "RegistryChange", "SchemaRefusal"]


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """What one load or offer did."""

    now_in_force: tuple[LabelSchema, ...]
    """Schemas that hold from now on, and did not before."""
    refused: tuple[SchemaRefusal, ...]
    """Documents that are refused now, and were not before for the same reason."""
    gone: tuple[str, ...] = ()
    """Names of which no version holds any more."""


Listener = Callable[[RegistryChange], None]


class LabelRegistry:
    """The label schemas that were accepted, all of which can be pinned, and which version of each name holds.

    Of a name that the topic binds, what its pointer says (see `worker.labels.snapshot`); of any other the highest
    version among the files, of which nothing that was accepted is ever given up. No version is ever replaced.
    Thread-safe: readers see one snapshot, which is swapped whole.
    """

    def __init__(
        self,
        limits: LabelLimits | None = None,
        model_digest: str | None = None,
        prepare: Callable[[LabelSchema], None] | None = None,
    ) -> None:
        """`limits` are for documents; with `model_digest`, schemas that require another model are refused.

        `prepare` is called with each schema before it can hold, and raises SchemaError where it never can.
        """
        self._limits = limits
        self._model_digest = model_digest
        self._prepare = prepare
        self._writing = threading.Lock()
        self._snapshot = Snapshot()
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
        newest: dict[str, tuple[int, str]] = {}
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
                    newest[schema.name] = max(newest.get(schema.name, (-1, "")), (schema.version, origin))
            refusals += after.fallen_back(newest)
            after = replace(after, file_refusals=tuple(refusals))
            self._snapshot = after
        return self._tell(before, after)

    def offer(self, schema: LabelSchema, origin: str = "offered") -> RegistryChange:
        """Take in one label schema; a refusal replaces an earlier one of the same origin."""
        with self._writing:
            before = self._snapshot
            refusals = tuple(refusal for refusal in before.file_refusals if refusal.origin != origin)
            try:
                self._check(schema, before, origin)
            except SchemaError as error:
                refusal = SchemaRefusal(origin, str(error).removeprefix(f"{origin}: "), schema.name)
                after = replace(before, file_refusals=(*refusals, refusal))
            else:
                after = replace(before.holding(schema), file_refusals=refusals)
            self._snapshot = after
        return self._tell(before, after)

    def publish(self, publications: Mapping[str, Publication]) -> RegistryChange:
        """Take in what the topic holds of these names; where it binds one, its word goes before that of files."""

        def read(reference: str, value: bytes) -> LabelSchema:
            schema = read_published(reference, value, self._limits)
            self._check_use(schema)
            return schema

        with self._writing:
            before = self._snapshot
            verdicts = {
                name: judge(name, publication, before.topic.get(name, Verdict()), read)
                for name, publication in publications.items()
            }
            after = before.hearing(verdicts)
            self._snapshot = after
        return self._tell(before, after)

    def verdict(self, name: str) -> Verdict:
        """What the topic's word on `name` comes to."""
        return self._snapshot.topic.get(name, Verdict())

    def names(self) -> tuple[str, ...]:
        """The label schemas there are, sorted."""
        return tuple(sorted(self._snapshot.names()))

    def source(self, name: str) -> str:
        """`topic` or `directory`: where the version of `name` that holds came from."""
        return self._snapshot.source(name)

    def current(self, name: str) -> LabelSchema | None:
        """The version of `name` that holds now."""
        return self._snapshot.get(SchemaReference(name))

    def versions(self, name: str) -> tuple[int, ...]:
        """Every version of `name` that can be pinned, rising."""
        return tuple(sorted(self._snapshot.versions(name)))

    def find(self, reference: str) -> LabelSchema | None:
        """The label schema that `name` or `name@version` stands for now."""
        parsed = parse_reference(reference)
        return None if parsed is None else self._snapshot.get(parsed)

    def refusals(self) -> tuple[SchemaRefusal, ...]:
        """The documents that are refused at present."""
        return self._snapshot.refusals()

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
                "versions": [*sorted(snapshot.versions(name))],
                "source": snapshot.source(name),
                "notes": [*self._notes(schema)],
            }
            for name, schema in snapshot.current().items()
        ]
        refused: list[JsonValue] = [
            {"name": refusal.name, "origin": refusal.origin, "reason": refusal.reason}
            for refusal in snapshot.refusals()
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

    def _check(self, schema: LabelSchema, snapshot: Snapshot, origin: str) -> None:
        held = snapshot.files.get(schema.name, {}).get(schema.version)
        if held is not None and held.digest != schema.digest:
            raise SchemaError(f"{origin}: version: expected one that is not in use; {schema.version} has other content")
        try:
            if held is None:
                self._check_use(schema)
        except SchemaError as error:
            raise SchemaError(f"{origin}: {error}") from None

    def _check_use(self, schema: LabelSchema) -> None:
        if self._model_digest is not None and schema.requires_model not in {None, self._model_digest}:
            raise SchemaError("requires_model: expected the model of this worker, which is another")
        if self._prepare is not None:
            self._prepare(schema)

    def _notes(self, schema: LabelSchema) -> Iterator[str]:
        calibration = schema.calibration
        if calibration is not None and self._model_digest not in {None, calibration.model}:
            yield "calibration: made for another model, and ignored"

    def _tell(self, before: Snapshot, after: Snapshot) -> RegistryChange:
        earlier, now, refused = before.current(), after.current(), set(before.refusals())
        change = RegistryChange(
            now_in_force=tuple(schema for name, schema in now.items() if earlier.get(name) is not schema),
            refused=tuple(refusal for refusal in after.refusals() if refusal not in refused),
            gone=tuple(name for name in earlier if name not in now),
        )
        if change.now_in_force or change.refused or change.gone:
            for listener in self._listeners:
                listener(change)
        return change


def _name_in(document: JsonValue) -> str | None:
    name = document.get("name") if isinstance(document, dict) else None
    return name if isinstance(name, str) and parse_reference(name) == SchemaReference(name) else None


def _own(snapshot: Snapshot, default: str) -> LabelSchema:
    reference = _parse_own(default)
    # A record that was read before its schema went is still scored under what held then.
    schema = (None if reference is None else snapshot.get(reference)) or snapshot.retired.get(default)
    if schema is None:
        raise RetryableError(f"label schema {key_path([default])}: the topic's own, and not there yet")
    return schema


_parse_own = lru_cache(maxsize=256)(parse_reference)
"""For references of the configuration: those of messages may be anything, and are not kept."""


def _named(snapshot: Snapshot, text: str) -> LabelSchema:
    name, _, _ = text.partition("@")
    reference = parse_reference(text)
    schema = None if reference is None else snapshot.get(reference)
    if schema is not None:
        return schema
    if name in snapshot.names():
        reason = "label_schema: no such version of this label schema"
        raise MessageError(ErrorCode.SCHEMA_VERSION_UNKNOWN, Stage.RESOLVE, reason)
    raise MessageError(ErrorCode.SCHEMA_UNKNOWN, Stage.RESOLVE, "label_schema: no such label schema")
