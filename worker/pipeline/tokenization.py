"""Step 5: pairs as token ids. A text is tokenised once, a hypothesis once for as long as it is in use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from worker.errors import EngineError, ErrorCode, MessageError, SchemaError, Stage
from worker.labels.schema import LabelSchema
from worker.pipeline.planning import PairPlan, check_cost, shortlisted
from worker.pipeline.shortlist import Shortlister
from worker.types import Int32Array, Premise, Shortlist, TokenizedPairs, TokenSpan, TokenVectors

HYPOTHESES_KEPT = 16_384
"""Tokenised hypotheses kept; at `limits.label_bytes` of 1 KiB each about 70 MB at the very most."""
ROOMS_KEPT = 4096
"""Label schemas of which it is kept how much room for text their hypotheses leave."""


NO_VECTORS = (
    "shortlist: this model has no token vectors; remove the key, or write them with "
    "`python -m worker.engines.token_vectors MODEL_FOLDER`"
)


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

    Thread-safe. Where a pair is longer than the model allows the text is cut, at its end or into windows; the
    hypothesis never is.
    """

    def __init__(
        self,
        tokenizer_file: Path,
        max_pair_tokens: int,
        vectors: TokenVectors | None = None,
        *,
        audit_every: int = 0,
    ) -> None:
        """Load `tokenizer.json`; pairs are cut to `max_pair_tokens`, special tokens included.

        With `vectors` schemas may ask for a shortlist; one text in `audit_every` is scored beside it (0: none).

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
        # What raises is not kept: a hypothesis that never fits takes no memory.
        self._hypothesis = lru_cache(maxsize=HYPOTHESES_KEPT)(self._encode_hypothesis)
        self._least_rooms: dict[str, int] = {}
        self._shortlister = (
            None if vectors is None else Shortlister(vectors, self._encode_words, audit_every=audit_every)
        )

    @property
    def template(self) -> PairTemplate:
        """Where the special tokens of a pair stand."""
        return self._template

    def tokenize(self, plans: Sequence[PairPlan]) -> list[TokenizedPairs | MessageError]:
        """The pairs of each plan, or why they cannot be made; in the order of `plans`."""
        texts = [plan.request.text for plan in plans]
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [self._join_or_error(plan, encoding) for plan, encoding in zip(plans, encodings, strict=True)]

    def tokenize_next(self, plan: PairPlan, premise: Premise) -> TokenizedPairs:
        """The pairs of a further stage, of a text that was tokenised for the first one.

        Raises:
            MessageError: a hypothesis leaves no room for text.
        """
        return self._join(plan, premise)

    def check(self, hypotheses: Iterable[str]) -> None:
        """Tokenise `hypotheses` ahead of use.

        Raises:
            MessageError: one leaves no room for a text.
        """
        for hypothesis in hypotheses:
            self._hypothesis(hypothesis)

    def prepare(self, schema: LabelSchema) -> None:
        """Make ready what the messages under `schema` will need.

        Raises:
            MessageError: a hypothesis leaves no room for a text.
            SchemaError: it asks for a shortlist, and this model has no token vectors.
        """
        self.check(schema.tree.hypotheses())
        if schema.shortlist is not None:
            if self._shortlister is None:
                raise SchemaError(NO_VECTORS)
            self._shortlister.prepare(schema)

    def _join_or_error(self, plan: PairPlan, text: Encoding) -> TokenizedPairs | MessageError:
        token_ids = np.array(text.ids, np.int32)
        try:
            return self._join(plan, Premise(token_ids, len(token_ids)))
        except MessageError as error:
            return error

    def _join(self, plan: PairPlan, premise: Premise) -> TokenizedPairs:
        template = self._template
        windows = self._windows(plan, premise)
        shortlist = self._shortlist(plan, windows)
        plan = shortlisted(plan, shortlist)
        ids: list[Int32Array] = []
        types: list[Int32Array] = []
        lengths: list[int] = []
        least_seen = premise.tokens
        for window in windows:
            for text in plan.hypotheses:
                hypothesis = self._hypothesis(text)
                kept = min(len(window), self._room(hypothesis))
                least_seen = min(least_seen, kept)
                ids += (template.prefix, window[:kept], template.middle, hypothesis, template.suffix)
                types += (
                    template.prefix_types,
                    np.full(kept, template.premise_type, np.int32),
                    template.middle_types,
                    np.full(len(hypothesis), template.hypothesis_type, np.int32),
                    template.suffix_types,
                )
                lengths.append(template.special_tokens + kept + len(hypothesis))
        seen = premise.tokens if len(windows) > 1 else least_seen
        return TokenizedPairs(
            np.concatenate(ids),
            np.concatenate(types),
            np.array(lengths, np.int32),
            TokenSpan(seen, premise.tokens - seen, len(windows)),
            self._kept(plan, premise),
            shortlist,
        )

    def _shortlist(self, plan: PairPlan, windows: list[Int32Array]) -> Shortlist | None:
        if plan.schema.shortlist is None:
            return None
        if self._shortlister is None:
            raise MessageError(ErrorCode.LABELS_INVALID, Stage.TOKENIZE, NO_VECTORS)
        room = self._least_room(plan.schema)  # what no pair can see says nothing about the labels
        return self._shortlister.choose(plan, [window[:room] for window in windows], plan.max_pairs)

    def _windows(self, plan: PairPlan, premise: Premise) -> list[Int32Array]:
        """The pieces of the text, the same for every hypothesis of the schema; the whole text where it is to be cut."""
        long_text = plan.schema.long_text
        if long_text is None or long_text.strategy != "windows":
            return [premise.token_ids]
        size = self._least_room(plan.schema)
        starts = window_starts(premise.tokens, size, long_text.overlap_tokens)
        check_cost(plan.schema, len(starts), plan.max_pairs)
        return [premise.token_ids[start : start + size] for start in starts]

    def _kept(self, plan: PairPlan, premise: Premise) -> Premise | None:
        """What further stages need of the text."""
        schema = plan.schema
        if not schema.tree.is_staged:
            return None
        if self._least_room(schema) >= premise.tokens or (schema.long_text and schema.long_text.strategy == "windows"):
            return premise
        return Premise(premise.token_ids[: self._max_pair_tokens].copy(), premise.tokens)

    def _least_room(self, schema: LabelSchema) -> int:
        """Tokens that the longest hypothesis of `schema` leaves for text."""
        room = self._least_rooms.get(schema.digest)
        if room is None:
            room = min(self._room(self._hypothesis(text)) for text in schema.tree.hypotheses())
            if len(self._least_rooms) >= ROOMS_KEPT:
                self._least_rooms.clear()
            self._least_rooms[schema.digest] = room
        return room

    def _room(self, hypothesis: Int32Array) -> int:
        return self._max_pair_tokens - self._template.special_tokens - len(hypothesis)

    def _encode_words(self, text: str) -> Int32Array:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def _encode_hypothesis(self, text: str) -> Int32Array:
        ids = self._encode_words(text)
        if self._room(ids) < 1:
            reason = f"a hypothesis of {len(ids)} tokens leaves no room for text in {self._max_pair_tokens}"
            raise MessageError(ErrorCode.HYPOTHESIS_TOO_LONG, Stage.TOKENIZE, reason)
        ids.flags.writeable = False
        return ids


def window_starts(tokens: int, size: int, overlap: int) -> list[int]:
    """Where the windows of a text begin, so that each has `size` tokens and shares `overlap` with the one before.

    The last one is moved back so that it is full too. A text that fits is one window; an overlap that would leave
    nothing new is taken as `size - 1`.
    """
    if tokens <= size:
        return [0]
    step = size - min(overlap, size - 1)
    return [*range(0, tokens - size, step), tokens - size]
