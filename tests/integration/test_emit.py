"""Every way of writing a prediction, and every permission of a message, through a real broker."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.worker import run_to_end, set_up

pytestmark = pytest.mark.kafka

Event = bytes | dict[str, Any]
MOODS = "name: moods\nversion: 1\nlabels:\n  - name: happy\n  - name: angry\n"
"""A label schema beside the one that topics are bound to."""


def written(
    kafka: BrokerUnderTest,
    topics: TopicsFactory,
    folder: Path,
    events: list[Event],
    **binding: Any,  # noqa: ANN401
) -> tuple[list[tuple[bytes, dict[str, bytes | None]]], list[dict[str, bytes | None]]]:
    """Predictions (value, headers) and dead letters (headers) of `events`, in order."""
    topic = topics("emit", partitions=1)[0]
    kafka.produce(topic, events)
    setup = set_up(folder, kafka, [topic], {"binding": binding})
    (folder / "schemas" / "moods.yaml").write_text(MOODS)
    kafka.create_topics(dict.fromkeys(setup.outputs, 1))
    run_to_end(setup)
    found = [(m.value() or b"", dict(headers_of(m))) for m in kafka.read_committed(f"{topic}.predictions")]
    return found, [dict(headers_of(message)) for message in kafka.read_committed(f"{topic}.dlq")]


def test_an_envelope_holds_the_event_byte_for_byte(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    event = b'{"text": "t",  "n": 1.50, "big": 123456789012345678901234567890}'
    ((value, _),), letters = written(kafka, topics, tmp_path, [event], emit="envelope")
    assert b'"event":' + event + b"}" == value[value.index(b'"event":') :]
    assert [] == letters


def test_merge_adds_one_field_to_the_event_and_refuses_one_that_has_it(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    events: list[Event] = [b'{"text": "t",  "n": 1.50 }', b'{"text": "t", "nli": null}', b'["t"]']
    ((value, _),), letters = written(kafka, topics, tmp_path, events, emit="merge", merge_field="nli")
    assert value.startswith(b'{"text": "t",  "n": 1.50,"nli":{"contract":1,')
    assert {"text", "n", "nli"} == json.loads(value).keys()
    assert [b"merge_field_taken", b"value_not_object"] == [letter["nli-error-code"] for letter in letters]


def test_prediction_alone_has_no_event(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> None:
    ((value, headers),), _ = written(kafka, topics, tmp_path, [b'{"text": "secret"}'], emit="prediction")
    assert not {"event", "event_base64", "text_of_event"} & json.loads(value).keys()
    assert b"secret" not in value
    assert b"application/json" == headers["content-type"]


def test_a_text_stands_in_its_envelope_in_base_64(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    ((value, _),), _ = written(kafka, topics, tmp_path, ["häuser".encode()], format="text")
    assert "häuser".encode() == base64.b64decode(json.loads(value)["event_base64"])


OVERRIDES: dict[str, dict[str, object]] = {
    "labels": {"labels": ["urgent", "calm"]},
    "label_schema": {"label_schema": "moods"},
    "hypothesis_template": {"hypothesis_template": "It is {}."},
    "multi_label": {"multi_label": True},
}


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("permission", ["allow", "forbid"])
def test_a_message_sets_for_itself_what_its_topic_allows_and_nothing_else(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path, name: str, permission: str
) -> None:
    event = json.dumps({"text": "t", **OVERRIDES[name]}).encode()
    found, letters = written(kafka, topics, tmp_path, [event, b'{"text": "t"}'], overrides={name: permission})
    predicted = [json.loads(value) for value, _ in found]
    assert "kinds" == predicted[-1]["schema"]["name"], "what sets nothing is predicted either way"
    if permission == "forbid":
        assert [b"override_forbidden"] == [letter["nli-error-code"] for letter in letters]
        assert 1 == len(predicted)
        return
    assert [] == letters
    changed, usual = predicted
    if name == "labels":
        assert ("inline", {"urgent", "calm"}) == (
            changed["schema"]["name"],
            {each["label"] for each in changed["scores"]},
        )
    elif name == "label_schema":
        assert ("moods", {"happy", "angry"}) == (
            changed["schema"]["name"],
            {each["label"] for each in changed["scores"]},
        )
    elif name == "multi_label":
        assert ("multi", "single") == (changed["mode"], usual["mode"])
    else:
        assert usual["schema"]["digest"] != changed["schema"]["digest"]


def binary_event(identity: str, value: bytes, content_type: str = "application/json") -> Event:
    attributes = {"ce_specversion": "1.0", "ce_id": identity, "ce_type": "ticket", "ce_source": "/shop"}
    headers = [*attributes.items(), ("ce_partitionkey", "p"), ("content-type", content_type)]
    return {"value": value, "headers": [(key, held.encode()) for key, held in headers]}


def structured_event(identity: str, **more: object) -> Event:
    event = {"specversion": "1.0", "id": identity, "type": "ticket", "source": "/shop", **more}
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    return {"value": json.dumps(event).encode(), "headers": headers}


def test_cloud_events_of_both_modes_are_read_and_predictions_are_cloud_events(
    kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path
) -> None:
    ticket = {"subject": "the app crashes", "id": "never read"}
    events = [
        binary_event("b-1", json.dumps(ticket).encode()),
        structured_event("s-1", data=ticket),
        structured_event(
            "s-2", data_base64=base64.b64encode(b"the app crashes").decode(), datacontenttype="text/plain"
        ),
        binary_event("b-2", b"the app crashes", "text/plain"),
        {"value": json.dumps(ticket).encode()},
    ]
    found, letters = written(kafka, topics, tmp_path, events, format="cloudevents", text="/subject")
    predicted = [json.loads(value) for value, _ in found]
    assert ["b-1", "s-1", "s-2", "b-2"] == [each["id"] for each in predicted]
    assert 1 == len({each["text"]["tokens"] for each in predicted})
    for each, (_, headers) in zip(predicted, found, strict=True):
        source = each["source"]
        assert f"{source['topic']}-0-{source['offset']}".encode() == headers["ce_id"]
        assert (b"nli.prediction.v1", b"1.0", b"application/json") == (
            headers["ce_type"],
            headers["ce_specversion"],
            headers["content-type"],
        )
    assert b"p" == found[0][1]["ce_partitionkey"]
    assert ticket == predicted[0]["event"]
    assert "s-1" == predicted[1]["event"]["id"]
    assert [b"payload_invalid"] == [letter["nli-error-code"] for letter in letters]
