"""Dropout of elements and of channels, and alpha dropout for self-normalising networks."""

from collections.abc import Sequence

from torch import Tensor, nn

from wellposed.dropouts.functional import check_real, counted_dims, rank_of
from wellposed.dropouts.layers.thinning import Thinning
from wellposed.errors import WellposedError


class Dropout(Thinning, nn.Dropout):
    """Set elements to zero with probability p while training and scale the others by 1 / (1 - p); else the identity.

    Each call draws a new mask from a stream whose key is one int64 number of torch's default CPU generator, so
    ``torch.manual_seed`` governs it and activation checkpointing repeats it; inside ``wellposed.keyed`` nothing global
    is read. The backward pass draws the mask again, and nothing is stored for it but the key.

    Args:
        p: The probability that an element is dropped, in [0, 1].
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        Any, and the output is like the input: floating-point or complex.

    Raises:
        WellposedError: If p is not in [0, 1], or ``inplace`` is true.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> layer = Dropout(0.5)
        >>> layer(torch.ones(8)).unique()
        tensor([0., 2.])
        >>> layer.eval()(torch.ones(8)).unique()
        tensor([1.])

    Source: Srivastava et al. (2014).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        return self.thin(x) if self.training else x


class _Channels(Thinning):
    """Dropout of whole channels of a sample."""

    ranks: tuple[int, ...]  # numbers of dimensions of an input with a batch dimension
    lone_ranks: tuple[int, ...]  # and without

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of ``x``; outside training, return ``x`` itself."""
        dims = self.mask_dims(x)
        return self.thin(x, dims, 0 if len(dims) == 2 else -1) if self.training else x

    def mask_dims(self, x: Tensor) -> tuple[int, ...]:
        """The dimensions that a mask varies over: sample and channel."""
        rank = rank_of(type(self).__name__, x)
        if rank in self.ranks:
            return (0, 1)
        if rank in self.lone_ranks:
            return (0,)
        expected = sorted({*self.ranks, *self.lone_ranks})
        raise WellposedError(
            f"{type(self).__name__} was given an input of shape {tuple(x.shape)}; "
            f"expected {' or '.join(map(str, expected))} dimensions"
        )


class Dropout1d(_Channels, nn.Dropout1d):
    """Drop whole channels of sequences with probability p while training.

    Args:
        p: The probability that a channel is dropped.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, L) or (C, L), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has another number of dimensions.

    Example:
        >>> import torch
        >>> Dropout1d(0.5)(torch.ones(4, 8, 5)).std(dim=-1).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (3,), (2,)


class Dropout2d(_Channels, nn.Dropout2d):
    """Drop whole channels of images with probability p while training.

    Args:
        p: The probability that a channel is dropped.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, H, W) or, as in torch, (N, C, L); the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has another number of dimensions.

    Example:
        >>> import torch
        >>> Dropout2d(0.5)(torch.ones(4, 8, 5, 5)).std(dim=(-2, -1)).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (3, 4), ()


class Dropout3d(_Channels, nn.Dropout3d):
    """Drop whole channels of volumes with probability p while training.

    Args:
        p: The probability that a channel is dropped.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, D, H, W) or (C, D, H, W), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has another number of dimensions.

    Example:
        >>> import torch
        >>> Dropout3d(0.5)(torch.ones(4, 8, 2, 3, 3)).std(dim=(-3, -2, -1)).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (5,), (4,)


class AlphaDropout(Thinning, nn.AlphaDropout):
    """Alpha dropout: set elements to SELU's lower limit with probability p while training; mean 0 and variance 1 stay.

    With that limit f, the output is a * (kept ? x : f) + b, where a = ((1 - p) (1 + p f^2))^(-1/2) and b = -a p f.

    Args:
        p: The probability that an element is dropped; at 1 all is 0.
        inplace: Only ``False`` is possible; taken since torch's modules take it.
        dims: The dimensions that the mask varies over; elements that differ in others only are dropped together.
            ``None`` means all.

    Shape:
        Any, and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has no such dimension.

    Example:
        >>> import wellposed as wp
        >>> y = AlphaDropout(0.2)(wp.random.normal(100_000, wp.Key(0)))
        >>> bool(y.mean().abs() < 0.02), bool((y.std() - 1).abs() < 0.02)
        (True, True)

    Source: Klambauer et al. (2017).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, dims: int | Sequence[int] | None = None) -> None:
        super().__init__(p, inplace)
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        if not self.training:
            return x
        check_real("AlphaDropout", x)
        dims = None if self.dims is None else counted_dims(self.dims, x.dim())
        return self.thin(x, dims, 0 if dims is None or 0 in dims else -1, law="selu")

    def extra_repr(self) -> str:
        """The arguments, as they are printed."""
        return super().extra_repr() + ("" if self.dims is None else f", dims={self.dims}")


class FeatureAlphaDropout(Thinning, nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels, which are set to SELU's lower limit with probability p while training.

    Args:
        p: The probability that a channel is dropped; at 1 all is 0.
        inplace: Only ``False`` is possible; taken since torch's modules take it.

    Shape:
        (N, C, ...), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1], ``inplace`` is true, or the input has fewer than two dimensions.

    Example:
        >>> import torch
        >>> FeatureAlphaDropout(0.5)(torch.ones(4, 8, 5)).std(dim=-1).max()
        tensor(0.)

    Source: Klambauer et al. (2017).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of ``x``; outside training, return ``x`` itself."""
        if rank_of("FeatureAlphaDropout", x) < 2:
            raise WellposedError(
                f"FeatureAlphaDropout was given an input of shape {tuple(x.shape)}; expected (N, C, ...)"
            )
        if not self.training:
            return x
        check_real(type(self).__name__, x)
        return self.thin(x, (0, 1), law="selu")
