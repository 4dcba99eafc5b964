"""Dropout of tokens, of words, and of the same elements at all steps of a sequence."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from wellposed._torch import is_ordinary
from wellposed.dropouts.functional import check_beside, counted_dims, rank_of
from wellposed.dropouts.layers.noise import noise
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.dropouts.linear import linear
from wellposed.dropouts.masks import Mask, stream_tensor
from wellposed.dropouts.operator import thin, thin_by_operator
from wellposed.dropouts.sharding.blockwise import Placed, arrived, blockwise
from wellposed.errors import WellposedError
from wellposed.random.backend import kernels_for
from wellposed.random.box import Box
from wellposed.random.shards import is_sharded


class Tokens(NamedTuple):
    """How many tokens at the start of a sequence are always kept, how many others it has, and how many of them stay."""

    prefix: int
    others: int
    kept: int


class TokenDropout(Thinning):
    """Patch dropout: leave out a fixed number of tokens of each sequence while training, which makes them shorter.

    Of L tokens, max(1, floor((1 - p) L)) are kept, drawn without replacement for each sample; they keep their order.

    Args:
        p: The share of tokens that is left out.
        prefix: How many tokens at the start, such as a class token, are always kept and not counted.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, prefix + L, ...) to (N, prefix + kept, ...).

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has fewer than two dimensions.

    Example:
        >>> TokenDropout(0.5, prefix=1)(torch.ones(2, 9, 4)).shape
        torch.Size([2, 5, 4])

    Source: Liu et al. (2023), patch dropout.
    """

    def __init__(self, p: float = 0.5, *, prefix: int = 0, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        if prefix < 0:
            raise WellposedError(f"TokenDropout was given prefix={prefix}; expected at least 0")
        self.prefix = prefix

    def forward(self, x: Tensor) -> Tensor:
        """Leave tokens of ``x`` out; outside training, return ``x`` itself."""
        if rank_of("TokenDropout", x) < 2:
            raise WellposedError(f"TokenDropout was given an input of shape {tuple(x.shape)}; expected (N, L, ...)")
        if not self.training or (not is_dynamo_compiling() and self.p == 0.0):
            return x
        if x.shape[1] < self.prefix:
            raise WellposedError(
                f"TokenDropout was given an input of shape {tuple(x.shape)}; "
                f"expected at least prefix={self.prefix} tokens"
            )
        x = arrived(x)
        others = x.shape[1] - self.prefix
        tokens = Tokens(self.prefix, others, min(others, max(1, math.floor(others * (1 - self.p)))))
        if is_ordinary(x) or is_sharded(x):
            key, call, row, placed, _ = self.next_stream(x)
            if placed is not None:
                return _move_shards(tokens, x, key, call, placed)
            move = functools.partial(_move, tokens, key=key, call=call, row=row)
        else:
            like = x.detach().new_empty((), dtype=torch.float32)
            move = functools.partial(_move_by_operators, tokens, like=like, stream=self.next_stream_tensor(x.detach()))
        return linear(x, functools.partial(move, back=False), functools.partial(move, back=True))

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, prefix={self.prefix}"


def _move(tokens: Tokens, x: Tensor, key: int, call: int, row: int, back: bool) -> Tensor:
    """Gather the tokens of ``x`` that are kept; or the transpose, which scatters them back to where they were."""
    kernels = kernels_for(x) if is_ordinary(x) else None
    if kernels is not None and tokens.others <= kernels.MOST_TOKENS and tokens.prefix <= kernels.MOST_TOKENS:
        moved: Tensor = kernels.move_tokens(x, *tokens, row, key, call, back)
        return moved
    like = torch.empty((), dtype=torch.float32, device=x.device)
    return _move_by_operators(tokens, x, like, stream_tensor(key, call, row), back)


def _move_by_operators(tokens: Tokens, x: Tensor, like: Tensor, stream: Tensor, back: bool) -> Tensor:
    """The same by torch's operators, on the device of ``like``, as a reference for the kernel."""
    prefix, others, kept = tokens
    rows, whole, rest = x.shape[0], prefix + others, x.shape[2:]
    order = noise(like, stream, (rows, others), "uniform").argsort(dim=1, stable=True)
    chosen = order[:, :kept].sort(dim=1).values + prefix
    always = torch.arange(prefix, device=like.device).expand(rows, -1)
    first = torch.arange(rows, device=like.device).unsqueeze(1) * whole
    chosen = (torch.cat([always, chosen], dim=1) + first).flatten()
    if back:  # each token has its gradient from one place, so none need be summed
        put = x.new_zeros(rows * whole, *rest).index_copy(0, chosen, x.reshape(rows * (prefix + kept), *rest))
        return put.reshape(rows, whole, *rest)
    return x.reshape(rows * whole, *rest).index_select(0, chosen).reshape(rows, prefix + kept, *rest)


