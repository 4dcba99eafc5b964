"""Dropout of regions, tokens, words and sequences."""

import math

import torch
from torch import Tensor, nn

from wellposed.dropouts.base import Thinning
from wellposed.dropouts.noise import multiply, noise
from wellposed.errors import WellposedError


class _DropBlock(Thinning):
    """Dropout of boxes of feature maps."""

    rank: int  # dimensions of a map

    def __init__(self, p: float = 0.1, block_size: int = 7, *, couple_channels: bool = False) -> None:
        super().__init__(p)
        if block_size < 1:
            raise WellposedError(f"{type(self).__name__} was given block_size={block_size}; expected at least 1")
        self.block_size, self.couple_channels = block_size, couple_channels

    def forward(self, x: Tensor) -> Tensor:
        """Drop blocks of ``x``; outside training, return ``x`` itself."""
        if x.dim() != 2 + self.rank:
            raise WellposedError(
                f"{type(self).__name__} was given an input of shape {tuple(x.shape)}; "
                f"expected (N, C, ...) of {2 + self.rank} dimensions"
            )
        if not self.training or self.p == 0.0:
            return x
        words, p = self.next_words(x.detach()), self.p
        return multiply(x, lambda like: self._factor(like, words, p))

    def _factor(self, like: Tensor, words: Tensor, p: float) -> Tensor:
        """0 where a block lies, elsewhere the scale, to which all channels may be one."""
        sides = like.shape[2:]
        blocks = [min(self.block_size, side) for side in sides]
        places = [side - block + 1 for side, block in zip(sides, blocks, strict=True)]
        rate = min(1.0, p * math.prod(sides) / (math.prod(blocks) * math.prod(places)))
        channels = 1 if self.couple_channels else like.shape[1]
        dropped = (noise(like, words, (like.shape[0], channels, *places), "uniform") < rate).float()
        pool = nn.functional.max_pool2d if self.rank == 2 else nn.functional.max_pool3d
        dropped = nn.functional.pad(dropped, [block - 1 for block in reversed(blocks) for _ in range(2)])
        for dim, block in enumerate(blocks):  # one dimension at a time: a sum of sides rather than their product
            dropped = pool(dropped, [block if d == dim else 1 for d in range(self.rank)], stride=1)
        kept = 1 - dropped
        return kept * (kept.numel() / kept.sum().clamp(min=1.0))

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, block_size={self.block_size}, couple_channels={self.couple_channels}"


class DropBlock2d(_DropBlock):
    """Drop square regions of feature maps while training and scale the rest so that the mean over the batch stays.

    Corners of regions are drawn with probability p H W / (block_size^2 (H - block_size + 1) (W - block_size + 1)).

    Args:
        p: The share of elements that are dropped, roughly: regions may overlap.
        block_size: The side of a region.
        couple_channels: Whether the same regions are dropped from all channels of a sample.

    Shape:
        (N, C, H, W), and the output is like the input. A side shorter than ``block_size`` is dropped whole.

    Raises:
        WellposedError: If p is not in [0, 1], the block size is not positive or the input not of that shape.

    Example:
        >>> DropBlock2d(0.2, 3)(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])

    Source: Ghiasi et al. (2018).
    """

    rank = 2


class DropBlock3d(_DropBlock):
    """Drop cubes of feature maps while training and scale the rest so that the mean over the batch stays.

    Args:
        p: The share of elements that are dropped, roughly: cubes may overlap.
        block_size: The side of a cube.
        couple_channels: Whether the same cubes are dropped from all channels of a sample.

    Shape:
        (N, C, D, H, W), and the output is like the input. A side shorter than ``block_size`` is dropped whole.

    Raises:
        WellposedError: If p is not in [0, 1], the block size is not positive or the input not of that shape.

    Example:
        >>> DropBlock3d(0.2, 3)(torch.ones(2, 3, 4, 8, 8)).shape
        torch.Size([2, 3, 4, 8, 8])

    Source: Ghiasi et al. (2018), in one more dimension.
    """

    rank = 3


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
        if not self.training or self.p == 0.0:
            return x
        count = x.shape[1] - self.prefix
        order = noise(x, self.next_words(x.detach()), (x.shape[0], count), "uniform").argsort(dim=1, stable=True)
        kept = order[:, : max(1, math.floor(count * (1 - self.p)))].sort(dim=1).values + self.prefix
        always = torch.arange(self.prefix, device=x.device).expand(x.shape[0], -1)
        chosen = torch.cat([always, kept], dim=1)
        rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
        return x[rows, chosen]

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return f"p={self.p}, prefix={self.prefix}"


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
        exact = torch.promote_types(vectors.dtype, torch.float32)
        factors = self.thin(vectors.new_ones(self.embedding.num_embeddings, dtype=exact), batch=-1)
        return (vectors.to(exact) * factors[words].unsqueeze(-1)).to(vectors.dtype)


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
