"""The pairs of a workload as the engine gets them, and how they are cut into batches when nothing else has a say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.engines.golden import join_batches
from worker.errors import MessageError
from worker.labels.schema import LabelSchema, parse_schema
from worker.pipeline.planning import plan_pairs
from worker.pipeline.tokenization import PairTokenizer
from worker.types import Batch, JsonValue, PairRef, Request

TEMPLATE = "This text is about {}."


def schema_of(name: str, labels: Sequence[str], version: int = 1) -> LabelSchema:
    """A single-label schema of these labels."""
    return parse_schema(schema_document(name, labels, version), "the bench")


def schema_document(name: str, labels: Sequence[str], version: int = 1) -> dict[str, JsonValue]:
    """The document of `schema_of`."""
    return {
        "name": name,
        "version": version,
        "hypothesis_templates": [TEMPLATE],
        "labels": [{"name": label} for label in labels],
    }


@dataclass(frozen=True, slots=True)
class PairSet:
    """Every pair of a workload, each a batch of its own, shortest first."""

    singles: tuple[Batch, ...]

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return sum(int(single.lengths[0]) for single in self.singles)

    def tokens_of_messages(self) -> list[int]:
        """Tokens of all pairs of each message, in the order of the messages."""
        found: dict[int, int] = {}
        for single in self.singles:
            message = single.refs[0].message
            found[message] = found.get(message, 0) + int(single.lengths[0])
        return [found[message] for message in sorted(found)]

    def batches(self, token_budget: int) -> list[Batch]:
        """Neighbours in length together, each batch at most `token_budget` padded tokens or one pair."""
        result: list[Batch] = []
        taken: list[Batch] = []
        for single in self.singles:
            if taken and int(single.lengths[0]) * (len(taken) + 1) > token_budget:
                result.append(join_batches(taken))
                taken = []
            taken.append(single)
        return [*result, join_batches(taken)] if taken else result


def pair_set(tokenizer: PairTokenizer, texts: Sequence[str], schema: LabelSchema) -> PairSet:
    """All pairs of `texts` under `schema`, cut as the worker cuts them.

    Raises:
        MessageError: one cannot be tokenised.
    """
    plans = [plan_pairs(Request("", text), schema, len(schema.tree.nodes)) for text in texts]
    singles = []
    for number, pairs in enumerate(tokenizer.tokenize(plans)):
        if isinstance(pairs, MessageError):
            raise pairs
        ends = np.cumsum(pairs.lengths)
        for index, (end, length) in enumerate(zip(ends.tolist(), pairs.lengths.tolist(), strict=True)):
            span = slice(end - length, end)
            ref = (PairRef(number, index),)
            singles.append(Batch(ref, pairs.token_ids[span], pairs.type_ids[span], pairs.lengths[index : index + 1]))
    return PairSet(tuple(sorted(singles, key=lambda single: int(single.lengths[0]))))


def padding_ratio(batches: Sequence[Batch]) -> float:
    """The share of the padded tokens of all `batches` that is padding."""
    padded = sum(len(batch.lengths) * int(batch.lengths.max()) for batch in batches)
    return 1 - sum(int(batch.lengths.sum()) for batch in batches) / padded if padded else 0.0
