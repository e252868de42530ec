"""Bytes in, predictions out."""

import base64
import contextlib
import json
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ErrorCode, MessageError, Stage
from worker.messages.codec import decode, encode, prediction_object, record_bytes, utc_timestamp
from worker.messages.inbound import InputFields
from worker.messages.json_text import MAX_DEPTH
from worker.messages.outbound import OutputShape, PredictionMessage, Stamps
from worker.settings import Limits
from worker.types import LabelScore, ModelStamp, PairCounts, Prediction, Record, Request, TokenSpan

MARKER = "zq-marker-7f3"
FIELDS = InputFields()
LIMITS = Limits(text_bytes=1000)
PREDICTION = Prediction(
    mode="single",
    label="billing",
    selected=("billing",),
    scores=(LabelScore("billing", 0.75), LabelScore("bug", 0.25)),
    calibrated=False,
    text=TokenSpan(41, 2),
    pairs=PairCounts(2, 1, 0),
)
STAMPS = Stamps(
    schema_name="support",
    schema_version=7,
    schema_digest="sha256:aa",
    model=ModelStamp("tiny", "sha256:bb", "fake", "float32"),
    scored_at="2026-01-02T03:04:05.678Z",
)
ENVELOPE = OutputShape("out")


def record(value: bytes | None, **changes: object) -> Record:
    base = Record(topic="in", partition=3, offset=17, epoch=1, key=b"k", value=value, timestamp_ms=1_700_000_000_123)
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name


def refusal(value: bytes | None, fields: InputFields = FIELDS) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(record(value), fields, LIMITS)
    assert Stage.DECODE == caught.value.stage
    return caught.value


def encoded(value: bytes | None, shape: OutputShape = ENVELOPE, **changes: object) -> bytes:
    out = encode(PREDICTION, Request("e1", "text"), record(value, **changes), STAMPS, shape)
    assert out.value is not None
    return out.value


BROKEN = [
    (None, ErrorCode.VALUE_NULL),
    (b"", ErrorCode.JSON_INVALID),
    (b"not json", ErrorCode.JSON_INVALID),
    (b'{"text": "a"} x', ErrorCode.JSON_INVALID),
    (b'{"text": NaN}', ErrorCode.JSON_INVALID),
    (b'{"text": "a", "x": Infinity}', ErrorCode.JSON_INVALID),
    (b'{"text": "a", "x": -Infinity}', ErrorCode.JSON_INVALID),
    (b'\xef\xbb\xbf{"text": "a"}', ErrorCode.JSON_INVALID),
    (b'{"text": "a", "x": 1e400, "y": }', ErrorCode.JSON_INVALID),
    (b'{"text": "\xff"}', ErrorCode.UTF8_INVALID),
    (b'{"text": "\xed\xa0\x80"}', ErrorCode.UTF8_INVALID),
    (b'{"text": "\\ud800"}', ErrorCode.UTF8_INVALID),
    (b'{"text": "a", "\\udc00": 1}', ErrorCode.UTF8_INVALID),
    (b"[" * 5000 + b"]" * 5000, ErrorCode.VALUE_TOO_DEEP),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, ErrorCode.VALUE_TOO_DEEP),
    (b'{"text":"a","x":' + b"[" * 64 + b"]" * 64 + b"}", ErrorCode.VALUE_TOO_DEEP),
    (b'[{"text": "a"}]', ErrorCode.VALUE_NOT_OBJECT),
    (b'"text"', ErrorCode.VALUE_NOT_OBJECT),
    (b"null", ErrorCode.VALUE_NOT_OBJECT),
    (b"{}", ErrorCode.TEXT_MISSING),
    (b'{"text": null}', ErrorCode.TEXT_MISSING),
    (b'{"text": 5}', ErrorCode.TEXT_NOT_STRING),
    (b'{"text": ["a"]}', ErrorCode.TEXT_NOT_STRING),
    (b'{"text": ""}', ErrorCode.TEXT_EMPTY),
    (b'{"text": " \\n\\t\\u2003"}', ErrorCode.TEXT_EMPTY),
    (b'{"text": "' + b"a" * 1001 + b'"}', ErrorCode.TEXT_TOO_LARGE),
    ('{"text": "' + "é" * 501 + '"}', ErrorCode.TEXT_TOO_LARGE),
    (b'{"text": "a", "id": true}', ErrorCode.ID_INVALID),
    (b'{"text": "a", "id": 1.5}', ErrorCode.ID_INVALID),
    (b'{"text": "a", "id": {}}', ErrorCode.ID_INVALID),
    (b'{"text": 1, "id": []}', ErrorCode.ID_INVALID),
    (b'{"text": "a", "multi_label": "yes"}', ErrorCode.FIELD_INVALID),
    (b'{"text": "a", "label_schema": 7}', ErrorCode.FIELD_INVALID),
    (b'{"text": "a", "hypothesis_template": ["{}"]}', ErrorCode.FIELD_INVALID),
    (b'{"text": "a", "labels": ["a"], "label_schema": "s"}', ErrorCode.LABELS_INVALID),
]


