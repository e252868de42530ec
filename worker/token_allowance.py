"""How large a batch may be where the memory has run out before. Pure; one thread uses it."""

SHRINK = 2
"""A batch that did not fit is tried in halves, and so is what follows."""
GROW = 4
"""Growth is by a quarter: far less than what was taken back, so that the next failure is a small one."""
PATIENCE_BATCHES = 16
"""Batches near the limit that must fit before a larger one is tried; doubled each time the memory runs out again."""
MOST_PATIENCE_BATCHES = 1024


class TokenAllowance:
    """Padded tokens that a batch may have: unlimited until the memory runs out, then halved and carefully raised."""

    def __init__(self) -> None:
        """No limit yet."""
        self._tokens: int | None = None
        self._too_many = 0
        self._good_batches = 0
        self._patience_batches = PATIENCE_BATCHES

    @property
    def tokens(self) -> int | None:
        """The most padded tokens of a batch now; None while there is no limit."""
        return self._tokens

    def allows(self, tokens: int) -> bool:
        """Whether a batch of so many padded tokens may be tried."""
        return self._tokens is None or tokens <= self._tokens

    def exhausted(self, tokens: int) -> None:
        """Say that the memory did not suffice for a batch of so many padded tokens."""
        limit = max(1, tokens // SHRINK)
        if self._tokens is not None:
            limit = min(limit, self._tokens)
        self._tokens = limit
        self._too_many = max(self._too_many, tokens)
        self._good_batches = 0
        self._patience_batches = min(MOST_PATIENCE_BATCHES, self._patience_batches * SHRINK)

    def succeeded(self, tokens: int) -> None:
        """Say that a batch of so many padded tokens was scored."""
        if self._tokens is None or tokens * SHRINK < self._tokens:  # a small batch says nothing of a large one
            return
        self._good_batches += 1
        if self._good_batches < self._patience_batches:
            return
        self._good_batches = 0
        self._tokens += max(1, self._tokens // GROW)
        if self._tokens >= self._too_many:
            self._tokens, self._too_many = None, 0
