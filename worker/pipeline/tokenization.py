"""Step 5: pairs as token ids. A text is tokenised once, a hypothesis once for as long as it is in use."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from worker.errors import EngineError, ErrorCode, MessageError, Stage
from worker.pipeline.planning import PairPlan
from worker.types import Int32Array, TokenizedPairs, TokenSpan

HYPOTHESES_KEPT = 16_384
"""Tokenised hypotheses kept; at `limits.label_bytes` of 1 KiB each about 70 MB at the very most."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """Where a tokenizer puts special tokens around a pair, as token ids and type ids (each int32 [n])."""

    prefix: Int32Array
    prefix_types: Int32Array
    middle: Int32Array
    middle_types: Int32Array
    suffix: Int32Array
    suffix_types: Int32Array
    premise_type: int
    hypothesis_type: int

    @property
    def special_tokens(self) -> int:
        """How many tokens of a pair are neither premise nor hypothesis."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)

    @classmethod
    def learn(cls, tokenizer: Tokenizer) -> "PairTemplate":
        """The template, read off an encoded pair.

        Raises:
            EngineError: the tokenizer does not keep premise and hypothesis apart.
        """
        encoding = tokenizer.encode("a", "b")
        places = encoding.sequence_ids
        if 0 not in places or 1 not in places:
            message = "the tokenizer has no pair template: an NLI model needs one that encodes two texts"
            raise EngineError(message)
        ids, types = np.array(encoding.ids, np.int32), np.array(encoding.type_ids, np.int32)
        a_start, a_end = places.index(0), len(places) - places[::-1].index(0)
        b_start, b_end = places.index(1), len(places) - places[::-1].index(1)
        return cls(
            ids[:a_start],
            types[:a_start],
            ids[a_end:b_start],
            types[a_end:b_start],
            ids[b_end:],
            types[b_end:],
            int(types[a_start]),
            int(types[b_start]),
        )


class PairTokenizer:
    """Joins texts and hypotheses exactly as the model's own tokenizer would, without encoding a text twice.

    Thread-safe. Where a pair is longer than the model allows the text is cut at its end, the hypothesis never.
    """

    def __init__(self, tokenizer_file: Path, max_pair_tokens: int) -> None:
        """Load `tokenizer.json`; pairs are cut to `max_pair_tokens`, special tokens included.

        Raises:
            EngineError: the file is missing or no tokenizer for pairs.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception for a missing or broken file
            message = f"{tokenizer_file}: not a readable tokenizer.json"
            raise EngineError(message) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._max_pair_tokens = max_pair_tokens
        self._template = PairTemplate.learn(self._tokenizer)
        self._hypothesis = lru_cache(maxsize=HYPOTHESES_KEPT)(self._encode_hypothesis)

    @property
    def template(self) -> PairTemplate:
        """Where the special tokens of a pair stand."""
        return self._template

    def tokenize(self, plans: Sequence[PairPlan]) -> list[TokenizedPairs | MessageError]:
        """The pairs of each plan, or why its hypotheses do not fit; in the order of `plans`."""
        texts = [plan.request.text for plan in plans]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._join_or_error(plan, encoding) for plan, encoding in zip(plans, encodings, strict=True)]

    def check(self, hypotheses: Sequence[str]) -> None:
        """Tokenise `hypotheses` ahead of use.

        Raises:
            MessageError: one leaves no room for a text.
        """
        for hypothesis in hypotheses:
            self._room(self._hypothesis(hypothesis))

    def _join_or_error(self, plan: PairPlan, text: Encoding) -> TokenizedPairs | MessageError:
        try:
            return self._join(plan, np.array(text.ids, np.int32))
        except MessageError as error:
            return error

    def _join(self, plan: PairPlan, premise: Int32Array) -> TokenizedPairs:
        template = self._template
        ids: list[Int32Array] = []
        types: list[Int32Array] = []
        lengths = np.empty(len(plan.hypotheses), np.int32)
        shortest = len(premise)
        for row, text in enumerate(plan.hypotheses):
            hypothesis = self._hypothesis(text)
            kept = min(len(premise), self._room(hypothesis))
            shortest = min(shortest, kept)
            ids += (template.prefix, premise[:kept], template.middle, hypothesis, template.suffix)
            types += (
                template.prefix_types,
                np.full(kept, template.premise_type, np.int32),
                template.middle_types,
                np.full(len(hypothesis), template.hypothesis_type, np.int32),
                template.suffix_types,
            )
            lengths[row] = template.special_tokens + kept + len(hypothesis)
        span = TokenSpan(shortest, len(premise) - shortest)
        return TokenizedPairs(np.concatenate(ids), np.concatenate(types), lengths, span)

    def _room(self, hypothesis: Int32Array) -> int:
        room = self._max_pair_tokens - self._template.special_tokens - len(hypothesis)
        if room < 1:
            reason = f"a hypothesis of {len(hypothesis)} tokens leaves no room for text in {self._max_pair_tokens}"
            raise MessageError(ErrorCode.HYPOTHESIS_TOO_LONG, Stage.TOKENIZE, reason)
        return room

    def _encode_hypothesis(self, text: str) -> Int32Array:
        ids = np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        ids.flags.writeable = False
        return ids
