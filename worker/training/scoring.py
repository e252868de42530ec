"""Many texts under one label schema, scored as the worker does: pairs of like length share a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.clock import Clock
from worker.engines.base import Engine
from worker.engines.load import LoadedModel
from worker.errors import ConfigError, MessageError
from worker.labels.schema import LabelSchema
from worker.pipeline.evidence import ScoredStage
from worker.pipeline.planning import PairPlan, plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.training.pairs import LabelledPair
from worker.training.store import PairJoiner
from worker.types import Batch, Float32Array, PairRef, Request, TokenizedPairs

Float64Array = npt.NDArray[np.float64]
_CHUNK_PAIRS = 4_096
_MOST_PAIRS = 1_000_000
"""Per text: nobody but the caller decides how much work an offline command may be."""


@dataclass(slots=True)
class Meter:
    """What scoring cost so far."""

    clock: Clock
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def pairs_per_second(self) -> float:
        """The engine and the tokenizer together."""
        return self.pairs / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model that scores texts."""

    model: LoadedModel
    meter: Meter
    max_pair_tokens: int | None = None
    """Cut texts so that a pair has at most so many tokens; None: what the model takes."""

    @property
    def most_tokens(self) -> int:
        """Tokens of a pair at most."""
        most = self.model.engine.info.max_pair_tokens
        return most if self.max_pair_tokens is None else min(most, self.max_pair_tokens)

    def stages(self, schema: LabelSchema, texts: Sequence[str]) -> Iterator[ScoredStage]:
        """Each text's pairs of the first stage, in order; reads ahead by a chunk. Blocks on the engine.

        Raises:
            ConfigError: a hypothesis leaves no room for text.
            EngineError: the engine cannot score.
        """
        ranks = self.model.engine.info.ranks_options
        tokenizer = PairTokenizer(self.model.tokenizer_file, self.most_tokens, has_options=ranks)
        step = max(1, _CHUNK_PAIRS // schema.tree.most_pairs)
        for start in range(0, len(texts), step):
            plans = [plan_pairs(Request("", text), schema, _MOST_PAIRS) for text in texts[start : start + step]]
            began = self.meter.clock.monotonic()
            tokenized = [_fitting(pairs) for pairs in tokenizer.tokenize(plans)]
            logits = self._logits([pair for pairs in tokenized for pair in _apart(pairs)])
            self.meter.seconds += self.meter.clock.monotonic() - began
            yield from _stages(plans, tokenized, logits)

    def pairs(self, pairs: Sequence[LabelledPair]) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
        """Logits of pairs, float32 [those that fit, classes], and which of `pairs` fit. Blocks on the engine."""
        began = self.meter.clock.monotonic()
        joined = PairJoiner(self.model.tokenizer_file, self.most_tokens).join(pairs)
        fits = np.array([each is not None for each in joined], np.bool_)
        logits = self._logits([(ids, types.astype(np.int32)) for ids, types in filter(None, joined)])
        self.meter.seconds += self.meter.clock.monotonic() - began
        return logits, fits

    def _logits(self, pairs: Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]) -> Float32Array:
        engine = self.model.engine
        logits = np.empty((len(pairs), engine.info.head.classes), np.float32)
        lengths = np.array([len(ids) for ids, _ in pairs], np.int32)
        for rows in _batches(np.argsort(lengths, kind="stable"), lengths, engine):
            logits[rows] = engine.score(_batch([pairs[row] for row in rows.tolist()])).logits
        self.meter.pairs += len(pairs)
        self.meter.tokens += int(lengths.sum())
        return logits


def evidence_by_template(stage: ScoredStage, entailment: int) -> Float64Array:
    """The entailment logit of each label under each template, float64 [labels, templates], of a text in one window."""
    labels = stage.plan.labels
    templates = max(len(pairs.positive) for pairs in labels)
    rows = np.array([pairs.positive if len(pairs.positive) > 1 else pairs.positive * templates for pairs in labels])
    return np.asarray(stage.logits[0, :, entailment].astype(np.float64)[rows])


def softmax(logits: Float64Array) -> Float64Array:
    """Shares of 1 along the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _fitting(pairs: TokenizedPairs | MessageError) -> TokenizedPairs:
    if isinstance(pairs, MessageError):
        raise ConfigError(f"labels: {pairs.reason}; shorten the hypothesis; `worker evaluate` has --max-pair-tokens")
    return pairs


def _apart(pairs: TokenizedPairs) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    ends = np.cumsum(pairs.lengths)[:-1]
    return zip(np.split(pairs.token_ids, ends), np.split(pairs.type_ids, ends), strict=True)


def _batches(
    order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int32], engine: Engine
) -> Iterator[npt.NDArray[np.int64]]:
    start = 0
    while start < len(order):
        stop = start + 1
        # The last one is the longest, and all are padded to it.
        while stop < len(order) and int(lengths[order[stop]]) * (stop + 1 - start) <= engine.info.token_budget:
            stop += 1
        yield order[start:stop]
        start = stop


def _batch(pairs: Sequence[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]) -> Batch:
    return Batch(
        refs=tuple(PairRef(0, number) for number in range(len(pairs))),
        token_ids=np.concatenate([ids for ids, _ in pairs]),
        type_ids=np.concatenate([types for _, types in pairs]),
        lengths=np.array([len(ids) for ids, _ in pairs], np.int32),
    )


def _stages(
    plans: Sequence[PairPlan], tokenized: Sequence[TokenizedPairs], logits: Float32Array
) -> Iterator[ScoredStage]:
    start = 0
    for plan, pairs in zip(plans, tokenized, strict=True):
        stop = start + len(pairs.lengths)
        yield ScoredStage(plan, logits[start:stop].reshape(-1, len(plan.hypotheses), logits.shape[1]))
        start = stop
