"""What a replay commits stands for exactly what it sent."""

import random

import pytest

from worker.clock import ManualClock
from worker.config import fixed_config
from worker.dead_letters.desk import LetterDesk, _Ledger
from worker.dead_letters.memory import Memory
from worker.errors import ConfigError, FatalError

CONFIG = fixed_config(
    {
        "kafka": {"bootstrap_servers": "localhost:1", "group_id": "g"},
        "topics": [{"input": "a", "dead_letter": "all.dlq"}, {"input": "b", "dead_letter": "all.dlq"}, {"input": "c"}],
    }
)


def test_the_position_stays_below_the_first_one_that_was_left() -> None:
    ledger = _Ledger(Memory(3), end=10, sent=[3, 5])
    ledger.leave(4)
    ledger.leave(6)
    note = ledger.note(7)
    assert 4 == note.offset
    assert [4, 6] == [offset for offset in range(8) if not Memory.read(*note).holds(offset)][:2]
    ledger.sent.append(8)
    memory = Memory.read(*ledger.note(9))
    assert [4, 6, 7] == [offset for offset in range(9) if not memory.holds(offset)]


def test_the_position_goes_to_the_end_where_nothing_was_left() -> None:
    assert (10, "") == _Ledger(Memory(3), end=10, sent=[3, 5]).note(10)


def test_what_cannot_be_remembered_is_not_sent() -> None:
    ledger = _Ledger(Memory(), end=100_000, sent=random.Random(7).sample(range(1, 100_000), 50_000))
    ledger.leave(0)
    with pytest.raises(FatalError, match="replay with fewer filters"):
        ledger.note(100_000)


@pytest.mark.parametrize(
    ("topic", "topics", "originals"),
    [
        (None, ("all.dlq", "c.dlq"), set()),
        ("a", ("all.dlq",), {"a"}),
        ("all.dlq", ("all.dlq",), set()),
        ("c.dlq", ("c.dlq",), set()),
    ],
)
def test_a_topic_is_an_input_or_a_dead_letter_topic(
    topic: str | None, topics: tuple[str, ...], originals: set[str]
) -> None:
    desk = LetterDesk(CONFIG, ManualClock())
    assert (topics, originals) == (desk.topics(topic), set(desk.originals(topic)))


def test_a_topic_that_is_neither_is_refused() -> None:
    with pytest.raises(ConfigError, match="--topic: expected an input topic"):
        LetterDesk(CONFIG, ManualClock()).topics("c.predictions")
