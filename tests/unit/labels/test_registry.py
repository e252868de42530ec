"""Which version holds, and what a message may change for itself."""

import contextlib
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode, MessageError, RetryableError, Stage
from worker.labels.inline import RecentSets, inline_schema
from worker.labels.published import Publication
from worker.labels.registry import LabelRegistry, RegistryChange, SchemaRefusal
from worker.labels.schema import DefaultLimits, LabelSchema, canonical_json, digest_of, parse_schema
from worker.types import JsonValue, Request

MARKER = "zq-marker-7f3"
DEADLINE_SECONDS = 30.0
LIMITS = DefaultLimits()
MODEL = "sha256:" + "0" * 64


def document(name: str = "support", version: int = 1, **more: JsonValue) -> dict[str, Any]:
    return {"name": name, "version": version, "labels": [{"name": "billing"}, {"name": "bug"}], **more}


def registry(*documents: dict[str, Any]) -> LabelRegistry:
    filled = LabelRegistry()
    filled.load({f"{index}.yaml": each for index, each in enumerate(documents)})
    assert () == filled.refusals()
    return filled


def refusal(labels: LabelRegistry, request: Request, default: str | None = "support") -> MessageError:
    with pytest.raises(MessageError) as caught:
        labels.resolve(request, default, LIMITS)
    assert Stage.RESOLVE == caught.value.stage
    return caught.value


def test_the_highest_version_holds_and_all_can_be_pinned() -> None:
    labels = registry(document(version=2), document(version=7), document(version=3))
    assert (2, 3, 7) == labels.versions("support")
    assert 7 == labels.resolve(Request("i", "t"), "support", LIMITS).version
    assert 2 == labels.resolve(Request("i", "t", label_schema="support@2"), None, LIMITS).version
    assert 3 == labels.resolve(Request("i", "t"), "support@3", LIMITS).version


def test_a_refused_document_leaves_the_last_good_one_in_force_and_is_reported() -> None:
    labels = registry(document(version=2))
    change = labels.load({"a.yaml": document(version=3, labels=[])}, {"b.yaml": "expected YAML"})
    refused = (
        SchemaRefusal("b.yaml", "expected YAML"),
        SchemaRefusal("a.yaml", "labels: expected at least 1, not 0", "support"),
    )
    assert refused == labels.refusals() == change.refused
    assert () == change.now_in_force
    current = labels.current("support")
    assert current is not None
    assert 2 == current.version


def test_a_refusal_is_over_when_the_document_is_mended() -> None:
    labels = registry(document(version=2))
    labels.load({"a.yaml": document(version=3, labels=[])})
    change = labels.load({"a.yaml": document(version=3)})
    assert () == labels.refusals()
    assert [3] == [schema.version for schema in change.now_in_force]


def test_a_version_is_never_replaced() -> None:
    labels = registry(document(version=2))
    labels.load({"a.yaml": document(version=2, top_k=1)})
    assert ("version: expected one that is not in use; 2 has other content",) == tuple(
        refused.reason for refused in labels.refusals()
    )
    current = labels.current("support")
    assert current is not None
    assert current.top_k is None


def test_reading_the_same_documents_again_changes_nothing() -> None:
    labels = registry(document(version=2))
    changes: list[RegistryChange] = []
    labels.subscribe(changes.append)
    before = labels.current("support")
    labels.load({"0.yaml": document(version=2)})
    assert [] == changes
    assert labels.current("support") is before


def test_a_schema_whose_document_is_gone_still_holds() -> None:
    labels = registry(document(version=2))
    labels.load({})
    assert (2,) == labels.versions("support")


def test_a_file_that_goes_back_to_a_lower_version_is_told_and_what_held_still_holds() -> None:
    """A ConfigMap that was reverted: a worker that starts would take the lower version, so nobody may overlook it."""
    labels = registry(document(version=1))
    labels.load({"a": document(version=2)})
    change = labels.load({"a": document(version=1)})
    reason = "version: expected at least 2, which holds; give what is to hold again a higher version"
    assert [("a", reason, "support")] == [(each.origin, each.reason, each.name) for each in change.refused]
    held = labels.current("support")
    assert held is not None
    assert 2 == held.version
    assert () == labels.load({"a": document(version=1), "b": document(version=3)}).refused
    assert () == labels.refusals()


