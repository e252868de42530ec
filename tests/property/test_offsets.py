"""Offsets: nothing of a partition that is not ours, nothing without a member, never past what was released."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import record
from worker.kafka.offsets import Assignment, commit_positions, names_member
from worker.kafka.topics import murmur2_partition, target_partition
from worker.types import Finished, TopicPartition

MEMBER = b"CGMDv2:" + (3).to_bytes(4, "little") + b"group\0member-1\0\0"
NO_MEMBER = b"CGMDv2:" + (-1).to_bytes(4, "little", signed=True) + b"group\0\0\0"


@given(st.lists(st.tuples(st.sampled_from(["assign", "revoke"]), st.integers(0, 3))))
def test_a_record_of_a_former_assignment_is_never_ours(steps: list[tuple[str, int]]) -> None:
    assignment, delivered = Assignment(), []
    for step, number in steps:
        partition = TopicPartition("in", number)
        if step == "assign":
            assignment.assign([partition])
        else:
            assignment.revoke([partition])
        epoch = assignment.epoch(partition)
        if epoch is not None:
            delivered.append(Finished(record(partition=number, epoch=epoch), ()))
    current = assignment.snapshot()
    assert [f for f in delivered if current.epochs.get(f.record.source) == f.record.epoch] == current.owned(delivered)
    for finished in current.owned(delivered):
        assert max(f.record.epoch for f in delivered if f.record.source == finished.record.source) == (
            finished.record.epoch
        )


@given(st.lists(st.integers(0, 3), min_size=1))
def test_the_position_is_one_past_the_last_record_of_each_partition(partitions: list[int]) -> None:
    finished, offsets = [], dict.fromkeys(range(4), 10)
    for partition in partitions:
        finished.append(Finished(record(partition=partition, offset=offsets[partition]), ()))
        offsets[partition] += 2  # commit markers leave gaps
    expected = {TopicPartition("in", p): offsets[p] - 1 for p in set(partitions)}
    assert expected == commit_positions(finished)


def test_membership_without_a_member_is_never_committed_under() -> None:
    assignment = Assignment()
    assignment.note_membership(MEMBER)
    assert MEMBER == assignment.snapshot().membership
    assignment.note_membership(NO_MEMBER)
    assert None is assignment.snapshot().membership
    assert (True, False) == (names_member(MEMBER), names_member(NO_MEMBER))


def test_keys_go_where_the_java_client_puts_them() -> None:
    # Values of org.apache.kafka.common.utils.Utils.murmur2 (UtilsTest.testMurmur2), as toPositive.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    for key, expected in hashes.items():
        assert (expected & 0x7FFFFFFF) % 1_000_003 == murmur2_partition(key, 1_000_003)


@given(st.integers(0, 40), st.one_of(st.none(), st.binary()), st.integers(1, 12))
def test_an_output_keeps_its_partition_where_the_target_has_it(source: int, key: bytes | None, count: int) -> None:
    target = target_partition(source, key, count)
    assert 0 <= target < count
    if source < count:
        assert source == target
    elif key is None:
        assert source % count == target
