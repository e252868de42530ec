"""A replay never forgets what was replayed, whatever was left out in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.dead_letters.memory import MEMORY_BYTES, Memory
from worker.errors import ConfigError

offsets = st.sets(st.integers(0, 300))


@given(st.lists(offsets, max_size=4), st.integers(0, 300))
def test_what_was_replayed_is_remembered_through_any_number_of_runs(runs: list[set[int]], start: int) -> None:
    memory, replayed = Memory(start), set(range(start))
    for sent in runs:
        memory = memory.with_replayed(sent)
        replayed |= sent
        first_left = next(offset for offset in range(400) if offset not in replayed)
        memory = memory.advanced(first_left)
        memory = Memory.read(memory.position, memory.metadata())
        assert replayed == {offset for offset in range(400) if memory.holds(offset)}


def test_a_run_that_left_nothing_out_is_remembered_by_its_position_alone() -> None:
    memory = Memory(5).with_replayed([5, 6, 9]).advanced(10)
    assert (10, "") == (memory.position, memory.metadata())


def test_one_left_behind_among_very_many_takes_little_room() -> None:
    memory = Memory(0).with_replayed(range(1, 1_000_000))
    assert len(memory.metadata()) < MEMORY_BYTES
    assert not memory.holds(0)


def test_a_position_that_only_falls_back_changes_nothing() -> None:
    memory = Memory(10).with_replayed([3, 12])
    assert memory == memory.advanced(4)
    assert [12] == [offset for offset in range(10, 20) if memory.holds(offset)]


@pytest.mark.parametrize("metadata", ["?", "AAAA", "leader"])
def test_what_somebody_else_has_committed_is_refused(metadata: str) -> None:
    with pytest.raises(ConfigError, match="something else commits under the group of replays"):
        Memory.read(3, metadata)