def test_listeners_hear_of_what_holds_now_and_of_new_refusals_only() -> None:
    labels = registry(document(version=2))
    changes: list[RegistryChange] = []
    labels.subscribe(changes.append)
    labels.load({"a": document(version=3), "b": document("other"), "c": {}})
    labels.load({"a": document(version=3), "b": document("other"), "c": {}})
    assert [[("other", 1), ("support", 3)]] == [
        [(schema.name, schema.version) for schema in change.now_in_force] for change in changes
    ]
    assert [["c"]] == [[refused.origin for refused in change.refused] for change in changes]


@pytest.mark.parametrize("source", ["folder", "topic"])
def test_nothing_waits_for_a_version_that_is_being_prepared(source: str) -> None:
    """And nothing is scored under it before it is ready."""
    entered, go = threading.Event(), threading.Event()

    def prepare(schema: LabelSchema) -> None:
        if schema.version == 2:
            entered.set()
            assert go.wait(DEADLINE_SECONDS)

    def change() -> None:
        if source == "folder":
            labels.load({"b.yaml": document(version=2)})
        else:
            published = {2: canonical_json(document(version=2))}
            labels.publish({"support": Publication(published, b'{"version": 2}')})

    def versions() -> tuple[int, int, tuple[int, ...]]:
        inline = Request("i", "t", labels=["own"])
        own = labels.resolve(Request("i", "t"), "support", LIMITS).version
        return own, labels.resolve(inline, "support", LIMITS).version, labels.versions("support")

    labels = LabelRegistry(prepare=prepare)
    labels.load({"a.yaml": document(version=1)})
    writer = threading.Thread(target=change)
    writer.start()
    try:
        assert entered.wait(DEADLINE_SECONDS)
        assert (1, 0, (1,)) == versions()
        assert writer.is_alive(), "it is still being prepared"
    finally:
        go.set()
        writer.join(DEADLINE_SECONDS)
    assert (2, 0, (1, 2)) == versions()


def test_a_schema_can_be_offered_by_itself() -> None:
    labels = registry(document(version=2))
    labels.offer(parse_schema(document(version=3), "o"))
    labels.offer(parse_schema(document(version=3, top_k=1), "o"), "o")
    assert (2, 3) == labels.versions("support")
    assert ["o"] == [refused.origin for refused in labels.refusals()]
    labels.offer(parse_schema(document(version=4), "o"), "o")
    assert () == labels.refusals()


def test_a_schema_for_another_model_is_refused() -> None:
    labels = LabelRegistry(model_digest="sha256:" + "1" * 64)
    labels.load({"a": document(requires_model=MODEL), "b": document(version=0, requires_model="sha256:" + "1" * 64)})
    assert (0,) == labels.versions("support")
    assert ["a"] == [refused.origin for refused in labels.refusals()]


DOCUMENTS = st.builds(
    document,
    st.sampled_from(["a", "b"]),
    st.integers(-1, 5),
    top_k=st.sampled_from([1, 2, 0]),
)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["x", "y", "z"]), DOCUMENTS, max_size=3), max_size=8))
def test_no_sequence_of_documents_makes_a_version_go_back_or_change(loads: list[dict[str, JsonValue]]) -> None:
    labels = LabelRegistry()
    seen: dict[tuple[str, int], str] = {}
    highest: dict[str, int] = {}
    for documents in loads:
        labels.load(documents)
        for name in labels.names():
            current = labels.current(name)
            assert current is not None
            assert current.version >= highest.get(name, 0)
            highest[name] = current.version
            for version in labels.versions(name):
                schema = labels.find(f"{name}@{version}")
                assert schema is not None
                assert schema.digest == seen.setdefault((name, version), schema.digest)


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("other", ErrorCode.SCHEMA_UNKNOWN),
        ("other@1", ErrorCode.SCHEMA_UNKNOWN),
        ("", ErrorCode.SCHEMA_UNKNOWN),
        ("inline", ErrorCode.SCHEMA_UNKNOWN),
        ("support@2", ErrorCode.SCHEMA_VERSION_UNKNOWN),
        ("support@x", ErrorCode.SCHEMA_VERSION_UNKNOWN),
    ],
)
def test_a_schema_that_a_message_names_and_nobody_knows_is_the_message_s_fault(reference: str, code: ErrorCode) -> None:
    assert code == refusal(registry(document()), Request("i", "t", label_schema=reference)).code


