"""What passes between the steps of the path, in the order of the path.

Each step is a function from one of these values to the next; all are frozen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from worker.errors import ErrorCode, MessageError, Stage

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]
Int8Array = npt.NDArray[np.int8]
Headers = tuple[tuple[str, bytes | None], ...]
JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One consumed Kafka record, as it came (step 1)."""

    topic: str
    partition: int
    offset: int
    epoch: int
    """Which assignment of the partition delivered it; an older epoch's results are dropped."""
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    """Milliseconds since the Unix epoch; None where the record has no timestamp."""
    has_unreadable_headers: bool = False
    """A header's name is not UTF-8: the Kafka client cannot hand over any header of the record."""

    @property
    def source(self) -> TopicPartition:
        """The partition it came from."""
        return TopicPartition(self.topic, self.partition)


@dataclass(frozen=True, slots=True)
class Request:
    """What one record asks for (step 2): a text, and what it overrides of its topic's binding."""

    id: str
    text: str
    labels: JsonValue = None
    """An inline label set as plain JSON, not yet validated; None when the record carries none."""
    label_schema: str | None = None
    """`name` or `name@version`; None when the topic's own schema applies."""
    hypothesis_template: str | None = None
    multi_label: bool | None = None


class TokenSpan(NamedTuple):
    """How many tokens of a text an engine saw, how many were cut away, and in how many pieces it saw them."""

    tokens: int
    tokens_dropped: int
    windows: int = 1


@dataclass(frozen=True, slots=True)
class Premise:
    """A text as token ids, kept where more of its pairs may follow: it is never tokenised again."""

    token_ids: Int32Array
    """int32 [tokens], without special tokens; what no pair can see is left out."""
    tokens: int
    """Tokens of the whole text."""


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A vector for every token of one vocabulary: what texts and labels are likened by before any pair is scored."""

    values: Int8Array
    """int8 [tokens, dimensions]."""
    scales: Float32Array
    """float32 [tokens]: a token's vector is its row of `values` times its scale."""


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The labels of a stage that come into question for one text, out of more."""

    nodes: tuple[int, ...]
    """Indices into the schema's tree, rising."""
    is_audited: bool = False
    """Whether all labels of the stage are scored none the less, to see what the list misses."""


@dataclass(frozen=True, slots=True)
class TokenizedPairs:
    """One message's pairs as token ids (step 5), joined with their special tokens.

    `token_ids` and `type_ids` are int32 [sum of lengths]; `lengths` is int32 [pairs]. The pairs stand one after the
    other: those of the first window in the order of the plan's hypotheses, then those of the next window.
    """

    token_ids: Int32Array
    type_ids: Int32Array
    lengths: Int32Array
    text: TokenSpan
    premise: Premise | None = None
    """Only where another stage of the message may follow."""
    shortlist: Shortlist | None = None
    """Which labels of the plan the pairs are of; None: all."""
    hypotheses: int = 1
    """How many hypotheses each row of tokens asks about: more than 1 where an engine reads all labels at once."""


class PairRef(NamedTuple):
    """Which pair of which message a row of a batch is."""

    message: int
    """The message's number, given when it was admitted; unique in the process."""
    pair: int
    """Which of the pairs of the message's present stage; or which row, where one asks about several hypotheses."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of any messages, scored in one call (step 6).

    `token_ids` and `type_ids` are int32 [sum of lengths], the pairs one after the other without padding;
    `lengths` is int32 [pairs]. How they are laid out for the device (padded, packed) is the engine's business.
    """

    refs: tuple[PairRef, ...]
    token_ids: Int32Array
    type_ids: Int32Array
    lengths: Int32Array
    hypotheses: Int32Array | None = None
    """int32 [rows]: how many hypotheses each row asks about; None: one each, so that every row is a pair."""
    keys: tuple[bytes, ...] | None = None
    """What each row is told from others by, see `pipeline.pair_keys`; None where nobody will ask."""

    @property
    def asked(self) -> int:
        """Rows of logits that answer it."""
        return len(self.refs) if self.hypotheses is None else int(self.hypotheses.sum())

    def take(self, rows: Sequence[int]) -> "Batch":
        """The pairs in `rows`, in that order."""
        ends = np.cumsum(self.lengths)
        spans = [slice(int(ends[row] - self.lengths[row]), int(ends[row])) for row in rows]
        return Batch(
            refs=tuple(self.refs[row] for row in rows),
            token_ids=np.concatenate([self.token_ids[span] for span in spans]),
            type_ids=np.concatenate([self.type_ids[span] for span in spans]),
            lengths=self.lengths[list(rows)],
            hypotheses=None if self.hypotheses is None else self.hypotheses[list(rows)],
            keys=None if self.keys is None else tuple([self.keys[row] for row in rows]),
        )

    def answers(self) -> Int32Array:
        """Where the rows of logits of each row end, int32 [rows]."""
        return np.cumsum(np.ones(len(self.refs)) if self.hypotheses is None else self.hypotheses, dtype=np.int32)


