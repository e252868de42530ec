"""What holds of the schemas in the label topic: the pointer decides, and every reader decides alike."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode, MessageError, RetryableError, SchemaError
from worker.labels.published import Pointer, PublishedSchemas, pointer_bytes, read_pointer
from worker.labels.registry import LabelRegistry, RegistryChange
from worker.labels.schema import DefaultLimits, LabelSchema, canonical_json, digest_of, parse_schema
from worker.labels.seal import MOST_SEALED, Seal, read_seal, seal_bytes
from worker.types import JsonValue, Request

LIMITS = DefaultLimits()
BAD_VERSIONS = frozenset({2, 5})
ANEW = "digest: expected that under which it was applied; the document was written anew"
Entry = tuple[bytes, bytes | None]


def document(version: int, name: str = "kinds", **more: JsonValue) -> dict[str, Any]:
    return {"name": name, "version": version, "labels": [{"name": "billing"}, {"name": f"v{version}"}], **more}


def written(version: int, name: str = "kinds", **more: JsonValue) -> Entry:
    return f"{name}@{version}".encode(), canonical_json(document(version, name, **more))


def pointing(version: int, name: str = "kinds", digest: str | None = None) -> Entry:
    return name.encode(), pointer_bytes(Pointer(version, digest))


def sealing(version: int, *versions: int, name: str = "kinds") -> Entry:
    """A seal of the first writing of `versions`."""
    digests = {each: digest_of(canonical_json(document(each, name))) for each in versions}
    return f"{name}@seal".encode(), seal_bytes(Seal(version, digests))


def registry_after(*entries: Entry, step: int = 1000, registry: LabelRegistry | None = None) -> LabelRegistry:
    """A registry that was told after every `step` entries."""
    labels, state = registry or LabelRegistry(), PublishedSchemas()
    for start in range(0, len(entries), step):
        touched = {name for entry in entries[start : start + step] if (name := state.note(*entry)) is not None}
        labels.publish({name: state.of(name) for name in touched})
    return labels


def version_in_force(labels: LabelRegistry, name: str = "kinds") -> int | None:
    schema = labels.current(name)
    return None if schema is None else schema.version


def test_the_pointer_decides_and_not_the_height_of_the_version() -> None:
    labels = registry_after(written(1), written(2), written(3), pointing(2))
    assert 2 == version_in_force(labels)
    assert (1, 2, 3) == labels.versions("kinds")
    assert "topic" == labels.source("kinds")


def test_a_pointer_without_a_seal_may_go_back() -> None:
    assert 1 == version_in_force(registry_after(written(1), written(2), pointing(2), pointing(1), step=1))


def test_documents_without_a_pointer_hold_for_nobody_and_can_be_pinned() -> None:
    labels = registry_after(written(4))
    assert version_in_force(labels) is None
    assert labels.find("kinds@4") is not None


def test_a_refused_version_leaves_the_highest_valid_one_below_it_in_force_and_is_reported() -> None:
    labels = registry_after(written(1), written(2), written(4), written(3, labels=[]), pointing(3))
    assert 2 == version_in_force(labels)
    assert [("topic: kinds@3", "labels: expected at least 1, not 0", "kinds")] == [
        (refusal.origin, refusal.reason, refusal.name) for refusal in labels.refusals()
    ]
    verdict = labels.verdict("kinds")
    assert (3, "labels: expected at least 1, not 0") == (verdict.pointed, verdict.reason)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ((b"kinds@3", b"{"), "expected JSON; not understood (line 1, column 2)"),
        ((b"kinds@3", b"\xff"), "expected UTF-8; byte 0 is not"),
        ((b"kinds@3", canonical_json(document(4))), "name, version: expected those of the key that it stands under"),
        ((b"other@1", b"{}"), "version: expected one that has a document"),
        (written(3, requires_model="sha256:" + "0" * 64), "requires_model: expected the model of this worker, which"),
        (written(3, description="unfit"), "unfit"),
    ],
)
def test_whatever_is_wrong_with_the_version_pointed_to_the_last_good_one_stays(entry: Entry, reason: str) -> None:
    def prepare(schema: LabelSchema) -> None:
        if schema.description == "unfit":
            raise SchemaError("unfit")

    labels = LabelRegistry(model_digest="sha256:" + "1" * 64, prepare=prepare)
    registry_after(written(1), pointing(1), entry, pointing(3), step=1, registry=labels)
    assert 1 == version_in_force(labels)
    assert str(labels.verdict("kinds").reason).startswith(reason)


def test_a_refusal_is_history_once_something_newer_holds() -> None:
    labels = registry_after(written(1), written(2, labels=[]), written(3), pointing(3))
    assert () == labels.refusals()


def test_an_unreadable_pointer_is_refused_and_the_highest_valid_version_holds() -> None:
    for value in (b"", b"7", b"{}", b"\xff", b'{"version": true}', b'{"version": -1}', b'{"version": 1, "digest": 5}'):
        assert read_pointer(value) is None
        labels = registry_after(written(1), written(2), (b"kinds", value))
        assert 2 == version_in_force(labels)
        assert ["topic: kinds"] == [refusal.origin for refusal in labels.refusals()]


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("voucher", ["pointer", "seal"])
def test_a_document_that_is_written_anew_under_its_version_never_takes_hold(step: int, voucher: str) -> None:
    by_pointer = [pointing(2, digest=digest_of(canonical_json(document(2))))]
    vouched = by_pointer if voucher == "pointer" else [pointing(2), sealing(2, 1, 2)]
    labels = registry_after(written(1), written(2), *vouched, written(2, top_k=1), step=step)
    assert 1 == version_in_force(labels)
    assert labels.find("kinds@2") is None
    assert [("topic: kinds@2", ANEW)] == [(each.origin, each.reason) for each in labels.refusals()]
    registry_after(written(1), *vouched, written(2, top_k=1), written(2), step=step, registry=labels)
    assert 2 == version_in_force(labels), "the document that was applied is there again"


@pytest.mark.parametrize("step", [1, 1000])
def test_a_seal_vouches_for_every_version_and_not_for_the_one_pointed_to_alone(step: int) -> None:
    labels = registry_after(
        written(1), written(2), pointing(2), sealing(2, 1, 2), written(1, top_k=1), pointing(3), written(3), step=step
    )
    assert 3 == version_in_force(labels)
    assert (2, 3) == labels.versions("kinds")
    assert {1: ANEW} == labels.verdict("kinds").refused


@pytest.mark.parametrize("step", [1, 1000])
def test_where_nothing_vouches_for_a_document_its_last_writing_holds_for_everybody(step: int) -> None:
    labels = registry_after(written(1), written(2), pointing(2), written(2, top_k=1), step=step)
    found = labels.current("kinds")
    assert found is not None
    assert (2, 1) == (found.version, found.top_k)


@pytest.mark.parametrize("step", [1, 1000])
def test_a_pointer_that_goes_back_below_its_seal_is_refused_and_the_version_that_held_holds(step: int) -> None:
    entries = [written(n) for n in range(4)]
    labels = registry_after(*entries, pointing(3), sealing(3, 1, 2, 3), pointing(1), step=step)
    reason = "the pointer: expected at least 3; versions rise, and a rollback writes a new one"
    assert 3 == version_in_force(labels)
    assert (1, reason) == (labels.verdict("kinds").pointed, labels.verdict("kinds").reason)
    assert [("topic: kinds", reason)] == [(each.origin, each.reason) for each in labels.refusals()]
    registry_after(*entries, sealing(3, 1, 2, 3), written(4), pointing(4), registry=labels)
    assert (4, ()) == (version_in_force(labels), labels.refusals())


def test_a_pointer_that_goes_back_to_a_version_that_is_refused_too_is_told_of_both() -> None:
    labels = registry_after(written(1, labels=[]), pointing(1), sealing(3, 1))
    assert version_in_force(labels) is None
    assert ["topic: kinds@1", "topic: kinds"] == [refusal.origin for refusal in labels.refusals()]
    assert str(labels.verdict("kinds").reason).startswith("the pointer: expected at least 3")


@pytest.mark.parametrize(
    "value",
    [
        b"?",
        b"\xff",
        b"7",
        b'{"version": 7}',
        b'{"version": true, "digests": {}}',
        b'{"version": 7, "digests": {"x": "sha256:"}}',
        b'{"version": 7, "digests": {"1": 5}}',
    ],
)
def test_a_seal_that_cannot_be_read_vouches_for_nothing_and_is_reported(value: bytes) -> None:
    labels = registry_after(written(1), pointing(1), (b"kinds@seal", value))
    assert 1 == version_in_force(labels)
    assert ["topic: kinds@seal"] == [refusal.origin for refusal in labels.refusals()]
    assert labels.verdict("kinds").reason is None


def test_a_seal_keeps_to_the_highest_versions_where_there_are_too_many() -> None:
    many = Seal(MOST_SEALED + 5, dict.fromkeys(range(MOST_SEALED + 6), "sha256:" + "0" * 64))
    kept = read_seal(seal_bytes(many))
    assert kept is not None
    assert (MOST_SEALED + 5, set(range(6, MOST_SEALED + 6))) == (kept.version, set(kept.digests))
    assert len(seal_bytes(many)) < 100 * MOST_SEALED


def test_a_tombstone_unbinds_and_its_documents_can_still_be_pinned() -> None:
    labels = registry_after(written(1), pointing(1), (b"kinds", None), step=1)
    assert version_in_force(labels) is None
    assert labels.find("kinds@1") is not None


def test_records_read_before_their_schema_went_are_still_scored_under_it() -> None:
    labels = registry_after(written(1), pointing(1), (b"kinds", None), (b"kinds@1", None), step=1)
    assert labels.find("kinds") is None
    assert 1 == labels.resolve(Request("i", "t"), "kinds", LIMITS).version
    assert 1 == labels.resolve(Request("i", "t"), "kinds@1", LIMITS).version
    with pytest.raises(RetryableError):
        labels.resolve(Request("i", "t"), "others", LIMITS)


def test_the_topic_wins_for_a_name_and_files_hold_where_it_binds_none() -> None:
    files = LabelRegistry()
    files.load({"a.yaml": document(9), "b.yaml": document(1, "others")})
    labels = registry_after(written(1), pointing(1), registry=files)
    assert (1, "topic") == (version_in_force(labels), labels.source("kinds"))
    assert (1, "directory") == (version_in_force(labels, "others"), labels.source("others"))
    assert (1, 9) == labels.versions("kinds")
    state = PublishedSchemas()
    state.note(*written(1))
    labels.publish({"kinds": state.of("kinds")})
    assert (9, "directory") == (version_in_force(labels), labels.source("kinds"))


@pytest.mark.parametrize("is_file_first", [True, False])
def test_what_the_topic_refuses_is_not_served_from_a_file_of_the_same_version(is_file_first: bool) -> None:
    labels, files = LabelRegistry(), {"a.json": document(4), "b.json": document(5)}
    for step in (True, False):
        if step is is_file_first:
            labels.load(files)
        else:
            registry_after(written(5, labels=[]), registry=labels)
    assert labels.find("kinds@5") is None
    assert (4,) == labels.versions("kinds")
    assert 4 == version_in_force(labels)
    with pytest.raises(MessageError) as caught:
        labels.resolve(Request("i", "t", label_schema="kinds@5"), "kinds", LIMITS)
    assert ErrorCode.SCHEMA_VERSION_UNKNOWN == caught.value.code


def test_a_version_that_both_sources_have_is_the_topic_s_also_where_the_topic_does_not_bind_its_name() -> None:
    labels = LabelRegistry()
    labels.load({"a.json": document(5, description="of a file")})
    registry_after(written(5, description="of the topic"), registry=labels)
    found = [labels.find(reference) for reference in ("kinds", "kinds@5")]
    assert ["of the topic"] * 2 == [schema.description for schema in found if schema is not None]


def test_a_first_version_in_the_topic_that_is_refused_leaves_the_file_in_force() -> None:
    files = LabelRegistry()
    files.load({"a.yaml": document(3)})
    labels = registry_after(written(4, labels=[]), pointing(4), registry=files)
    assert (3, "directory") == (version_in_force(labels), labels.source("kinds"))
    assert ["topic: kinds@4"] == [refusal.origin for refusal in labels.refusals()]


def test_listeners_hear_what_holds_what_is_refused_and_what_went() -> None:
    labels, changes = LabelRegistry(), list[RegistryChange]()
    labels.subscribe(changes.append)
    bad = written(2, labels=[])
    registry_after(written(1), pointing(1), bad, pointing(2), (b"kinds", None), step=1, registry=labels)
    assert [([1], 0, ()), ([], 1, ()), ([], 0, ("kinds",))] == [
        ([schema.version for schema in each.now_in_force], len(each.refused), each.gone) for each in changes
    ]


def test_keys_that_name_no_schema_are_passed_over() -> None:
    state = PublishedSchemas()
    for key in (None, b"", b"\xff", b"inline", b"kinds@", b"kinds@x", b"kinds@01", b"a b", b"@1"):
        assert state.note(key, b"{}") is None
    assert () == state.names()


def _entry(name: str, version: int, kind: str) -> Entry:
    more: dict[str, JsonValue] = {"labels": []} if version in BAD_VERSIONS else {}
    entries: dict[str, Entry] = {
        "document": written(version, name, **more),
        "gone": (f"{name}@{version}".encode(), None),
        "anew": written(version, name, **{"top_k": 1, **more}),
        "pointer": pointing(version, name),
        "vouching": pointing(version, name, digest_of(canonical_json(document(version, name)))),
        "seal": sealing(version, *range(version + 1), name=name),
        "no seal": (f"{name}@seal".encode(), None),
        "bad seal": (f"{name}@seal".encode(), b"?"),
        "tombstone": (name.encode(), None),
        "malformed": (name.encode(), b"?"),
    }
    return entries[kind]


def entries_of(*kinds: str) -> st.SearchStrategy[list[Entry]]:
    entry = st.builds(_entry, st.sampled_from(["a", "b"]), st.integers(0, 6), st.sampled_from(kinds))
    return st.lists(entry, max_size=25)


UNSEALED = ("document", "document", "pointer", "pointer", "gone", "tombstone", "malformed")
EVERYTHING = (*UNSEALED, "anew", "vouching", "seal", "seal", "no seal", "bad seal")


def compacted(entries: list[Entry]) -> list[Entry]:
    last = {key: index for index, (key, _) in enumerate(entries)}
    return [entry for index, entry in enumerate(entries) if last[entry[0]] == index and entry[1] is not None]


@settings(deadline=None)
@given(entries_of(*EVERYTHING), st.integers(1, 7))
def test_whoever_has_read_the_topic_decides_alike_however_it_was_read(entries: list[Entry], step: int) -> None:
    """Record by record or at once, before compaction or after it."""
    readers = [
        registry_after(*entries, step=step),
        registry_after(*entries),
        registry_after(*compacted(entries), step=step),
    ]
    for name in ("a", "b"):
        first, *others = [
            (
                None if (held := labels.current(name)) is None else held.digest,
                labels.versions(name),
                labels.verdict(name).refused,
                labels.verdict(name).pointed,
                labels.verdict(name).reason,
                labels.verdict(name).refusals,
            )
            for labels in readers
        ]
        assert [first, first] == others


@settings(deadline=None)
@given(entries_of(*UNSEALED))
def test_what_holds_is_the_version_pointed_to_or_the_highest_valid_one_below_it(entries: list[Entry]) -> None:
    labels = registry_after(*entries, step=1)
    last = dict(entries)
    for name in ("a", "b"):
        pointer = last.get(name.encode())
        valid = [n for n in range(7) if last.get(f"{name}@{n}".encode()) is not None and n not in BAD_VERSIONS]
        if pointer is None:
            expected = None
        else:
            read = read_pointer(pointer)
            expected = max((n for n in valid if read is None or n <= read.version), default=None)
        assert expected == version_in_force(labels, name)


def test_the_digest_in_a_pointer_is_that_of_the_document_as_given() -> None:
    schema = parse_schema(document(7), "f")
    sealed = registry_after(written(7), pointing(7, digest=schema.digest))
    assert 7 == version_in_force(sealed)
