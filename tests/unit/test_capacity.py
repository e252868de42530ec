"""The arithmetic of `worker plan`, by hand on small numbers."""

import math
from dataclasses import replace

import pytest

from worker.capacity import (
    ENGINE_SHARE,
    EVENT_BYTES,
    OVERLAP_TOKENS,
    SPECIAL_TOKENS,
    UTILISATION,
    Machine,
    Workload,
    busiest_share,
    catch_up_seconds,
    make_plan,
    output_bytes,
    pairs_per_message,
    partitions_for,
    planned_tokens_per_second,
    tokens_per_pair,
    tokens_per_second,
    windows_per_message,
    workers_for,
)
from worker.messages.codec import encode, record_bytes
from worker.messages.outbound import OutputShape, Stamps
from worker.types import LabelScore, ModelStamp, PairCounts, Prediction, Record, Request, TokenSpan

WORK = Workload(messages_per_second=10.0, labels=8, tokens=60)
MACHINE = Machine(tokens_per_second=10_000.0)


def test_tokens_are_messages_times_labels_times_tokens_of_a_pair() -> None:
    assert 60 + 10 + SPECIAL_TOKENS == tokens_per_pair(WORK)
    assert 10 * 8 * 73 == tokens_per_second(WORK)


def test_a_text_that_does_not_fit_is_cut_or_scored_in_windows() -> None:
    long, room = replace(WORK, tokens=1000), 512 - 10 - SPECIAL_TOKENS
    assert (1, 512) == (windows_per_message(long), tokens_per_pair(long))
    windows = replace(long, windows=True)
    assert 1 + math.ceil((1000 - room) / (room - OVERLAP_TOKENS)) == windows_per_message(windows) == 3
    assert (1000 + 2 * OVERLAP_TOKENS) / 3 + 10 + SPECIAL_TOKENS == tokens_per_pair(windows)
    assert 24 == pairs_per_message(windows)


def test_a_shortlist_costs_its_labels_and_now_and_then_all() -> None:
    listed = replace(WORK, labels=150, shortlist=16)
    assert 16 + 134 / 500 == pairs_per_message(listed)
    assert 16 == pairs_per_message(replace(listed, audit_every=0))
    assert 8 == pairs_per_message(replace(WORK, shortlist=16))


def test_a_worker_is_planned_with_a_part_of_what_its_engine_does() -> None:
    assert 10_000 * ENGINE_SHARE * UTILISATION == planned_tokens_per_second(MACHINE)


def test_the_worker_with_most_partitions_decides_how_many_there_must_be() -> None:
    # Six partitions among four workers: two of them have two, a third of the records each.
    assert 2 / 6 == busiest_share(6, 4)
    assert 6 == workers_for(3.5, 6)
    assert 4 == workers_for(3.5, 12)


def test_too_few_partitions_are_told_and_not_planned_with() -> None:
    found = make_plan(replace(WORK, messages_per_second=1000.0), MACHINE, partitions=3)
    assert found.workers is None
    assert 3 < found.partitions_needed


def test_new_topics_get_room_for_twice_the_workers() -> None:
    assert 12 == partitions_for(3.1)
    assert 2 == partitions_for(0.2)
    assert 10_000 == partitions_for(5000)


def test_a_backlog_lasts_as_long_as_what_is_left_over_takes_for_it() -> None:
    assert 10 * 600 / 5 == catch_up_seconds(WORK, 15.0)
    assert catch_up_seconds(WORK, 10.0) is None


@pytest.mark.parametrize("labels", [2, 8, 50])
def test_a_prediction_is_as_large_as_planned_within_a_fifth(labels: int) -> None:
    scores = tuple(LabelScore(f"label-of-{number:03d}", 1 / (number + 3)) for number in range(labels))
    prediction = Prediction(
        mode="single",
        label=scores[0].label,
        selected=(scores[0].label,),
        scores=scores,
        calibrated=False,
        text=TokenSpan(60, 0),
        pairs=PairCounts(labels, 0, 0),
    )
    digest = "sha256:" + "a" * 64
    stamp = ModelStamp("minilm-nli", digest, "openvino", "bfloat16")
    stamps = Stamps("support-intent", 7, digest, stamp, "2026-01-02T03:04:05.678Z")
    event = b'{"text":"' + b"x" * 389 + b'"}'
    source = Record("support.tickets", 3, 120_934, 1, b"T-1", event, timestamp_ms=1_700_000_000_123)
    out = encode(prediction, Request("T-1", "x"), source, stamps, OutputShape("out"))
    workload = Workload(1.0, labels, 60, message_bytes=len(event))
    assert EVENT_BYTES + 300 == len(event)
    assert pytest.approx(record_bytes(out.key, out.value, out.headers), rel=0.2) == output_bytes(workload)