def test_a_topic_s_own_schema_that_is_missing_is_not_the_message_s_fault() -> None:
    with pytest.raises(RetryableError):
        registry().resolve(Request("i", "t"), "support", LIMITS)
    with pytest.raises(RetryableError):
        registry().resolve(Request("i", "t", labels=["a"]), "support", LIMITS)


def test_without_labels_and_schema_there_is_nothing_to_score() -> None:
    assert ErrorCode.LABELS_MISSING == refusal(registry(), Request("i", "t"), None).code


def test_without_a_schema_an_inline_set_has_the_usual_template() -> None:
    schema = registry().resolve(Request("i", "t", labels=["a", {"name": "b", "threshold": 1}]), None, LIMITS)
    assert ("inline", 0, ("This example is {}.",)) == (schema.name, schema.version, schema.hypothesis_templates)
    assert [("a", None), ("b", 1.0)] == [(label.name, label.threshold) for label in schema.labels]
    effective: JsonValue = {
        "name": "inline",
        "version": 0,
        "labels": [{"name": "a"}, {"name": "b", "threshold": 1}],
        "hypothesis_templates": ["This example is {}."],
        "multi_label": False,
    }
    assert digest_of(canonical_json(effective)) == schema.digest


def test_an_inline_set_takes_templates_mode_and_abstain_from_the_topic_and_nothing_else() -> None:
    own = document(
        hypothesis_templates=["{}!", "{}?"],
        abstain={"below": 0.4, "label": "other"},
        top_k=1,
        calibration={"model": MODEL},
        requires_model=MODEL,
    )
    labels = registry(own)
    schema = labels.resolve(Request("i", "t", labels=["x"]), "support", LIMITS)
    assert ("{}!", "{}?") == schema.hypothesis_templates
    assert schema.abstain is not None
    assert (0.4, "other") == (schema.abstain.below, schema.abstain.label)
    assert (None, None, None) == (schema.top_k, schema.calibration, schema.requires_model)
    multi = labels.resolve(
        Request("i", "t", labels=["x"], multi_label=True, hypothesis_template="It is {}."), "support", LIMITS
    )
    assert (True, None, ("It is {}.",)) == (multi.multi_label, multi.abstain, multi.hypothesis_templates)


def test_an_abstain_label_that_is_one_of_the_inline_labels_is_left_out() -> None:
    labels = registry(document(abstain={"below": 0.4, "label": "other"}))
    schema = labels.resolve(Request("i", "t", labels=["x", "other"]), "support", LIMITS)
    assert schema.abstain is not None
    assert (0.4, None) == (schema.abstain.below, schema.abstain.label)


