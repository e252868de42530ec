"""CloudEvents in both modes: what is read of them, what is refused, what a prediction says of itself."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ErrorCode, MessageError
from worker.messages.cloud_events import CloudEvent, prediction_headers, read_cloud_event
from worker.types import Record

BINARY = {"ce_specversion": "1.0", "ce_id": "7", "ce_source": "/a", "ce_type": "b"}


def binary(value: bytes | None, **headers: str) -> Record:
    told = {**BINARY, **{name.replace("content_type", "content-type"): text for name, text in headers.items()}}
    return Record("in", 1, 9, 1, None, value, tuple((name, text.encode()) for name, text in told.items() if text))


def structured(content_type: str = "application/cloudevents+json", **event: Any) -> Record:  # noqa: ANN401
    body = json.dumps({"specversion": "1.0", "id": "7", "source": "/a", "type": "b", **event}).encode()
    return Record("in", 1, 9, 1, None, body, (("content-type", content_type.encode()),))


@pytest.mark.parametrize(
    "record",
    [
        binary(b'{"a": 1}'),
        binary(b'{"a": 1}', content_type="application/json"),
        binary(b'{"a": 1}', content_type="application/vnd.shop+json; charset=utf-8"),
        structured(data={"a": 1}),
        structured(data_base64=base64.b64encode(b'{"a": 1}').decode()),
        structured("application/cloudevents+json; charset=utf-8", data={"a": 1}),
    ],
)
def test_an_object_is_read_however_it_is_carried(record: Record) -> None:
    assert CloudEvent("7", {"a": 1}) == read_cloud_event(record)


@pytest.mark.parametrize(
    "record",
    [
        binary("é".encode(), content_type="text/plain"),
        structured(data="é"),
        structured(data_base64=base64.b64encode("é".encode()).decode(), datacontenttype="text/plain"),
    ],
)
def test_a_text_is_read_however_it_is_carried(record: Record) -> None:
    assert CloudEvent("7", "é") == read_cloud_event(record)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (binary(None), ErrorCode.VALUE_NULL),
        (binary(b"{}", ce_specversion=""), ErrorCode.PAYLOAD_INVALID),
        (binary(b"{}", ce_specversion="2.0"), ErrorCode.PAYLOAD_INVALID),
        (binary(b"{}", ce_id=""), ErrorCode.ID_INVALID),
        (binary(b"{}", content_type="application/avro"), ErrorCode.PAYLOAD_INVALID),
        (binary(b"{"), ErrorCode.JSON_INVALID),
        (binary(b"\xff", content_type="text/plain"), ErrorCode.UTF8_INVALID),
        (structured("application/cloudevents+avro"), ErrorCode.PAYLOAD_INVALID),
        (structured("application/cloudevents-batch+json", specversion=None), ErrorCode.PAYLOAD_INVALID),
        (structured(specversion="2.0"), ErrorCode.PAYLOAD_INVALID),
        (structured(id=7, data={}), ErrorCode.ID_INVALID),
        (structured(), ErrorCode.VALUE_NOT_OBJECT),
        (structured(data=[1]), ErrorCode.VALUE_NOT_OBJECT),
        (structured(data_base64="not base 64!"), ErrorCode.PAYLOAD_INVALID),
    ],
)
def test_what_is_no_event_that_can_be_read_has_its_code(record: Record, code: ErrorCode) -> None:
    with pytest.raises(MessageError) as caught:
        read_cloud_event(record)
    assert code == caught.value.code


@given(
    st.binary(max_size=40) | st.just(b'{"specversion": "1.0", "id": "7", "data": {}}'),
    st.sampled_from(["", "text/plain", "application/json", "application/cloudevents+json", "\0", "a/b"]),
)
def test_whatever_comes_is_an_event_or_a_refusal(value: bytes, content_type: str) -> None:
    try:
        found: CloudEvent | None = read_cloud_event(binary(value, content_type=content_type))
    except MessageError:
        found = None
    assert found is None or found.id == "7"


def test_a_prediction_is_the_same_event_however_often_it_is_made_and_another_than_its_input() -> None:
    record = binary(b"{}", ce_subject="shop")
    once, twice = (dict(prediction_headers(record, f"2026-01-0{day}T00:00:00Z")) for day in (1, 2))
    assert (b"in-1-9", b"/in", b"shop") == (once["ce_id"], once["ce_source"], once["ce_subject"])
    assert {"ce_time"} == {name for name in once if once[name] != twice[name]}
    assert "ce_subject" not in dict(prediction_headers(structured(data={}), ""))