def _move_shards(tokens: Tokens, x: Tensor, key: int, call: int, placed: Placed) -> Tensor:
    """The same for a DTensor, whose sequences are brought together where they are sharded, and shared out again."""
    if not is_sharded(x):
        raise WellposedError(
            "TokenDropout was given a plain tensor that is a shard of a larger one, whose tokens it cannot bring "
            "together; give it a DTensor, or the whole"
        )

    def part(x: Tensor, box: Box, *, back: bool) -> Tensor:
        return _move(tokens, x, key, call, box.offset[0], back)

    forth, length = functools.partial(part, back=False), (x.shape[1], tokens.prefix + tokens.kept)
    return blockwise(x, forth, functools.partial(part, back=True), placed, length)


class EmbeddingDropout(Thinning):
    """Embedding dropout: drop whole words while training, all occurrences of a word in a batch together.

    Args:
        embedding: What maps words to vectors; it stays as it is.
        p: The probability that a word of the vocabulary is dropped.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        Integers of any shape (...) to (..., D).

    Raises:
        WellposedError: If p is not in [0, 1], or ``inplace`` is true.

    Example:
        >>> layer = EmbeddingDropout(nn.Embedding(10, 4), 0.5)
        >>> y = layer(torch.tensor([3, 1, 3]))
        >>> torch.equal(y[0], y[2])
        True

    Source: Gal and Ghahramani (2016); Merity et al. (2018).
    """

    def __init__(self, embedding: nn.Embedding, p: float = 0.1, *, inplace: bool = False) -> None:
        super().__init__(p, inplace)
        self.embedding = embedding

    def forward(self, words: Tensor) -> Tensor:
        """The words' vectors, some of them zero; outside training, all."""
        check_beside("EmbeddingDropout", self.embedding, words)
        vectors: Tensor = self.embedding(words)
        if not self.training:
            return vectors
        if is_sharded(vectors):
            return self._drop_shards(vectors, words)
        if is_ordinary(vectors):
            key, call, *_ = self.next_stream()
            stream = stream_tensor(key, call)
        else:
            stream = self.next_stream_tensor(vectors.detach())
        rate, exact = self._rate, torch.promote_types(vectors.dtype, torch.float32)

        count = self.embedding.num_embeddings

        def drop(x: Tensor) -> Tensor:
            factors = thin_by_operator(x.new_ones(count, dtype=exact), stream, rate, batch=-1)
            return (x.to(exact) * factors[words].unsqueeze(-1)).to(x.dtype)

        return linear(vectors, drop, drop)

    def _drop_shards(self, vectors: Tensor, words: Tensor) -> Tensor:
        """The same for DTensors: words go whole, so each process has the factors of them all."""
        from torch.distributed.tensor import DTensor, Replicate

        given: Any = vectors
        mesh, whole = given.device_mesh, [Replicate()] * given.device_mesh.ndim
        key, call, *_ = self.next_stream(vectors)
        exact = torch.promote_types(vectors.dtype, torch.float32)
        ones = torch.ones(self.embedding.num_embeddings, 1, dtype=exact, device=given.to_local().device)
        factors = DTensor.from_local(thin(ones, Mask(self._p, key, call)), mesh, whole, run_check=False)
        if not is_sharded(words):
            words = DTensor.from_local(words, mesh, whole, run_check=False)
        return (vectors.to(exact) * nn.functional.embedding(words, factors)).to(vectors.dtype)


class LockedDropout(Thinning):
    """Variational (locked) dropout: drop the same elements at every step of a sequence while training.

    Args:
        p: The probability that an element is dropped.
        batch_first: Whether the input is (N, T, C) rather than (T, N, C).
        dims: The dimensions that the mask varies over, for inputs of any number of dimensions; when ``None``, those of
            samples and of features. Video (N, T, C, H, W) of which whole channels go at all times has (0, 2), with
            ``batch_first``.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (T, N, C), or (N, T, C) if ``batch_first``; any with ``dims``. The output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has another number of dimensions.

    Example:
        >>> LockedDropout(0.5)(torch.ones(7, 2, 4)).std(dim=0).max()
        tensor(0.)

    Source: Gal and Ghahramani (2016); Merity et al. (2018).
    """

    def __init__(
        self,
        p: float = 0.5,
        *,
        batch_first: bool = False,
        dims: int | Sequence[int] | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(p, inplace)
        self.batch_first, self.dims = batch_first, dims

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        rank, batch = rank_of("LockedDropout", x), 0 if self.batch_first else 1
        if self.dims is not None:
            dims = counted_dims(self.dims, rank)
        elif rank == 3:
            dims = (batch, 2)
        else:
            raise WellposedError(
                f"LockedDropout was given an input of shape {tuple(x.shape)}; expected 3 dimensions, or dims for others"
            )
        return self.thin(x, dims, batch if batch in dims else -1) if self.training else x

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, batch_first={self.batch_first}" + ("" if self.dims is None else f", dims={self.dims}")
