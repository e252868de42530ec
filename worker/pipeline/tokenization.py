"""Step 5: pairs as token ids. A text is tokenised once, a hypothesis once for as long as it is in use."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from worker.errors import EngineError, ErrorCode, MessageError, SchemaError, Stage
from worker.labels.schema import LabelSchema
from worker.pipeline.allowing import most_tokens
from worker.pipeline.joining import JoinedPairs, PairTemplate, Premises, join
from worker.pipeline.label_rows import NOTHING, LabelRows
from worker.pipeline.planning import PairPlan, check_cost, shortlisted
from worker.pipeline.prompts import DEFAULT_QUESTION, ONE_LABEL, SEVERAL_LABELS, after_text, prompting
from worker.pipeline.shortlist import NO_VECTORS, Shortlister
from worker.pipeline.words import TextEncoder
from worker.types import Int32Array, LabelRow, Premise, Reading, Shortlist, TokenizedPairs, TokenSpan, TokenVectors

__all__ = ["PairTemplate", "PairTokenizer", "window_starts"]

HYPOTHESES_KEPT = 16_384
"""Tokenised hypotheses kept; at `limits.label_bytes` of 1 KiB each about 70 MB at the very most."""
ROOMS_KEPT = 4096
"""Label schemas of which it is kept how much room for text their hypotheses leave."""
PROMPTS_KEPT = 256
"""Lists of options that are kept as tokens."""


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
        reading: Reading = "pairs",
    ) -> None:
        """Load `tokenizer.json`; pairs are cut to `max_pair_tokens`, special tokens included.

        With `vectors` schemas may ask for a shortlist; one text in `audit_every` is scored beside it (0: none).
        `reading` says how the model wants texts and hypotheses laid out.

        Raises:
            EngineError: the file is missing, or the tokenizer is not one for such a layout.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception for a missing or broken file
            message = f"{tokenizer_file}: not a readable tokenizer.json"
            raise EngineError(message) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._texts = TextEncoder(self._tokenizer)
        self._max_pair_tokens = max_pair_tokens
        self._rows = LabelRows.learn(self._tokenizer, reading) if isinstance(reading, LabelRow) else None
        self._template = PairTemplate.learn(self._tokenizer) if self._rows is None else self._rows.blank
        self._reading = reading
        self._prompts = lru_cache(maxsize=PROMPTS_KEPT)(self._encode_prompt)
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
        if not plans:
            return []
        encoded = self._texts.encode([plan.request.text for plan in plans])
        first = plans[0]
        if all(plan.hypotheses is first.hypotheses and plan.schema is first.schema for plan in plans):
            return self._join_alike(plans, Premises.of(encoded))
        pairs: list[TokenizedPairs | MessageError | None] = [None] * len(plans)
        for alike in _alike(plans):
            premises = Premises.of([encoded[place] for place in alike])
            joined = self._join_alike([plans[place] for place in alike], premises)
            for place, each in zip(alike, joined, strict=True):
                pairs[place] = each
        return [each for each in pairs if each is not None]

    def tokenize_next(self, plan: PairPlan, premise: Premise) -> TokenizedPairs:
        """The pairs of a further stage, of a text that was tokenised for the first one.

        Raises:
            MessageError: a hypothesis leaves no room for text.
        """
        return self._join(plan, premise)

    def most_tokens(self, plan: PairPlan) -> int:
        """No fewer tokens than the pairs of `plan` will have, all its stages together; the text is not tokenised."""
        try:
            room = self._least_room(plan.schema)
        except MessageError:
            return 0  # none of it will be scored
        is_audited = self._shortlister is not None and self._shortlister.is_audited(plan.request.id)
        return most_tokens(plan, room, self._max_pair_tokens, is_audited=is_audited)

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
        if self._reading != "pairs":
            self._least_room(schema)
        if self._reading == "options" and any(len(node.children) == 1 for node in schema.tree.nodes):
            raise SchemaError(ONE_LABEL)
        if schema.shortlist is not None:
            if self._shortlister is None:
                raise SchemaError(NO_VECTORS)
            self._shortlister.prepare(schema)

    def _join_alike(self, plans: Sequence[PairPlan], premises: Premises) -> list[TokenizedPairs | MessageError]:
        """The pairs of plans that share one tuple of hypotheses."""
        schema = plans[0].schema
        if schema.shortlist is not None or (schema.long_text is not None and schema.long_text.strategy == "windows"):
            # The hypotheses or the texts of each pair are a matter of the message.
            return [self._join_alone(plan, ids) for plan, ids in zip(plans, premises.split(), strict=True)]
        try:
            joined = self._joined(plans[0], premises)
            if schema.tree.is_staged:  # what the deeper stages leave room for has to be known now
                self._least_room(schema)
        except MessageError as error:
            return [error] * len(plans)
        tokens, seen = premises.lengths.tolist(), joined.kept.min(axis=1).tolist()
        ends = np.cumsum(joined.lengths.sum(axis=1)).tolist()
        texts = premises.split() if schema.tree.is_staged else [None] * len(plans)
        pairs: list[TokenizedPairs | MessageError] = []
        start = 0
        for row, (plan, end) in enumerate(zip(plans, ends, strict=True)):
            pairs.append(
                TokenizedPairs(
                    joined.token_ids[start:end],
                    joined.type_ids[start:end],
                    joined.lengths[row],
                    TokenSpan(seen[row], tokens[row] - seen[row]),
                    None if (text := texts[row]) is None else self._kept(plan, Premise(text, tokens[row])),
                    hypotheses=1 if self._rows is None else len(plan.hypotheses),
                )
            )
            start = end
        return pairs

    def _join_alone(self, plan: PairPlan, token_ids: Int32Array) -> TokenizedPairs | MessageError:
        try:
            return self._join(plan, Premise(token_ids, len(token_ids)))
        except MessageError as error:
            return error

    def _joined(self, plan: PairPlan, premises: Premises) -> JoinedPairs:
        hypotheses = [NOTHING] if self._rows is not None else [self._hypothesis(text) for text in plan.hypotheses]
        return join(premises, hypotheses, self._template_for(plan.schema, plan.hypotheses), self._max_pair_tokens)

    def _join(self, plan: PairPlan, premise: Premise) -> TokenizedPairs:
        windows = self._windows(plan, premise)
        shortlist = self._shortlist(plan, windows)
        plan = shortlisted(plan, shortlist)
        lengths = np.fromiter(map(len, windows), np.int64, len(windows))
        joined = self._joined(plan, Premises(np.concatenate(windows), lengths))
        seen = premise.tokens if len(windows) > 1 else min(premise.tokens, int(joined.kept.min()))
        return TokenizedPairs(
            joined.token_ids,
            joined.type_ids,
            joined.lengths.reshape(-1),
            TokenSpan(seen, premise.tokens - seen, len(windows)),
            self._kept(plan, premise),
            shortlist,
            1 if self._rows is None else len(plan.hypotheses),
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
            room = min(self._room_beside(schema, hypotheses) for hypotheses in self._read_together(schema))
            if len(self._least_rooms) >= ROOMS_KEPT:
                self._least_rooms.clear()
            self._least_rooms[schema.digest] = room
        return room

    def _read_together(self, schema: LabelSchema) -> Iterator[tuple[str, ...]]:
        """The hypotheses of each stage, where the model reads those of a stage at once; else all."""
        if self._rows is None:
            yield tuple(dict.fromkeys(schema.tree.hypotheses()))
            return
        stages = (schema.tree.first, *(schema.tree.after(node) for node in range(len(schema.tree.nodes))))
        yield from (schema.tree.stage(stage).hypotheses for stage in stages if stage)

    def _room_beside(self, schema: LabelSchema, hypotheses: tuple[str, ...]) -> int:
        template = self._template_for(schema, hypotheses)
        beside = [NOTHING] if self._rows is not None else [self._hypothesis(text) for text in hypotheses]
        return min(self._room(each, template) for each in beside)

    def _room(self, hypothesis: Int32Array, template: PairTemplate) -> int:
        return self._max_pair_tokens - template.special_tokens - len(hypothesis)

    def _template_for(self, schema: LabelSchema, hypotheses: tuple[str, ...]) -> PairTemplate:
        """What stands around text and hypothesis where the decision is between `hypotheses`."""
        if self._rows is not None:
            return self._prompts("", hypotheses)
        if self._reading != "options":
            return self._template
        if schema.multi_label or len(hypotheses) == 1:
            reason = SEVERAL_LABELS if schema.multi_label else ONE_LABEL
            raise MessageError(ErrorCode.LABELS_INVALID, Stage.TOKENIZE, reason)
        return self._prompts(schema.instruction or DEFAULT_QUESTION, hypotheses)

    def _encode_prompt(self, question: str, options: tuple[str, ...]) -> PairTemplate:
        hypotheses = [self._hypothesis(option) for option in options]
        if self._rows is not None:
            template, longest = self._rows.template(hypotheses), NOTHING
        else:
            template = prompting(self._template, self._encode_words(after_text(question, options)))
            longest = max(hypotheses, key=len)
        if self._room(longest, template) < 1:
            reason = f"a prompt with {len(options)} options leaves no room for text in {self._max_pair_tokens}"
            raise MessageError(ErrorCode.HYPOTHESIS_TOO_LONG, Stage.TOKENIZE, reason)
        return template

    def _encode_words(self, text: str) -> Int32Array:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def _encode_hypothesis(self, text: str) -> Int32Array:
        ids = self._encode_words(text)
        if self._room(ids, self._template) < 1:
            reason = f"a hypothesis of {len(ids)} tokens leaves no room for text in {self._max_pair_tokens}"
            raise MessageError(ErrorCode.HYPOTHESIS_TOO_LONG, Stage.TOKENIZE, reason)
        ids.flags.writeable = False
        return ids


def _alike(plans: Sequence[PairPlan]) -> list[list[int]]:
    """The places of plans that share one tuple of hypotheses: those of one schema and stage do."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, plan in enumerate(plans):
        groups.setdefault((id(plan.hypotheses), id(plan.schema)), []).append(place)
    return list(groups.values())


def window_starts(tokens: int, size: int, overlap: int) -> list[int]:
    """Where the windows of a text begin, so that each has `size` tokens and shares `overlap` with the one before.

    The last one is moved back so that it is full too. A text that fits is one window; an overlap that would leave
    nothing new is taken as `size - 1`.
    """
    if tokens <= size:
        return [0]
    step = size - min(overlap, size - 1)
    return [*range(0, tokens - size, step), tokens - size]