@dataclass(frozen=True, slots=True)
class PairScores:
    """What an engine says of a batch (step 7): float32 logits [pairs, classes], as many rows as the batch asks for."""

    logits: Float32Array


@dataclass(frozen=True, slots=True)
class NliHead:
    """Which column of the logits means what, read from the model's `id2label`."""

    classes: int
    entailment: int
    contradiction: int
    """The class that speaks against the hypothesis: contradiction, or not_entailment in a 2-class head."""


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """Which model, engine and precision made a prediction."""

    name: str
    digest: str
    """`sha256:…` over weights, config.json and tokenizer.json of the model that was loaded."""
    engine: str
    precision: str


class LabelScore(NamedTuple):
    """One label and its score in [0, 1]."""

    label: str
    score: float
    path: tuple[str, ...] | None = None
    """From a root of the hierarchy down to the label; only of selected labels, and only in a hierarchy."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """What a prediction cost: pairs scored, taken from a cache, left out."""

    scored: int
    cached: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was decided about one message (step 9)."""

    mode: str
    """`single` or `multi`."""
    label: str | None
    selected: tuple[str, ...]
    scores: tuple[LabelScore, ...]
    """By falling score, cut to `top_k`; selected labels are always among them."""
    calibrated: bool
    text: TokenSpan
    pairs: PairCounts
    template_spread: float | None = None
    """Largest difference, over labels, between the scores that single templates would give; None with one."""


@dataclass(frozen=True, slots=True)
class OutboundRecord:
    """One record to publish (steps 10 and 11)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int | None
    source: TopicPartition
    """The input partition: the output goes to the same partition number."""


@dataclass(frozen=True, slots=True)
class Finished:
    """All there is to publish for one input record: predictions or a dead letter, and the record's position."""

    record: Record
    outputs: tuple[OutboundRecord, ...]
    code: ErrorCode | None = None
    """Set when the record became a dead letter."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record cannot be predicted."""

    code: ErrorCode
    stage: Stage
    reason: str

    @classmethod
    def of(cls, error: MessageError) -> "Refusal":
        """The refusal that `error` stands for."""
        return cls(error.code, error.stage, error.reason)


@dataclass(frozen=True, slots=True)
class LabelRow:
    """How a model that scores all labels in one pass wants text and labels laid out."""

    label_token: int
    """Before each label."""
    text_token: int
    """After the last label."""
    is_text_last: bool = True
    most_labels: int | None = None
    """What the model has places for; None: as many as leave room for text."""


Reading = Literal["pairs", "options"] | LabelRow
"""`pairs`: a text with one hypothesis; `options`: a prompt with all hypotheses, then one of them; else all at once."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What the rest of the worker has to know of an engine."""

    stamp: ModelStamp
    head: NliHead
    max_pair_tokens: int
    """Longest pair the model takes, special tokens included."""
    token_budget: int
    """Padded tokens per batch at which this engine is at its best on this machine."""
    details: Mapping[str, str] = field(default_factory=dict)
    """For people: device, threads, why this engine was chosen."""
    reading: Reading = "pairs"
    """How texts and labels are laid out for it."""
