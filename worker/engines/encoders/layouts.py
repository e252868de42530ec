"""How tokens lie in memory while they pass an encoder: padded to a rectangle, or one after the other.

Both answer the same questions, so that an encoder is written once. `q`, `k` and `v` are [..., heads, size] with the
tokens in front: [pairs, tokens] in a rectangle, [all tokens] when packed.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from worker.engines.encoders.arithmetic import Tensor, rows

MASKED: Final = -1e4
"""What a dead key adds to its score: finite in float16 too, and small enough for a probability of zero."""


class Layout(Protocol):
    """Where the tokens are."""

    def positions(self, table: Tensor) -> Tensor:
        """Rows of a table [positions, size] for the tokens; may broadcast over pairs."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Softmax attention within each pair, scaled by the root of the size, heads joined: [..., heads * size].

        With `window`, a token sees only tokens at most so far away.
        """
        ...

    def rectangle(self, values: Tensor) -> Tensor:
        """The values [pairs, tokens, ...]."""
        ...

    def tokens(self, rectangle: Tensor) -> Tensor:
        """Back from a rectangle."""
        ...

    def key_bias(self, dtype: Any) -> Tensor:  # noqa: ANN401  # torch is optional
        """0 for tokens and `MASKED` for filling: [pairs, 1, 1, tokens]."""
        ...

    def first(self, values: Tensor) -> Tensor:
        """The first token's values of each pair: [pairs, ...]."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each pair's tokens: [pairs, ...]."""
        ...


@dataclass(frozen=True, slots=True)
class Padded:
    """A rectangle as wide as the longest pair; `is_token` is bool [pairs, tokens]."""

    is_token: Tensor
    is_plain: bool = False
    """Attention written out in products and a softmax, as compilers know it, rather than by torch's fused kernel."""

    def positions(self, table: Tensor) -> Tensor:
        """Rows of a table, the same for every pair: [tokens, size]."""
        return table[: self.is_token.shape[1]]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Attention over a rectangle."""
        import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.is_plain:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + self.key_bias(q.dtype)
            if window is not None:
                scores = scores + self._window_bias(window, q.dtype)
            mixed = torch.softmax(scores, dim=-1) @ v
        else:
            mask = self.is_token[:, None, None, :]
            if window is not None:
                mask = mask & self._is_near(window)
                # A filler with no token in its window would be a row without any key.
                mask = mask | ~self.is_token[:, None, :, None]
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(-2)

    def rectangle(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def tokens(self, rectangle: Tensor) -> Tensor:
        """The values themselves."""
        return rectangle

    def key_bias(self, dtype: Any) -> Tensor:  # noqa: ANN401  # torch is optional
        """0 for tokens and `MASKED` for filling: [pairs, 1, 1, tokens]."""
        return (~self.is_token[:, None, None, :]).to(dtype) * MASKED

    def first(self, values: Tensor) -> Tensor:
        """The first token's values of each pair: [pairs, ...]."""
        return values[:, 0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each pair's tokens: [pairs, ...]."""
        mask = self.is_token[:, :, None].to(values.dtype)
        return (values * mask).sum(dim=1) / mask.sum(dim=1)

    def _is_near(self, window: int) -> Tensor:
        import torch  # noqa: PLC0415  # as above

        places = torch.arange(self.is_token.shape[1], device=self.is_token.device)
        return (places[:, None] - places[None, :]).abs() <= window

    def _window_bias(self, window: int, dtype: Any) -> Tensor:  # noqa: ANN401  # torch is optional
        return (~self._is_near(window)).to(dtype) * MASKED


@dataclass(frozen=True, slots=True)
class Packed:
    """Tokens of all pairs one after the other; no token is filling.

    All are int32: `place` [tokens], each token's position in its pair; `pair` [tokens], which pair it is of; `ends`
    [pairs + 1], where pairs begin and the last ends; `first_tokens` [pairs].
    """

    place: Tensor
    pair: Tensor
    ends: Tensor
    first_tokens: Tensor
    longest: int
    has_kernel: bool
    """Whether torch's kernel for pairs of any lengths runs here; else attention goes through a rectangle."""

    def positions(self, table: Tensor) -> Tensor:
        """Rows of a table for the tokens: [tokens, size]."""
        return rows(table, self.place)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
        """Attention within each pair, without filling where there is a kernel for it."""
        if not self.has_kernel:
            padded = Padded(self.is_token())
            return self.tokens(padded.attend(self.rectangle(q), self.rectangle(k), self.rectangle(v), window))
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  # only where CUDA is

        ends, longest = self.ends, self.longest
        # Left out where it is not needed: the first versions of the kernel do not know it.
        limits = {} if window is None else {"window_size": (window, window)}
        return varlen_attn(q, k, v, ends, ends, longest, longest, **limits).flatten(-2)

    def rectangle(self, values: Tensor) -> Tensor:
        """The values spread over [pairs, longest, ...], zero where there is no token."""
        spread = values.new_zeros((self.first_tokens.shape[0], self.longest, *values.shape[1:]))
        spread[self.pair, self.place] = values
        return spread

    def tokens(self, rectangle: Tensor) -> Tensor:
        """The tokens of a rectangle, one after the other."""
        return rectangle[self.pair, self.place]

    def is_token(self) -> Tensor:
        """Where a rectangle holds tokens: bool [pairs, longest]."""
        import torch  # noqa: PLC0415  # heavy, and not a requirement of the worker

        places = torch.arange(self.longest, device=self.ends.device)
        return places[None, :] < (self.ends[1:] - self.ends[:-1])[:, None]

    def key_bias(self, dtype: Any) -> Tensor:  # noqa: ANN401  # torch is optional
        """0 for tokens and `MASKED` for filling: [pairs, 1, 1, longest]."""
        return Padded(self.is_token()).key_bias(dtype)

    def first(self, values: Tensor) -> Tensor:
        """The first token's values of each pair: [pairs, ...]."""
        return values[self.first_tokens]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each pair's tokens: [pairs, ...]."""
        return Padded(self.is_token()).mean(self.rectangle(values))
