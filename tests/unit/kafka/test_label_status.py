"""What workers answered is read as it was written, and nothing else is taken for an answer."""

from dataclasses import asdict, replace

from worker.kafka.label_status import Answer, read_answers
from worker.labels.schema import canonical_json

ANSWER = Answer("group.pod-0", "kinds", "refused", 7, 6, "sha256:0", "labels: expected at least 1")


def test_the_last_answer_under_a_key_counts_and_a_tombstone_takes_it_back() -> None:
    later = replace(ANSWER, version=8, state="accepted", reason=None)
    key = ANSWER.key.encode()
    values = [(key, canonical_json(asdict(each))) for each in (ANSWER, later)]
    assert {ANSWER.key: ANSWER} == read_answers(values[:1])
    assert {ANSWER.key: later} == read_answers(values)
    assert {} == read_answers([*values, (key, None)])


def test_what_is_no_answer_is_passed_over() -> None:
    value = canonical_json(asdict(ANSWER))
    strange = [
        (None, value),
        (b"other/kinds", value),
        (b"\xff", value),
        *((ANSWER.key.encode(), v) for v in (b"", b"7")),
    ]
    assert {} == read_answers(strange)
    assert {} == read_answers([(ANSWER.key.encode(), canonical_json({**asdict(ANSWER), "state": "asleep"}))])


def test_an_answer_of_an_older_worker_says_of_nothing_that_it_is_used() -> None:
    older = {key: value for key, value in asdict(ANSWER).items() if key != "used"}
    values = [(ANSWER.key.encode(), canonical_json(each)) for each in (older, {**older, "used": True})]
    assert {ANSWER.key: ANSWER} == read_answers(values[:1])
    assert {ANSWER.key: replace(ANSWER, used=True)} == read_answers(values)
