"""The bundled demo events: enough of them, of every kind, and broken only where they say so."""

from importlib import resources
from itertools import islice
from typing import Any

import orjson
import pytest

from worker.bundled.demo import DemoEvent, demo_events
from worker.errors import ErrorCode

MORE_THAN_ONE_ROUND = 1_000
TEXT_LIMIT_BYTES = 262_144
BROKEN_KINDS = {
    ErrorCode.JSON_INVALID,
    ErrorCode.LABELS_DUPLICATE,
    ErrorCode.LABELS_INVALID,
    ErrorCode.SCHEMA_UNKNOWN,
    ErrorCode.SCHEMA_VERSION_UNKNOWN,
    ErrorCode.TEMPLATE_INVALID,
    ErrorCode.TEXT_EMPTY,
    ErrorCode.TEXT_MISSING,
    ErrorCode.TEXT_NOT_STRING,
    ErrorCode.TEXT_TOO_LARGE,
    ErrorCode.UTF8_INVALID,
    ErrorCode.VALUE_NOT_OBJECT,
    ErrorCode.VALUE_NULL,
}


def decoded(event: DemoEvent) -> dict[str, Any]:
    """The value of a good event."""
    assert event.value is not None
    value = orjson.loads(event.value)
    assert isinstance(value, dict)
    return value


@pytest.fixture(scope="module")
def events() -> list[DemoEvent]:
    """The whole file, once."""
    lines = resources.files("worker.bundled").joinpath("events.jsonl").read_bytes().splitlines()
    return list(demo_events(len(lines)))


@pytest.fixture(scope="module")
def good(events: list[DemoEvent]) -> list[DemoEvent]:
    """The events of one round that can be predicted."""
    return [event for event in events if event.breaks is None]


@pytest.fixture(scope="module")
def broken(events: list[DemoEvent]) -> list[DemoEvent]:
    """The events of one round that cannot."""
    return [event for event in events if event.breaks is not None]


def test_there_are_at_least_330_events_before_any_comes_again(events: list[DemoEvent]) -> None:
    assert len(events) >= 330


def test_both_topics_have_about_the_same_number_of_events(events: list[DemoEvent]) -> None:
    by_topic = {topic: sum(event.topic == topic for event in events) for topic in ("support", "posts")}

    assert sum(by_topic.values()) == len(events)
    assert min(by_topic.values()) >= 160


def test_every_good_event_has_an_id_of_its_own_and_a_text_of_ordinary_length(good: list[DemoEvent]) -> None:
    values = [decoded(event) for event in good]

    assert len({value["id"] for value in values}) == len(values)
    assert [value["id"] for value in values if not 5 <= len(value["text"].split()) <= 80] == []


def test_no_text_comes_twice(good: list[DemoEvent]) -> None:
    texts = [decoded(event)["text"] for event in good]

    assert len(set(texts)) == len(texts)


def test_broken_events_cover_every_kind_and_carry_codes_of_the_contract(broken: list[DemoEvent]) -> None:
    assert {ErrorCode(event.breaks or "") for event in broken} == BROKEN_KINDS
    assert len(broken) >= 24


@pytest.mark.parametrize("code", [ErrorCode.JSON_INVALID, ErrorCode.UTF8_INVALID])
def test_what_is_said_to_be_no_json_is_none(broken: list[DemoEvent], code: ErrorCode) -> None:
    values = [event.value or b"" for event in broken if event.breaks == code]

    assert len(values) >= 1
    for value in values:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(value)


def test_only_the_text_too_large_is_over_the_limit_of_bytes(events: list[DemoEvent]) -> None:
    over = [event for event in events if len(event.value or b"") > TEXT_LIMIT_BYTES]

    assert [event.breaks for event in over] == [ErrorCode.TEXT_TOO_LARGE]
    assert len(decoded(over[0])["text"].encode()) > TEXT_LIMIT_BYTES


def test_only_the_null_values_have_no_value(events: list[DemoEvent]) -> None:
    without = [event for event in events if event.value is None]

    assert {event.breaks for event in without} == {ErrorCode.VALUE_NULL}
    assert all(event.value is None for event in events if event.breaks == ErrorCode.VALUE_NULL)


def test_about_25_events_carry_their_own_label_set_in_every_form(good: list[DemoEvent]) -> None:
    own = [decoded(event) for event in good if "labels" in decoded(event)]

    assert 20 <= len(own) <= 30
    assert any(isinstance(label, str) for event in own for label in event["labels"])
    assert any(isinstance(label, dict) and "description" in label for event in own for label in event["labels"])
    assert any(isinstance(label, dict) and "hypothesis" in label for event in own for label in event["labels"])
    assert any("hypothesis_template" in event for event in own)
    assert {event["multi_label"] for event in own if "multi_label" in event} == {True, False}


def test_the_first_forty_events_already_hold_every_sort(events: list[DemoEvent]) -> None:
    start = events[:40]
    good = [decoded(event) for event in start if event.breaks is None]

    assert {event.topic for event in start} == {"support", "posts"}
    assert {event.topic for event in start if event.breaks is not None} == {"support", "posts"}
    assert sum("labels" in value for value in good) >= 2


def test_keys_are_sometimes_missing(events: list[DemoEvent]) -> None:
    assert {event.key is None for event in events} == {True, False}


def test_no_id_comes_twice_however_many_rounds_are_produced(good: list[DemoEvent]) -> None:
    ids = [decoded(event)["id"] for event in demo_events(MORE_THAN_ONE_ROUND) if event.breaks is None]

    assert len(set(ids)) == len(ids) > len(good)


def test_broken_events_come_again_unchanged(events: list[DemoEvent], broken: list[DemoEvent]) -> None:
    second_round = islice(demo_events(2 * len(events)), len(events), None)

    assert [event for event in second_round if event.breaks is not None] == broken


@pytest.mark.parametrize("count", [0, 1, 40, MORE_THAN_ONE_ROUND])
def test_as_many_events_come_as_were_asked_for(count: int) -> None:
    assert sum(1 for _ in demo_events(count)) == count


def test_the_same_events_come_every_time() -> None:
    assert list(demo_events(50)) == list(demo_events(50))