@pytest.mark.parametrize(("value", "code"), BROKEN)
def test_what_cannot_be_decoded_is_refused_with_its_code(value: bytes | str | None, code: ErrorCode) -> None:
    assert code == refusal(value.encode() if isinstance(value, str) else value).code


def test_sixty_four_levels_are_taken() -> None:
    value = b'{"text":"a","x":' + b"[" * 63 + b"]" * 63 + b"}"
    assert "a" == decode(record(value), FIELDS, LIMITS).text


@given(st.recursive(st.just("1"), lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")))
def test_levels_are_counted_as_they_are_nested(tail: str) -> None:
    depth = deepest = 0
    for character in tail:
        depth += {"[": 1, "]": -1}.get(character, 0)
        deepest = max(deepest, depth)
    for levels in (MAX_DEPTH, MAX_DEPTH + 1):
        around = levels - 1 - deepest
        value = b'{"text":"a","x":[[],[[]],' + b"[" * (around - 1) + tail.encode() + b"]" * (around - 1) + b"]}"
        with contextlib.suppress(MessageError) if levels > MAX_DEPTH else contextlib.nullcontext():
            decode(record(value), FIELDS, LIMITS)
            assert MAX_DEPTH == levels


def test_brackets_inside_of_strings_are_no_levels() -> None:
    value = orjson.dumps({"text": "[" * 500, "x": '"{' * 100, "y": "\\"})
    assert "[" * 500 == decode(record(value), FIELDS, LIMITS).text


def test_the_documented_message_is_read() -> None:
    value = (
        b'{"id": 12, "text": "hello", "labels": ["a", {"name": "b"}], "multi_label": true,'
        b' "hypothesis_template": "It is {}.", "unknown": [1e400, 123456789012345678901234567890]}'
    )
    expected = Request("12", "hello", labels=["a", {"name": "b"}], hypothesis_template="It is {}.", multi_label=True)
    assert expected == decode(record(value), FIELDS, LIMITS)


def test_a_record_without_id_is_named_by_its_position() -> None:
    assert "in/3/17" == decode(record(b'{"text": "a"}'), FIELDS, LIMITS).id


def test_with_pointers_only_what_is_bound_is_read() -> None:
    fields = InputFields(
        text=(("subject",), ("body", "plain"), ("none",)),
        id=("meta", "0"),
        labels=None,
        label_schema=None,
        hypothesis_template=None,
        multi_label=None,
    )
    value = b'{"subject": "s", "body": {"plain": "p"}, "meta": ["x1"], "labels": 5, "id": [], "multi_label": "no"}'
    assert Request("x1", "s\np") == decode(record(value), fields, LIMITS)


@pytest.mark.parametrize("name", ["labels", "label_schema", "hypothesis_template", "multi_label"])
def test_an_override_that_is_not_allowed_is_refused(name: str) -> None:
    values = {"labels": ["a"], "label_schema": "s", "hypothesis_template": "{}", "multi_label": False}
    fields = replace(FIELDS, allowed=FIELDS.allowed - {name})
    value = orjson.dumps({"text": "a", name: values[name]})
    assert ErrorCode.OVERRIDE_FORBIDDEN == refusal(value, fields).code
    assert "a" == decode(record(b'{"text": "a"}'), fields, LIMITS).text


def test_a_text_record_is_its_text() -> None:
    fields = InputFields(format="text")
    assert Request("in/3/17", '{"id": 1}') == decode(record(b'{"id": 1}'), fields, LIMITS)
    assert ErrorCode.UTF8_INVALID == refusal(b"\xff", fields).code
    assert ErrorCode.TEXT_EMPTY == refusal(b"", fields).code
    assert ErrorCode.TEXT_TOO_LARGE == refusal(b"a" * 1001, fields).code
    assert ErrorCode.VALUE_NULL == refusal(None, fields).code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
NEAR_JSON = st.dictionaries(
    st.sampled_from(["id", "text", "labels", "label_schema", "multi_label", "hypothesis_template", "x"]), JSON
).map(lambda event: json.dumps(event).encode())


@settings(deadline=None, max_examples=400)
@given(st.binary() | NEAR_JSON | st.text(alphabet='[]{}",:\\u d80').map(str.encode), st.sampled_from(["json", "text"]))
def test_no_bytes_raise_anything_but_a_refusal(value: bytes, value_format: str) -> None:
    fields = InputFields(format="text") if value_format == "text" else FIELDS
    with contextlib.suppress(MessageError):
        assert decode(record(value), fields, LIMITS).text.strip()


@pytest.mark.parametrize(
    "event",
    [
        {"text": {MARKER: MARKER}},
        {"text": MARKER, "id": [MARKER]},
        {"text": MARKER, "multi_label": MARKER},
        {"text": MARKER, "label_schema": [MARKER]},
        {"text": MARKER * 200},
        {"text": MARKER, "labels": [MARKER], "label_schema": MARKER},
        [MARKER],
    ],
)
def test_no_word_of_a_message_stands_in_its_refusal(event: object) -> None:
    assert MARKER not in str(refusal(orjson.dumps(event)))
    assert MARKER not in str(refusal(orjson.dumps(event) + b"}"))


def test_an_envelope_is_what_the_contract_says() -> None:
    event = b'{ "text": "a",\n "n": 123456789012345678901234567890.10, "n": 1e400}'
    out = encode(PREDICTION, Request("e1", "a"), record(event), STAMPS, ENVELOPE)
    assert (
        b'{"contract":1,"id":"e1","mode":"single","label":"billing","selected":["billing"],'
        b'"scores":[{"label":"billing","score":0.75},{"label":"bug","score":0.25}],'
        b'"schema":{"name":"support","version":7,"digest":"sha256:aa"},'
        b'"model":{"name":"tiny","digest":"sha256:bb","engine":"fake","precision":"float32","calibrated":false},'
        b'"source":{"topic":"in","partition":3,"offset":17,"timestamp":"2023-11-14T22:13:20.123Z"},'
        b'"text":{"tokens":41,"tokens_dropped":2,"windows":1},"pairs":{"scored":2,"cached":1,"skipped":0},'
        b'"scored_at":"2026-01-02T03:04:05.678Z","event":' + event + b"}"
    ) == out.value
    assert ("out", b"k", 1_700_000_000_123) == (out.topic, out.key, out.timestamp_ms)
    assert record(event).source == out.source


def test_an_envelope_is_what_its_model_describes() -> None:
    message = orjson.loads(encoded(b'{"text": "a"}'))
    model = PredictionMessage.model_validate_json(encoded(b'{"text": "a"}'))
    assert message == model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert list(message) == list(model.model_dump(by_alias=True, exclude_unset=True))


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4), st.sampled_from([None, 2]))
def test_the_bytes_of_an_event_survive(event: dict[str, object], indent: int | None) -> None:
    value = json.dumps({**event, "body": "a"}, indent=indent).replace("NaN", "0").replace("Infinity", "1e999").encode()
    fields = InputFields(
        text=(("body",),), id=None, labels=None, label_schema=None, hypothesis_template=None, multi_label=None
    )
    out = encode(PREDICTION, decode(record(value), fields, LIMITS), record(value), STAMPS, ENVELOPE).value or b""
    assert value == out[out.index(b',"event":') + len(b',"event":') : -1]
    assert "in/3/17" == json.loads(out)["id"]