INLINE: list[tuple[JsonValue, ErrorCode]] = [
    ([], ErrorCode.LABELS_INVALID),
    ("a", ErrorCode.LABELS_INVALID),
    ({"name": "a"}, ErrorCode.LABELS_INVALID),
    (5, ErrorCode.LABELS_INVALID),
    ([5], ErrorCode.LABELS_INVALID),
    ([None], ErrorCode.LABELS_INVALID),
    ([" "], ErrorCode.LABELS_INVALID),
    ([{}], ErrorCode.LABELS_INVALID),
    ([{"name": None}], ErrorCode.LABELS_INVALID),
    ([{"description": "d"}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "negative": "n"}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", MARKER: MARKER}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "hypothesis": 5}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "threshold": "1"}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "threshold": True}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "threshold": 1.1}], ErrorCode.LABELS_INVALID),
    ([{"name": "a", "threshold": float("inf")}], ErrorCode.LABELS_INVALID),
    (["\ud800"], ErrorCode.LABELS_INVALID),
    ([str(number) for number in range(1001)], ErrorCode.LABELS_TOO_MANY),
    (["a" * 1024, "b" * 1025], ErrorCode.LABEL_TOO_LONG),
    (["a" * 10_000], ErrorCode.LABEL_TOO_LONG),
    (["é" * 513], ErrorCode.LABEL_TOO_LONG),
    ([{"name": "a", "hypothesis": "b" * 1025}], ErrorCode.LABEL_TOO_LONG),
    ([MARKER, MARKER], ErrorCode.LABELS_DUPLICATE),
    (["a", {"name": "a"}], ErrorCode.LABELS_DUPLICATE),
    (["a"] * 1001, ErrorCode.LABELS_TOO_MANY),
]


@pytest.mark.parametrize(("inline", "code"), INLINE)
def test_an_inline_set_that_cannot_be_used_is_refused_with_its_code(inline: JsonValue, code: ErrorCode) -> None:
    for default in (None, "support"):
        error = refusal(registry(document()), Request("i", "t", labels=inline), default)
        assert code == error.code
        assert MARKER not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "description", "hypothesis", "threshold", "x"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4) | JSON, st.none() | st.text(alphabet="{}a"), st.none() | st.booleans())
def test_nothing_that_a_message_carries_raises_anything_but_a_refusal(
    inline: JsonValue, template: str | None, multi_label: bool | None
) -> None:
    labels = registry(document(abstain={"label": "a"}))
    request = Request("i", "t", labels=inline, hypothesis_template=template, multi_label=multi_label)
    with contextlib.suppress(MessageError):
        schema = labels.resolve(request, "support", LIMITS)
        assert ("support" if inline is None else "inline") == schema.name
        assert schema.labels == parse_schema({**schema.document(), "name": "x"}, "f").labels


def test_a_thousand_labels_and_a_label_of_its_limit_are_taken() -> None:
    names: list[JsonValue] = ["é" * 512, *(str(number) for number in range(999))]
    assert 1000 == len(registry().resolve(Request("i", "t", labels=names), None, LIMITS).labels)


def test_nulls_in_a_label_are_as_good_as_absent() -> None:
    inline: JsonValue = [{"name": "a", "description": None, "threshold": None}]
    assert registry().resolve(Request("i", "t", labels=inline), None, LIMITS) == registry().resolve(
        Request("i", "t", labels=["a"]), None, LIMITS
    )


@pytest.mark.parametrize("template", ["", "none", "{} {}", "{0.__class__}", "{" + MARKER + "}", "{}" + "a" * 1023])
@pytest.mark.parametrize("inline", [None, ["a"]])
def test_a_template_that_cannot_be_used_is_refused(template: str, inline: JsonValue) -> None:
    error = refusal(registry(document()), Request("i", "t", labels=inline, hypothesis_template=template))
    assert ErrorCode.TEMPLATE_INVALID == error.code
    assert MARKER not in str(error)


def test_a_message_that_sets_a_template_gets_a_variant_with_a_digest_of_its_own() -> None:
    own = document(version=7, calibration={"model": MODEL}, abstain={"below": 0.3})
    labels = registry(own)
    variant = labels.resolve(Request("i", "t", hypothesis_template="So {}."), "support", LIMITS)
    effective = {key: value for key, value in own.items() if key != "calibration"}
    effective["hypothesis_templates"] = ["So {}."]
    assert ("support", 7, ("So {}.",)) == (variant.name, variant.version, variant.hypothesis_templates)
    assert digest_of(canonical_json(effective)) == variant.digest
    assert variant.abstain is not None


