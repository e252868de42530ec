"""What a message may cost, judged before its text is tokenised: so that no more is taken in than there is room for."""

import unicodedata

from worker.pipeline.planning import PairPlan

FIRST_WORD_TOKENS = 1
"""Some tokenizers put a mark of a word's beginning before the first one."""


def most_tokens(plan: PairPlan, room: int, max_pair_tokens: int, *, is_audited: bool) -> int:
    """No fewer tokens than the pairs of `plan` will have, all its stages together.

    `room` is what the longest hypothesis leaves for text; `is_audited` says whether a shortlist is not kept to.
    """
    pairs, long_text = plan.schema.tree.most_pairs, plan.schema.long_text
    is_cut = long_text is None or long_text.strategy != "windows"
    text = most_text_tokens(plan.request.text, room if is_cut else None)
    windows = 1
    if long_text is not None and not is_cut and text > room:
        step = room - min(long_text.overlap_tokens, room - 1)
        # One that may need more than it is allowed to is refused when its windows are counted.
        windows = min(1 - (room - text) // step, max(1, plan.max_pairs // pairs))
    if is_audited:
        pairs = max(pairs, len(plan.hypotheses))
    return windows * pairs * (max_pair_tokens - room + min(text, room))


def most_text_tokens(text: str, enough: int | None = None) -> int:
    """No fewer tokens than `text` has; with `enough` only as far as that.

    No token stands for less than a byte, or than a byte of what normalisation makes of it: one character may become
    eighteen.
    """
    tokens = len(text.encode("utf-8", "surrogatepass")) + FIRST_WORD_TOKENS
    if text.isascii() or (enough is not None and tokens >= enough):
        return tokens
    normalized = unicodedata.normalize("NFKD", text)
    return max(tokens, len(normalized.encode("utf-8", "surrogatepass")) + FIRST_WORD_TOKENS)