def test_a_prediction_can_go_without_its_event() -> None:
    message = orjson.loads(encoded(b'{"text": "a"}', OutputShape("out", emit="prediction")))
    assert "scored_at" == list(message)[-1]


@pytest.mark.parametrize("event", [b'{"text": "a", "x": 1e400}', b' {"text":"a" } \n', b'{"text":"a","x":{}}'])
def test_merging_adds_one_field_to_the_bytes_of_the_event(event: bytes) -> None:
    merged = encoded(event, OutputShape("out", emit="merge", merge_field='my "field'))
    assert event.rstrip()[:-1].rstrip() == merged[: len(event.rstrip()[:-1].rstrip())]
    assert "billing" == json.loads(merged)['my "field']["label"]
    assert "a" == json.loads(merged)["text"]


def test_merging_into_an_empty_object_gives_json() -> None:
    assert ["prediction"] == list(orjson.loads(encoded(b"{ }", OutputShape("out", emit="merge"))))


def test_a_merge_field_that_is_taken_is_refused() -> None:
    with pytest.raises(MessageError) as caught:
        encoded(b'{"text": "a", "prediction": null}', OutputShape("out", emit="merge"))
    assert (ErrorCode.MERGE_FIELD_TAKEN, Stage.ENCODE) == (caught.value.code, caught.value.stage)


