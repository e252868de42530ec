"""Predictions and dead letters, counted as a subscriber sees them."""

from dataclasses import replace

import orjson
import pytest

from worker.demo.tally import Outcome, Summary, Tally, read_outcome
from worker.errors import ErrorCode, FatalError, Stage
from worker.messages.dead_letter import dead_letter
from worker.types import JsonValue, LabelScore, Record, Refusal

PREDICTION: dict[str, JsonValue] = {
    "contract": 1,
    "id": "t-1",
    "mode": "single",
    "label": "billing",
    "selected": ["billing"],
    "scores": [{"label": "billing", "score": 0.9}, {"label": "bug", "score": 0.1}],
    "schema": {"name": "support-intent", "version": 2, "digest": "sha256:0"},
    "model": {"name": "m", "digest": "sha256:1", "engine": "fake", "precision": "float32", "calibrated": False},
    "source": {"topic": "support", "partition": 3, "offset": 7, "timestamp": None},
    "text": {"tokens": 4, "tokens_dropped": 0, "windows": 1},
    "pairs": {"scored": 2, "cached": 0, "skipped": 0},
    "scored_at": "2026-01-01T00:00:00Z",
    "event": {"id": "t-1", "text": "I was charged twice."},
}
COMPLETE = Summary(
    input=3,
    predictions=2,
    dead_letters=1,
    distinct=3,
    codes={"json_invalid": 1},
    versions={"support-intent": (1, 2)},
    broker="kafka",
    delivery="exactly_once",
    engine="fake",
    precision="float32",
    seconds=1.5,
    start_seconds={"broker": 3.0},
)


def prediction_record(value: bytes) -> Record:
    """A record of a prediction topic."""
    return Record("support.predictions", 3, 0, 0, None, value)


def prediction(offset: int, version: int = 1) -> Outcome:
    """A prediction's outcome."""
    return Outcome(
        id="x", source=("support", 0, offset), schema="support-intent", version=version, engine="fake", precision="int8"
    )


def test_a_prediction_is_read_as_any_subscriber_would() -> None:
    outcome = read_outcome(prediction_record(orjson.dumps(PREDICTION)))

    expected = Outcome(
        id="t-1",
        source=("support", 3, 7),
        text="I was charged twice.",
        selected=(LabelScore("billing", 0.9),),
        label="billing",
        best=LabelScore("billing", 0.9),
        schema="support-intent",
        version=2,
        engine="fake",
        precision="float32",
    )
    assert expected == outcome


def test_a_dead_letter_is_read_from_its_headers() -> None:
    record = Record("support", 1, 5, 0, None, b'{"text": "\xff')
    refusal = Refusal(ErrorCode.UTF8_INVALID, Stage.DECODE, "the value is not UTF-8")
    letter = dead_letter(record, refusal, "support.dlq")

    outcome = read_outcome(Record(letter.topic, 1, 0, 0, letter.key, letter.value, letter.headers))

    expected = Outcome(id="support/1/5", source=("support", 1, 5), text='{"text": "�', code="utf8_invalid")
    assert expected == outcome


@pytest.mark.parametrize("value", [b"", b"secret words", b'{"secret": "words"}'])
def test_what_is_no_prediction_is_refused_without_a_word_of_it(value: bytes) -> None:
    with pytest.raises(FatalError) as caught:
        read_outcome(prediction_record(value))

    assert "support.predictions/3/0 is not a prediction" == str(caught.value)


def test_a_dead_letter_without_its_headers_is_refused() -> None:
    with pytest.raises(FatalError, match=r"^posts\.dlq/0/4 is not a dead letter"):
        read_outcome(Record("posts.dlq", 0, 4, 0, None, b"{}"))


def test_versions_are_kept_in_the_order_in_which_they_came() -> None:
    tally = Tally()

    for offset, version in enumerate([1, 1, 3, 2, 1]):
        tally.add(prediction(offset, version))

    assert {"support-intent": [1, 3, 2]} == tally.versions
    assert (5, 0, 5) == (tally.predictions, tally.dead_letters, tally.results)
    assert ("fake", "int8") == (tally.engine, tally.precision)


def test_dead_letters_are_counted_by_code() -> None:
    tally = Tally()

    for offset, code in enumerate(["json_invalid", "text_empty", "json_invalid"]):
        tally.add(Outcome(id="x", source=("posts", 0, offset), code=code))

    assert {"json_invalid": 2, "text_empty": 1} == tally.codes
    assert (0, 3) == (tally.predictions, tally.dead_letters)


def test_one_source_that_comes_twice_is_one_source() -> None:
    tally = Tally()

    tally.add(prediction(4))
    tally.add(prediction(4))

    assert (2, 1) == (tally.predictions, len(tally.sources))


def test_a_summary_is_complete_when_every_event_came_back_once() -> None:
    assert COMPLETE.is_complete
    assert 2.0 == COMPLETE.messages_per_second


@pytest.mark.parametrize(
    "summary",
    [replace(COMPLETE, predictions=1), replace(COMPLETE, dead_letters=2), replace(COMPLETE, distinct=2)],
    ids=["one is missing", "one is too many", "one came twice and one not at all"],
)
def test_a_summary_is_not_complete_otherwise(summary: Summary) -> None:
    assert not summary.is_complete
    assert summary.as_json()["complete"] is False


def test_as_json_it_has_the_promised_keys() -> None:
    document = COMPLETE.as_json()

    promised = {
        "input": 3,
        "predictions": 2,
        "dead_letters": 1,
        "messages_per_second": 2.0,
        "label_schema_versions": {"support-intent": [1, 2]},
        "dead_letter_codes": {"json_invalid": 1},
        "broker": "kafka",
        "delivery": "exactly_once",
        "engine": "fake",
        "precision": "float32",
        "seconds": 1.5,
    }
    assert promised == {name: value for name, value in document.items() if name in promised}
