"""What may become the next version."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.documents import parse_json
from worker.errors import SchemaError
from worker.labels.changes import NewVersion, digest_at, is_there, proposed, rolled_back, sealed, verdict_of
from worker.labels.published import Pointer, Publication, pointer_bytes
from worker.labels.schema import DefaultLimits, canonical_json, digest_of
from worker.labels.seal import seal_bytes
from worker.types import JsonValue

LIMITS = DefaultLimits()


def document(version: int, **more: JsonValue) -> dict[str, Any]:
    return {"name": "kinds", "version": version, "labels": [{"name": "a"}], **more}


def publication(*documents: dict[str, Any], pointer: int | None = None) -> Publication:
    values = {each["version"]: canonical_json(each) for each in documents}
    return Publication(values, None if pointer is None else pointer_bytes(Pointer(pointer)))


def applied(there: Publication, new: NewVersion | None) -> Publication:
    """`there` with what the tool writes for `new`."""
    seal = seal_bytes(sealed(there, new))
    if new is None:
        return Publication(there.documents, None, seal)
    pointer = pointer_bytes(Pointer(new.version, digest_of(new.canonical)))
    return Publication({**there.documents, new.version: new.canonical}, pointer, seal)


def content(new: NewVersion) -> JsonValue:
    return parse_json(new.canonical.decode())


def test_a_version_has_to_rise_above_all_that_were_ever_written() -> None:
    there = publication(document(1), document(7), pointer=1)
    assert 8 == proposed(document(8), "f", there, LIMITS).version
    for version in (0, 1, 5, 7):
        with pytest.raises(SchemaError, match="f: version: expected at least 8"):
            proposed(document(version, top_k=1), "f", there, LIMITS)


def test_what_holds_already_may_be_proposed_again() -> None:
    there = publication(document(1), pointer=1)
    assert is_there(proposed(document(1), "f", there, LIMITS), there)
    assert not is_there(proposed(document(2), "f", there, LIMITS), there)


def test_the_bytes_are_those_that_were_given_and_have_their_digest() -> None:
    given_document = document(1, labels=[{"name": "a", "threshold": 1}])
    new = proposed(given_document, "f", Publication(), LIMITS)
    assert given_document == content(new)
    assert digest_of(canonical_json(given_document)) == digest_of(new.canonical)


def test_a_rollback_takes_the_last_version_that_differs() -> None:
    there = publication(document(1, top_k=1), document(2), document(3), pointer=3)
    new = rolled_back("kinds", there, None, LIMITS)
    assert (4, 1, document(4, top_k=1)) == (new.version, new.rollback_of, content(new))


def test_a_rollback_from_a_refused_version_takes_the_one_that_holds() -> None:
    there = publication(document(1, top_k=1), document(2), document(3, labels=[]), pointer=3)
    assert 2 == rolled_back("kinds", there, None, LIMITS).rollback_of


def test_a_rollback_from_what_only_the_workers_refuse_takes_what_they_hold() -> None:
    """As with a `requires_model` that is not theirs: whoever has no model sees nothing wrong with it."""
    there = publication(document(1, top_k=1), document(2), document(3, top_k=3), document(4, top_k=4), pointer=4)
    assert 2 == rolled_back("kinds", there, None, LIMITS, held=2).rollback_of


def test_a_rollback_goes_to_the_version_that_is_named() -> None:
    there = publication(document(1, top_k=1), document(2, top_k=2), document(3), pointer=3)
    assert document(4, top_k=1) == content(rolled_back("kinds", there, 1, LIMITS))


@pytest.mark.parametrize(
    ("to", "pointer", "reason"),
    [
        (None, 1, "expected a former version that differs"),
        (9, 2, "kinds@9: expected a version that is there and valid"),
        (3, 2, "kinds@3: expected a version that is there and valid"),
        (2, 2, "its content holds already"),
        (None, None, "expected a label schema that the topic binds"),
    ],
)
def test_a_rollback_to_nowhere_is_refused(to: int | None, pointer: int | None, reason: str) -> None:
    there = publication(document(1), document(2, top_k=1), document(3, labels=[]), pointer=pointer)
    with pytest.raises(SchemaError, match=reason):
        rolled_back("kinds", there, to, LIMITS)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=6), st.integers(0, 5))
def test_after_a_rollback_the_former_content_holds_under_a_new_version(contents: list[int], pointer: int) -> None:
    documents = [document(version, top_k=top_k) for version, top_k in enumerate(contents)]
    there = publication(*documents, pointer=min(pointer, len(contents) - 1))
    held = verdict_of("kinds", there, LIMITS).in_force
    assert held is not None
    try:
        new = rolled_back("kinds", there, None, LIMITS)
    except SchemaError:
        assert {held.top_k} == set(contents[: held.version + 1])
        return
    after = Publication({**there.documents, new.version: new.canonical}, pointer_bytes(Pointer(new.version)))
    now = verdict_of("kinds", after, LIMITS).in_force
    assert now is not None
    assert new.rollback_of is not None
    assert (len(contents), contents[new.rollback_of]) == (now.version, now.top_k)
    assert now.top_k != held.top_k


def test_what_was_applied_once_is_vouched_for_ever_after_whatever_is_written_over_it() -> None:
    there = applied(publication(document(1), document(2), pointer=2), proposed(document(3), "f", Publication(), LIMITS))
    anew = {**there.documents, **publication(document(1, top_k=1), document(3, top_k=1)).documents}
    rewritten = Publication(anew, there.pointer, there.seal)
    assert [2] == [*verdict_of("kinds", rewritten, LIMITS).valid]
    later = applied(rewritten, proposed(document(4), "f", rewritten, LIMITS))
    assert [2, 4] == [*verdict_of("kinds", later, LIMITS).valid]
    unbound = applied(later, None)
    assert ([2, 4], False) == ([*(v := verdict_of("kinds", unbound, LIMITS)).valid], v.is_bound)
    bound_by_hand = Publication(unbound.documents, pointer_bytes(Pointer(2)), unbound.seal)
    held = verdict_of("kinds", bound_by_hand, LIMITS).in_force
    assert held is not None
    assert 4 == held.version


def test_a_document_that_only_its_pointer_vouches_for_is_sealed_as_it_was_pointed_to() -> None:
    original = digest_of(canonical_json(document(1)))
    there = Publication(publication(document(1, top_k=1)).documents, pointer_bytes(Pointer(1, original)))
    later = applied(there, proposed(document(2), "f", there, LIMITS))
    assert [2] == [*verdict_of("kinds", later, LIMITS).valid]


def test_a_version_is_not_free_again_once_its_document_was_taken_away() -> None:
    there = applied(Publication(), proposed(document(7), "f", Publication(), LIMITS))
    emptied = Publication({}, there.pointer, there.seal)
    with pytest.raises(SchemaError, match="f: version: expected at least 8"):
        proposed(document(7, top_k=1), "f", emptied, LIMITS)


def test_a_pointer_that_was_moved_back_is_put_right_by_a_rollback() -> None:
    there = applied(publication(document(1), pointer=1), proposed(document(2, top_k=1), "f", Publication(), LIMITS))
    moved = Publication(there.documents, pointer_bytes(Pointer(1)), there.seal)
    new = rolled_back("kinds", moved, None, LIMITS)
    assert (3, 2) == (new.version, new.rollback_of)
    found = verdict_of("kinds", applied(moved, new), LIMITS)
    assert (3, None) == (found.pointed, found.reason)


def test_a_document_with_a_string_that_is_no_unicode_has_no_digest() -> None:
    broken = Publication({1: b'{"name": "\\ud800"}'}, pointer_bytes(Pointer(1)))
    assert digest_at(broken, 1) is None
    assert 2 == proposed(document(2), "f", applied(broken, None), LIMITS).version