def test_a_text_goes_out_in_base64() -> None:
    message = orjson.loads(encoded("grüß".encode(), OutputShape("out", format="text")))
    assert "grüß".encode() == base64.b64decode(message["event_base64"])
    assert "event" not in message


def test_an_envelope_that_is_too_large_goes_without_its_event() -> None:
    event = orjson.dumps({"text": "a" * 5000})
    message = orjson.loads(encoded(event, OutputShape("out", max_bytes=2000)))
    assert message["event_omitted"] is True
    assert "event" not in message


@pytest.mark.parametrize("emit", ["envelope", "merge", "prediction"])
def test_what_is_still_too_large_is_refused(emit: str) -> None:
    shape = OutputShape("out", emit=emit, max_bytes=300)  # type: ignore[arg-type]  # parametrised
    with pytest.raises(MessageError) as caught:
        encoded(b'{"text": "a"}', shape)
    assert (ErrorCode.OUTPUT_TOO_LARGE, Stage.ENCODE) == (caught.value.code, caught.value.stage)


def test_headers_and_key_of_any_bytes_are_carried_through_and_ours_replace_earlier_ones() -> None:
    headers = (("nli-model", b"old"), ("x", b"\xff\x00"), ("x", None), ("content-type", b"text/plain"))
    value = b'{"text": "a"}'
    out = encode(PREDICTION, Request("e", "a"), record(value, headers=headers, key=b"\xff"), STAMPS, ENVELOPE)
    assert (
        ("x", b"\xff\x00"),
        ("x", None),
        ("nli-schema", b"support@7"),
        ("nli-model", b"tiny@sha256:bb"),
        ("content-type", b"application/json"),
    ) == out.headers
    assert b"\xff" == out.key


def test_headers_that_speak_of_the_schema_of_the_event_are_left_out() -> None:
    of_the_event = ("__value_schema_id", "apicurio.value.contentId", "apicurio.value.msgType", "apicurio.protobuf.type")
    of_the_key = ("apicurio.key.contentId", b"\0\0\0\0\0\0\0\1")
    headers = (*((name, b"x") for name in of_the_event), of_the_key)
    out = encode(PREDICTION, Request("e", "a"), record(b'{"text": "a"}', headers=headers, key=b"k"), STAMPS, ENVELOPE)
    assert {of_the_key[0], "nli-schema", "nli-model", "content-type"} == {name for name, _ in out.headers}