def test_a_message_that_changes_the_mode_gets_what_can_hold_in_it() -> None:
    single = registry(document(abstain={"below": 0.3}))
    assert single.resolve(Request("i", "t", multi_label=True), "support", LIMITS).abstain is None
    short = registry(document(shortlist={"top_k": 1}, labels=[{"name": "a", "threshold": 0.5}, {"name": "b"}]))
    assert short.resolve(Request("i", "t", multi_label=True), "support", LIMITS).shortlist is None
    templated = short.resolve(Request("i", "t", hypothesis_template="So {}."), "support", LIMITS)
    assert templated.shortlist is not None
    multi = registry(document(multi_label=True, labels=[{"name": "a", "negative": "not a"}]))
    variant = multi.resolve(Request("i", "t", multi_label=False), "support", LIMITS)
    assert (False, None) == (variant.multi_label, variant.labels[0].negative)


def test_a_message_that_sets_what_already_holds_changes_nothing() -> None:
    labels = registry(document(hypothesis_templates=["So {}."]))
    request = Request("i", "t", hypothesis_template="So {}.", multi_label=False)
    assert labels.current("support") is labels.resolve(request, "support", LIMITS)


def test_an_inline_set_that_every_message_carries_is_parsed_once() -> None:
    labels = registry(document())
    first = labels.resolve(Request("1", "t", labels=["a", "b"]), "support", LIMITS)
    assert first is labels.resolve(Request("2", "u", labels=["a", "b"]), "support", LIMITS)
    assert first is not labels.resolve(Request("3", "t", labels=["b", "a"]), "support", LIMITS)
    labels.load({"n": document(version=2, hypothesis_templates=["{}?"])})
    assert ("{}?",) == labels.resolve(Request("4", "t", labels=["a", "b"]), "support", LIMITS).hypothesis_templates


def test_sets_are_kept_up_to_a_bound_and_the_last_used_stay() -> None:
    recent = RecentSets(sets=2, key_bytes=200)
    schema = parse_schema(document(), "f")
    made: list[str] = []

    def use(name: str) -> None:
        def make() -> LabelSchema:
            made.append(name)
            return schema

        recent.get_or_make(Request("i", "t", labels=[name]), None, LIMITS, make)

    for name in ("a", "b", "a", "c", "a", "b"):
        use(name)
    assert ["a", "b", "c", "b"] == made
    use("x" * 200)
    use("x" * 200)
    assert ["x" * 200] * 2 == made[4:]
    assert 2 == len(recent)


def test_large_sets_are_kept_up_to_a_number_of_labels_in_all() -> None:
    recent = RecentSets(sets=100, labels=5)

    def use(first: str) -> None:
        request = Request("i", "t", labels=[first, "b"])
        recent.get_or_make(request, None, LIMITS, lambda: inline_schema(request, None, LIMITS))

    for first in ("x", "y", "z", "x"):
        use(first)
    assert 2 == len(recent)  # of two labels each


def test_the_description_holds_no_inline_set() -> None:
    labels = registry(document(version=2), document(version=3))
    labels.resolve(Request("i", "t", labels=[MARKER]), "support", LIMITS)
    labels.load({"bad": {"name": "bad"}})
    described = labels.describe()
    current = labels.current("support")
    assert current is not None
    assert {
        "schemas": [
            {
                "name": "support",
                "version": 3,
                "digest": current.digest,
                "mode": "single",
                "labels": ["billing", "bug"],
                "versions": [2, 3],
                "source": "directory",
                "notes": [],
            }
        ],
        "refusals": [{"name": "bad", "origin": "bad", "reason": "version: expected a value; the key is missing"}],
    } == described


def test_a_calibration_for_another_model_is_said_to_be_ignored() -> None:
    labels = LabelRegistry(model_digest="sha256:" + "1" * 64)
    labels.load({"a": document("own", calibration={"model": "sha256:" + "1" * 64}), "b": document("other")})
    labels.load({"c": document("others", calibration={"model": MODEL})})
    described = labels.describe()["schemas"]
    assert isinstance(described, list)
    notes = {each["name"]: each["notes"] for each in described if isinstance(each, dict)}
    assert {"own": [], "other": [], "others": ["calibration: made for another model, and ignored"]} == notes
