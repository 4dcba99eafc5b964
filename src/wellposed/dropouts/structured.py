"""Dropout of tokens, words and sequences."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from wellposed.dropouts.base import Thinning
from wellposed.dropouts.linear import linear
from wellposed.dropouts.noise import noise
from wellposed.dropouts.operator import thin_any
from wellposed.dropouts.thinning import is_plain_on_cpu
from wellposed.errors import WellposedError
from wellposed.random.integers import signed
from wellposed.random.late import late


class TokenDropout(Thinning):
    """Leave out a fixed number of tokens of each sequence while training; the sequences get shorter.

    Of L tokens, max(1, floor((1 - p) L)) are kept, drawn without replacement for each sample; they keep their order.

    Args:
        p: The share of tokens that is left out.
        prefix: How many tokens at the start, such as a class token, are always kept and not counted.

    Shape:
        (N, prefix + L, ...) to (N, prefix + kept, ...).

    Raises:
        WellposedError: If p is not in [0, 1] or the input has fewer than two dimensions.

    Example:
        >>> TokenDropout(0.5, prefix=1)(torch.ones(2, 9, 4)).shape
        torch.Size([2, 5, 4])

    Source: Liu et al. (2023), patch dropout.
    """

    def __init__(self, p: float = 0.5, *, prefix: int = 0) -> None:
        super().__init__(p)
        if prefix < 0:
            raise WellposedError(f"TokenDropout was given prefix={prefix}; expected at least 0")
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        """Leave tokens of ``x`` out; outside training, return ``x`` itself."""
        if x.dim() < 2:
            raise WellposedError(f"TokenDropout was given an input of shape {tuple(x.shape)}; expected (N, L, ...)")
        if not self.training or (not is_dynamo_compiling() and self.p == 0.0):
            return x
        if x.shape[1] < self.prefix:
            raise WellposedError(
                f"TokenDropout was given an input of shape {tuple(x.shape)}; "
                f"expected at least prefix={self.prefix} tokens"
            )
        rows, before, count = x.shape[0], x.shape[1], x.shape[1] - self.prefix
        kept = min(count, max(1, math.floor(count * (1 - self.p))))
        after, sizes = self.prefix + kept, (rows, self.prefix, count, kept)
        if is_plain_on_cpu(x):
            key, call, row = self.next_name()
            chosen = functools.partial(_kept_tokens, *sizes, row * count, key, signed(call))
        else:
            like = x.detach().new_empty((), dtype=torch.float32)
            chosen = functools.partial(_kept_by_operators, *sizes, like, self.next_words(x.detach()))

        def take(x: Tensor) -> Tensor:
            return x.reshape(rows * before, *x.shape[2:]).index_select(0, chosen()).reshape(rows, after, *x.shape[2:])

        def put(y: Tensor) -> Tensor:  # each token has its gradient from one place, so none need be summed
            tokens = y.new_zeros(rows * before, *y.shape[2:])
            copy = tokens.index_copy_ if is_plain_on_cpu(y) else tokens.index_copy  # in place saves a pass over memory
            tokens = copy(0, chosen(), y.reshape(rows * after, *y.shape[2:]))
            return tokens.reshape(rows, before, *y.shape[2:])

        return linear(x, take, put)

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, prefix={self.prefix}"


@late
def _kept_tokens(*_: Any) -> Callable[..., Tensor]:
    from wellposed.dropouts.cpu import kept_tokens

    return kept_tokens


def _kept_by_operators(rows: int, prefix: int, count: int, kept: int, like: Tensor, words: Tensor) -> Tensor:
    """The same by torch's operators, the truth beside the kernel."""
    order = noise(like, words, (rows, count), "uniform").argsort(dim=1, stable=True)
    chosen = order[:, :kept].sort(dim=1).values + prefix
    always = torch.arange(prefix, device=like.device).expand(rows, -1)
    first = torch.arange(rows, device=like.device).unsqueeze(1) * (prefix + count)
    return (torch.cat([always, chosen], dim=1) + first).flatten()


class EmbeddingDropout(Thinning):
    """Drop whole words of an embedding while training: all occurrences of a word in a batch go together.

    Args:
        embedding: What maps words to vectors; it stays as it is.
        p: The probability that a word of the vocabulary is dropped.

    Shape:
        Integers of any shape (...) to (..., D).

    Raises:
        WellposedError: If p is not in [0, 1].

    Example:
        >>> layer = EmbeddingDropout(nn.Embedding(10, 4), 0.5)
        >>> y = layer(torch.tensor([3, 1, 3]))
        >>> torch.equal(y[0], y[2])
        True

    Source: Gal and Ghahramani (2016); Merity et al. (2018).
    """

    def __init__(self, embedding: nn.Embedding, p: float = 0.1) -> None:
        super().__init__(p)
        self.embedding = embedding

    def forward(self, words: Tensor) -> Tensor:
        """The words' vectors, some of them zero; outside training, all."""
        vectors: Tensor = self.embedding(words)
        if not self.training:
            return vectors
        names, rate = self.next_words(vectors.detach()), self._rate
        exact = torch.promote_types(vectors.dtype, torch.float32)

        count = self.embedding.num_embeddings

        def drop(x: Tensor) -> Tensor:
            factors = thin_any(x.new_ones(count, dtype=exact), names, rate, batch=-1)
            return (x.to(exact) * factors[words].unsqueeze(-1)).to(x.dtype)

        return linear(vectors, drop, drop)


class LockedDropout(Thinning):
    """Drop the same elements at every step of a sequence while training.

    Args:
        p: The probability that an element is dropped.
        batch_first: Whether the input is (N, T, C) rather than (T, N, C).

    Shape:
        (T, N, C), or (N, T, C) if ``batch_first``, and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1] or the input has another number of dimensions.

    Example:
        >>> LockedDropout(0.5)(torch.ones(7, 2, 4)).std(dim=0).max()
        tensor(0.)

    Source: Gal and Ghahramani (2016); Merity et al. (2018).
    """

    def __init__(self, p: float = 0.5, *, batch_first: bool = False) -> None:
        super().__init__(p)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        if x.dim() != 3:
            raise WellposedError(f"LockedDropout was given an input of shape {tuple(x.shape)}; expected 3 dimensions")
        batch = 0 if self.batch_first else 1
        return self.thin(x, (batch, 2), batch) if self.training else x

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, batch_first={self.batch_first}"