def test_a_prediction_takes_its_own_time_where_the_topic_says_so() -> None:
    out = encode(PREDICTION, Request("e", "a"), record(b"{}"), STAMPS, OutputShape("out", timestamp="now"))
    assert out.timestamp_ms is None


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(MessageError) as caught:
        prediction_object(replace(PREDICTION, scores=(LabelScore("a", score),)), Request("e", "a"), STAMPS)
    assert ErrorCode.ENCODE_FAILED == caught.value.code


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(MessageError) as caught:
        encode(replace(PREDICTION, label="\ud800"), Request("e", "a"), record(b"{}"), STAMPS, ENVELOPE)
    assert ErrorCode.ENCODE_FAILED == caught.value.code


def test_without_kafka_there_is_neither_source_nor_event() -> None:
    message = prediction_object(PREDICTION, Request("e", "a"), STAMPS)
    expected = [
        "contract",
        "id",
        "mode",
        "label",
        "selected",
        "scores",
        "schema",
        "model",
        "text",
        "pairs",
        "scored_at",
    ]
    assert expected == list(message)


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [(0, "1970-01-01T00:00:00.000Z"), (-1, "1969-12-31T23:59:59.999Z"), (2**62, None), (-(2**62), None)],
)
def test_a_timestamp_is_written_in_utc_or_not_at_all(milliseconds: int, expected: str | None) -> None:
    assert expected == utc_timestamp(milliseconds)


def test_a_record_is_never_taken_for_smaller_than_it_is() -> None:
    assert record_bytes(b"kk", b"vvv", (("né", b"x"), ("m", None))) >= 2 + 3 + 3 + 1 + 1


def test_an_old_record_is_expired_after_what_is_wrong_with_its_bytes_and_before_its_fields() -> None:
    fields = replace(FIELDS, max_age_seconds=60.0)
    read_at = 1_700_000_000.123

    def code(value: bytes | None, age_seconds: float) -> ErrorCode | None:
        try:
            decode(record(value), fields, LIMITS, read_at + age_seconds)
        except MessageError as error:
            return error.code
        return None

    assert ErrorCode.EXPIRED is code(b'{"text": "a"}', 60.5)
    assert None is code(b'{"text": "a"}', 60.0)
    assert ErrorCode.JSON_INVALID is code(b"{", 60.5)
    assert ErrorCode.EXPIRED is code(b"{}", 60.5)
    assert ErrorCode.TEXT_MISSING is code(b"{}", 60.0)


def test_a_record_without_a_timestamp_or_a_reader_without_a_clock_knows_no_age() -> None:
    fields = replace(FIELDS, max_age_seconds=60.0)
    assert "a" == decode(record(b'{"text": "a"}', timestamp_ms=None), fields, LIMITS, 1e12).text
    assert "a" == decode(record(b'{"text": "a"}'), fields, LIMITS).text


def test_what_is_told_only_now_and_then_has_its_place_in_the_message() -> None:
    """Fields are added, never moved: a prediction without them is written as ever."""
    path = ("billing", "refund")
    prediction = replace(
        PREDICTION,
        scores=(LabelScore("refund", 0.75, path), LabelScore("bug", 0.25)),
        template_spread=0.125,
        text=TokenSpan(900, 0, 3),
    )
    written = prediction_object(prediction, Request("e1", "text"), STAMPS)
    assert [{"label": "refund", "score": 0.75, "path": [*path]}, {"label": "bug", "score": 0.25}] == written["scores"]
    assert 0.125 == written["template_spread"]
    assert {"tokens": 900, "tokens_dropped": 0, "windows": 3} == written["text"]
    assert "template_spread" not in prediction_object(PREDICTION, Request("e1", "text"), STAMPS)
    told = orjson.loads(encode(prediction, Request("e1", "text"), record(b"{}"), STAMPS, ENVELOPE).value or b"")
    assert path == PredictionMessage.model_validate(told).scores[0].path
