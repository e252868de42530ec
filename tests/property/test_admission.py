"""What is admitted stays within its bounds, however dear the records are that follow cheap ones."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.support.small_tokenizers import FAMILIES, save
from worker.backlog import Backlog
from worker.clock import ManualClock
from worker.flow import Inbox, PairQueue
from worker.in_flight import ADMISSION_SHARE, Bounds, InFlight
from worker.intake import Intake, IntakeParts
from worker.labels.schema import parse_schema
from worker.observability.metrics import Metrics
from worker.pipeline.batching import Batcher
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import JsonValue, Record, Request, TokenizedPairs

LONGEST = 64
MOST_PAIRS = 60
BOUNDS = Bounds(records=100, value_bytes=5000, queued_tokens=2000)
LONG_TEXT: list[JsonValue] = [{"strategy": "truncate"}, {"strategy": "windows", "overlap_tokens": 5}]
SCHEMAS = [
    parse_schema(
        {"name": "n", "version": 1, "labels": [{"name": f"x{n}"} for n in range(labels)], "long_text": long_text},
        "test",
    )
    for labels in (1, 3, 40)
    for long_text in LONG_TEXT
]
KINDS = [*FAMILIES.values()]
words = st.sampled_from(["the bill", "good", "a", " ", "漢字", "ä", "ﷺ", "😀🏽", "½", "é", "한글", "\n", "x" * 30])
texts = st.builds(
    lambda some, times: "".join(some) * times, st.lists(words, max_size=8), st.sampled_from([1, 1, 9, 60])
)
messages = st.tuples(texts, st.integers(0, len(SCHEMAS) - 1))
kinds = pytest.mark.parametrize("kind", KINDS, ids=[*FAMILIES])


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[[], Tokenizer], PairTokenizer]:
    def made(kind: Callable[[], Tokenizer]) -> PairTokenizer:
        folder: Path = tmp_path_factory.mktemp("tokenizer")
        return PairTokenizer(save(kind(), folder), LONGEST)

    return {kind: made(kind) for kind in KINDS}


@kinds
@given(message=messages)
def test_no_message_has_more_tokens_than_it_was_judged_to_have(
    tokenizers: dict[Callable[[], Tokenizer], PairTokenizer],
    kind: Callable[[], Tokenizer],
    message: tuple[str, int],
) -> None:
    tokenizer, (text, number) = tokenizers[kind], message
    plan = plan_pairs(Request("1", text), SCHEMAS[number], MOST_PAIRS)
    (pairs,) = tokenizer.tokenize([plan])
    if isinstance(pairs, TokenizedPairs):
        assert len(pairs.token_ids) <= tokenizer.most_tokens(plan)


class Scene:
    """Everything between the consumer and the engine; the topic of a record says under which labels it is."""

    def __init__(self, tokenizer: PairTokenizer) -> None:
        self.in_flight = InFlight(BOUNDS)
        self.batcher = Batcher(LONGEST * 8)
        self.queue = PairQueue(self.batcher, self.in_flight.note_queued_tokens)
        self.backlog = Backlog(ManualClock())
        self.intake = Intake(
            IntakeParts(
                lambda record: Request(str(record.offset), (record.value or b"").decode()),
                lambda _request, topic: SCHEMAS[int(topic)],
                tokenizer,
                MOST_PAIRS,
                self.in_flight,
                Inbox(),
                self.queue,
                Metrics(),
                self.backlog.note_cost,
            )
        )
        self.held: list[Record] = []
        self.admitted = defaultdict[str, list[int]](list)

    def turn(self) -> None:
        """What the poll thread does with its backlog."""
        while self.backlog and (room := self.in_flight.room()) > 0:
            queued = self.batcher.tokens
            taken = self.backlog.take(min(256, room))
            rest = self.intake.admit(taken)
            self.backlog.put_back(rest)
            self.hold(taken[: len(taken) - len(rest)])
            if len(taken) - len(rest) > 1:
                assert self.batcher.tokens <= max(BOUNDS.queued_tokens, queued + ADMISSION_SHARE * BOUNDS.queued_tokens)
                assert sum(len(each.value or b"") for each in self.held) <= BOUNDS.value_bytes

    def hold(self, records: list[Record]) -> None:
        assert records
        self.held += records
        for each in records:
            self.admitted[each.topic].append(each.offset)

    def work(self, batches: int, records: int) -> None:
        """What the engine and delivery do."""
        for _ in range(batches):
            self.queue.pop(0)
        self.in_flight.settle(self.held[:records])
        self.held = self.held[records:]


@kinds
@given(steps=st.lists(st.tuples(st.lists(messages, max_size=20), st.integers(0, 20)), min_size=1, max_size=6))
def test_tokens_and_bytes_stay_within_their_bounds_but_for_one_record_or_one_small_admission(
    tokenizers: dict[Callable[[], Tokenizer], PairTokenizer],
    kind: Callable[[], Tokenizer],
    steps: list[tuple[list[tuple[str, int]], int]],
) -> None:
    """And all are admitted once, each topic's in their order."""
    scene, arrived = Scene(tokenizers[kind]), defaultdict[str, list[int]](list)
    for messages_, batches in steps:
        for offset, (text, number) in enumerate(messages_, start=sum(map(len, arrived.values()))):
            arrived[str(number)].append(offset)
            scene.backlog.add([Record(str(number), 0, offset, 1, None, text.encode())])
        scene.turn()
        scene.work(batches, batches)
    while scene.backlog:
        scene.work(1, 100)
        scene.turn()
    assert arrived == scene.admitted
