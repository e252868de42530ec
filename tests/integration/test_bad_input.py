"""One bad record hurts only itself, and no text leaks: every kind of bad input, on a real broker."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from confluent_kafka import Message

from tests.conftest import TopicsFactory
from tests.support.broker import BrokerUnderTest, headers_of
from tests.support.wait import found_in_time
from tests.support.worker import Setup, get, running, set_up
from worker.observability.logging import configure_logging

pytestmark = pytest.mark.kafka

MARKER = "zebrafinch"
T = f"{MARKER} text"


def message(**fields: object) -> bytes:
    return json.dumps({"text": T, **fields}).encode()


BAD: dict[str, list[bytes | None]] = {
    "json_invalid": [
        f"{MARKER} {{".encode(),
        f'{{"text": "{T}", "n": NaN}}'.encode(),
        f'{{"text": "{T}", "n": -Infinity}}'.encode(),
        b"\xef\xbb\xbf" + message(),
    ],
    "utf8_invalid": [MARKER.encode() + b"\xff\xfe", f'{{"text": "{MARKER} \\ud800"}}'.encode()],
    "value_null": [None],
    "value_not_object": [f'["{MARKER}"]'.encode(), f'"{MARKER}"'.encode()],
    "value_too_deep": [b'{"text": "' + MARKER.encode() + b'", "a": ' + b"[" * 5000 + b"]" * 5000 + b"}"],
    "text_missing": [json.dumps({"body": MARKER}).encode()],
    "text_not_string": [json.dumps({"text": 7, "x": MARKER}).encode(), json.dumps({"text": [MARKER]}).encode()],
    "text_empty": [
        json.dumps({"text": "", "x": MARKER}).encode(),
        json.dumps({"text": " \n\t ", "x": MARKER}).encode(),
    ],
    "text_too_large": [json.dumps({"text": MARKER + "x" * 262_144}).encode()],
    "labels_invalid": [
        message(labels=[]),
        message(labels=MARKER),
        message(labels=[7]),
        message(labels=[{"name": MARKER, "colour": MARKER}]),
        message(labels=[MARKER], label_schema="kinds"),
    ],
    "labels_duplicate": [message(labels=[MARKER, MARKER])],
    "labels_too_many": [message(labels=[f"{MARKER} {i}" for i in range(1001)])],
    "label_too_long": [message(labels=[MARKER * 1024, "b"])],
    "template_invalid": [
        message(labels=["a"], hypothesis_template=f"{MARKER} without"),
        message(labels=["a"], hypothesis_template=f"{MARKER} {{}} {{}}"),
        message(labels=["a"], hypothesis_template=f"{MARKER} {{0.__class__}}"),
    ],
    "hypothesis_too_long": [
        message(labels=[f"{MARKER} " + "x " * 400, "b"], hypothesis_template="{}" + " y" * 400),
    ],
    "schema_unknown": [message(label_schema=MARKER)],
    "schema_version_unknown": [message(label_schema="kinds@99")],
    "id_invalid": [message(id=[MARKER])],
    "field_invalid": [message(multi_label=MARKER)],
}


def code_of(letter: Message) -> str:
    return (dict(headers_of(letter))["nli-error-code"] or b"").decode()


@pytest.fixture
def log_text(log_events: object) -> Iterator[io.StringIO]:
    """What the worker would write to its log, as it would write it."""
    before = structlog.get_config()
    stream = io.StringIO()
    configure_logging("debug", "json", stream)
    yield stream
    structlog.configure(**before)


@pytest.fixture
def setup(kafka: BrokerUnderTest, topics: TopicsFactory, tmp_path: Path) -> Setup:
    made = set_up(tmp_path, kafka, topics("bad", partitions=1))
    kafka.create_topics(dict.fromkeys(made.outputs, 1))
    return made


def test_each_bad_record_is_a_dead_letter_with_its_code_and_bytes_and_its_neighbours_are_predicted(
    kafka: BrokerUnderTest, setup: Setup, log_text: io.StringIO
) -> None:
    topic = setup.inputs[0]
    key, headers = MARKER.encode() + b"\xff", [("trace", MARKER.encode() + b"\xfe"), ("trace", b""), ("none", None)]
    bad = [(code, value) for code, values in BAD.items() for value in values]
    for _, value in bad:
        kafka.produce(topic, [{"value": value, "key": key, "headers": headers}, message(labels=[MARKER, "other"])])
    with running(setup):
        found_in_time(lambda: len(kafka.read_committed(*setup.outputs)) == 2 * len(bad), 90)
        exposed = b"".join(get(setup, path)[1] for path in ("/metrics", "/schemas", "/readyz", "/livez"))
    letters = kafka.read_committed(f"{topic}.dlq")
    assert bad == [(code_of(letter), letter.value()) for letter in letters]
    for letter in letters:
        assert key == letter.key()
        assert headers == headers_of(letter)[: len(headers)]
        ours = headers_of(letter)[len(headers) :]
        assert MARKER.encode() not in b"".join(value or b"" for _, value in ours)
        assert all(name.startswith(("__connect.errors.", "nli-")) for name, _ in ours)
    predictions = kafka.read_committed(f"{topic}.predictions")
    assert len(bad) == len(predictions)
    assert {MARKER, "other"} == {score["label"] for score in json.loads(predictions[0].value() or b"")["scores"]}
    assert MARKER.encode() in b"".join(letter.value() or b"" for letter in letters)
    assert MARKER.encode() not in exposed
    assert "message.dead_lettered" in log_text.getvalue()
    assert MARKER not in log_text.getvalue()


def test_a_key_and_headers_of_any_bytes_are_carried_through_a_prediction(kafka: BrokerUnderTest, setup: Setup) -> None:
    headers = [("a", b"\xff\x00"), ("a", b"2"), ("null", None), ("nli-schema", b"an older one")]
    kafka.produce(setup.inputs[0], [{"value": message(), "key": b"\x80\xff", "headers": headers, "timestamp": 1234}])
    with running(setup):
        found_in_time(lambda: len(kafka.read_committed(*setup.outputs)) == 1, 60)
    (prediction,) = kafka.read_committed(f"{setup.inputs[0]}.predictions")
    assert b"\x80\xff" == prediction.key()
    assert 1234 == prediction.timestamp()[1]
    carried = headers_of(prediction)
    assert headers[:3] == carried[:3]
    assert [b"kinds@1"] == [value for name, value in carried if name == "nli-schema"]
