"""Which timestamps a topic takes."""

import pytest

from worker.kafka.topics import TopicFacts, _facts

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("facts", "timestamp_ms", "is_taken"),
    [
        (TopicFacts(1), 0, True),
        (TopicFacts(1), NOW_MS, True),
        (TopicFacts(1), NOW_MS + HOUR_MS // 2, True),
        (TopicFacts(1), NOW_MS + 2 * HOUR_MS, False),
        (TopicFacts(1, timestamp_after_ms=None), NOW_MS * 2, True),
        (TopicFacts(1, timestamp_before_ms=HOUR_MS), NOW_MS - HOUR_MS // 2, True),
        (TopicFacts(1, timestamp_before_ms=HOUR_MS), NOW_MS - 2 * HOUR_MS, False),
        (TopicFacts(1, timestamp_before_ms=HOUR_MS), NOW_MS - HOUR_MS + 1000, False),
        (TopicFacts(1, timestamp_before_ms=1000), NOW_MS - 500, True),
    ],
)
def test_a_timestamp_is_taken_within_the_bounds_of_its_topic(
    facts: TopicFacts, timestamp_ms: int, is_taken: bool
) -> None:
    assert is_taken == facts.takes_timestamp(timestamp_ms, NOW_MS)


def test_a_configuration_that_is_not_told_this_time_stays_as_it_was() -> None:
    told = _facts(2, {"max.message.bytes": "2000", "message.timestamp.before.max.ms": "5"}, None)
    assert (2000, 5) == (told.max_message_bytes, told.timestamp_before_ms)
    assert TopicFacts(3, 2000, 5) == _facts(3, None, told)
    assert TopicFacts(3) == _facts(3, None, None)
