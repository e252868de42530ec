"""Taking records in: many at once, and each for itself where one of them breaks something."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.small_tokenizers import bert_style, save
from tests.support.strategies import record as record_at
from worker.errors import ErrorCode, FatalError, MessageError, Stage
from worker.flow import Admitted, Inbox, NotAdmitted, PairQueue, TakenIn
from worker.in_flight import Bounds, InFlight
from worker.intake import Intake, IntakeParts
from worker.labels.schema import LabelSchema, parse_schema
from worker.observability.metrics import Metrics
from worker.pipeline.batching import Batcher
from worker.pipeline.planning import PairPlan
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Record, Request, TokenizedPairs

LABELS = parse_schema({"name": "kinds", "version": 1, "labels": [{"name": "a"}, {"name": "b"}]}, "test")
POISON = "the crash"


class FragileTokenizer(PairTokenizer):
    """Breaks on one text, whatever stands beside it."""

    error: Exception = ValueError("quotes a text")

    def most_tokens(self, plan: PairPlan) -> int:
        if plan.request.text == POISON:
            raise self.error  # as it may where a message brings labels that no schema had
        return super().most_tokens(plan)

    def tokenize(self, plans: Sequence[PairPlan]) -> list[TokenizedPairs | MessageError]:
        if any(plan.request.text == POISON for plan in plans):
            raise self.error
        return super().tokenize(plans)


class Scene:
    def __init__(self, folder: Path, queued_tokens: int = 10**6) -> None:
        self.inbox, self.in_flight, self.metrics = Inbox(), InFlight(Bounds(100, 10**6, queued_tokens)), Metrics()
        self.pairs = PairQueue(Batcher(1000), self.in_flight.note_queued_tokens)
        self.tokenizer = FragileTokenizer(save(bert_style(), folder), 64)
        self.resolve_error: Exception | None = None
        self.costs: list[tuple[str, int]] = []
        self.decoded: list[int] = []
        parts = IntakeParts(
            self.decode,
            self.resolve,
            self.tokenizer,
            10,
            self.in_flight,
            self.inbox,
            self.pairs,
            self.metrics,
            lambda topic, tokens: self.costs.append((topic, tokens)),
        )
        self.intake = Intake(parts)

    def decode(self, record: Record) -> Request:
        self.decoded.append(record.offset)
        if record.value is None:
            raise MessageError(ErrorCode.VALUE_NULL, Stage.DECODE, "value: null")
        return Request(str(record.offset), record.value.decode())

    def resolve(self, _request: Request, _topic: str) -> LabelSchema:
        if self.resolve_error is not None:
            raise self.resolve_error
        return LABELS

    def admit(self, *values: bytes | None) -> list[Admitted | NotAdmitted]:
        base = record_at()
        records = [
            Record(base.topic, base.partition, offset, base.epoch, None, value) for offset, value in enumerate(values)
        ]
        self.intake.admit(records)
        event = self.inbox.take(0)
        assert isinstance(event, TakenIn)
        assert self.inbox.take(0) is None
        return list(event.places)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_records_take_their_places_in_their_order_whatever_becomes_of_them(scene: Scene) -> None:
    places = scene.admit(b"the bill", None, b"the app")
    assert [(1, 0, Admitted), (2, 1, NotAdmitted), (3, 2, Admitted)] == [
        (place.number, place.record.offset, type(place)) for place in places
    ]
    assert (3, 4) == (scene.in_flight.records, scene.pairs.pairs)
    assert [True, False, True] == [tokens > 0 for _, tokens in scene.costs]


def test_numbers_go_on_from_chunk_to_chunk(scene: Scene) -> None:
    scene.admit(b"the bill", b"the app")
    assert [3] == [place.number for place in scene.admit(b"good")]


def test_what_there_is_no_room_for_is_given_back_and_taken_in_later_as_it_was_planned(tmp_path: Path) -> None:
    """Small ones, then texts of two pairs of 64 tokens each: what comes before says nothing of what comes after."""
    scene = Scene(tmp_path, queued_tokens=300)
    values = [b"a", None, *[b"the bill " * 30] * 4]
    records = [replace(record_at(offset=offset), value=value) for offset, value in enumerate(values)]
    rest = scene.intake.admit(records)
    assert [4, 5] == [each.offset for each in rest]
    scene.in_flight.note_queued_tokens(300)
    assert [5] == [each.offset for each in scene.intake.admit(rest)]
    assert [0, 1, 2, 3, 4, 5] == scene.decoded


def test_a_text_that_breaks_the_tokenizer_hurts_only_itself(scene: Scene, expected_errors: set[str]) -> None:
    expected_errors.add("message.tokenizing_failed")
    good, bad, last = scene.admit(b"the bill", POISON.encode(), b"the app")
    assert isinstance(bad, NotAdmitted)
    assert (ErrorCode.PAYLOAD_INVALID, Stage.TOKENIZE) == (bad.refusal.code, bad.refusal.stage)
    assert POISON not in bad.refusal.reason
    assert [Admitted, Admitted] == [type(good), type(last)]


@pytest.mark.parametrize("where", ["resolve", "tokenize"])
def test_what_is_not_the_records_fault_is_not_put_down_to_it(scene: Scene, where: str) -> None:
    error = FatalError("something of ours")
    if where == "resolve":
        scene.resolve_error = error
    else:
        scene.tokenizer.error = error
    with pytest.raises(FatalError, match="something of ours"):
        scene.admit(POISON.encode())
