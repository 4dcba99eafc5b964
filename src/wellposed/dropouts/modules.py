"""Dropout of elements and of channels, and its self-normalising kin: thin shells over the one primitive."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from wellposed.dropouts.base import Thinning, drawing_thinner
from wellposed.dropouts.functional import check_real
from wellposed.dropouts.operator import part_of_batch
from wellposed.dropouts.thinning import (
    compute,
    is_plain_on_cpu,
    mask_of,
    quick_apply,
    rates_of,
    thin,
    thin_by_operator,
)
from wellposed.errors import WellposedError
from wellposed.random.late import late

_SELU_FLOOR = -1.7580993408473766  # what SELU saturates at: -scale * alpha (Klambauer et al., 2017)


class Dropout(Thinning):
    """Set elements to zero with probability p while training and scale the others by 1 / (1 - p); else the identity.

    Each call draws a new mask, named by one int64 number from torch's default CPU generator, so ``torch.manual_seed``
    governs it and activation checkpointing repeats it; inside ``wellposed.keyed`` nothing global is read. Nothing is
    stored for the backward pass but the mask's name.

    Args:
        p: The probability that an element is dropped, in [0, 1].

    Shape:
        Any, and the output is like the input: floating-point or complex.

    Raises:
        WellposedError: If p is not in [0, 1].

    Example:
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
    """Dropout of whole channels."""

    ranks: tuple[int, ...]  # numbers of dimensions of an input with a batch dimension
    lone_ranks: tuple[int, ...]  # and without

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of ``x``; outside training, return ``x`` itself."""
        dims = self.mask_dims(x)
        return self.thin(x, dims, 0 if len(dims) == 2 else -1) if self.training else x

    def mask_dims(self, x: Tensor) -> tuple[int, ...]:
        """The dimensions that a mask varies over: sample and channel."""
        if x.dim() in self.ranks:
            return (0, 1)
        if x.dim() in self.lone_ranks:
            return (0,)
        expected = sorted({*self.ranks, *self.lone_ranks})
        raise WellposedError(
            f"{type(self).__name__} was given an input of shape {tuple(x.shape)}; "
            f"expected {' or '.join(map(str, expected))} dimensions"
        )


class Dropout1d(_Channels):
    """Drop whole channels of sequences with probability p while training.

    Args:
        p: The probability that a channel is dropped.

    Shape:
        (N, C, L) or (C, L), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1] or the input has another number of dimensions.

    Example:
        >>> Dropout1d(0.5)(torch.ones(4, 8, 5)).std(dim=-1).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (3,), (2,)


class Dropout2d(_Channels):
    """Drop whole channels of images with probability p while training.

    Args:
        p: The probability that a channel is dropped.

    Shape:
        (N, C, H, W) or, as in torch, (N, C, L); the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1] or the input has another number of dimensions.

    Example:
        >>> Dropout2d(0.5)(torch.ones(4, 8, 5, 5)).std(dim=(-2, -1)).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (3, 4), ()


class Dropout3d(_Channels):
    """Drop whole channels of volumes with probability p while training.

    Args:
        p: The probability that a channel is dropped.

    Shape:
        (N, C, D, H, W) or (C, D, H, W), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1] or the input has another number of dimensions.

    Example:
        >>> Dropout3d(0.5)(torch.ones(4, 8, 2, 3, 3)).std(dim=(-3, -2, -1)).max()
        tensor(0.)

    Source: Tompson et al. (2015).
    """

    ranks, lone_ranks = (5,), (4,)


class AlphaDropout(Thinning):
    """Set elements to SELU's floor with probability p while training, and keep mean 0 and variance 1.

    With floor f, the output is a * (kept ? x : f) + b, where a = ((1 - p) (1 + p f^2))^(-1/2) and b = -a p f.

    Args:
        p: The probability that an element is dropped; at 1 all is 0.

    Shape:
        Any, and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1].

    Example:
        >>> import wellposed as wp
        >>> y = AlphaDropout(0.2)(wp.random.normal(100_000, wp.Key(0)))
        >>> bool(y.mean().abs() < 0.02), bool((y.std() - 1).abs() < 0.02)
        (True, True)

    Source: Klambauer et al. (2017).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of ``x``; outside training, return ``x`` itself."""
        return self._thin_to_floor(x, None) if self.training else x

    def _rates_of(self, p: float) -> tuple[float, ...]:
        """The threshold, the scale and the shift of what is kept, and what the rest is set to."""
        if p in (0.0, 1.0):
            return rates_of(p)
        gain = 1 / math.sqrt((1 - p) * (1 + p * _SELU_FLOOR**2))
        floor = gain * (1 - p) * _SELU_FLOOR
        return rates_of(p)[0], gain, floor - gain * _SELU_FLOOR, floor

    def _thin_to_floor(self, x: Tensor, dims: tuple[int, ...] | None) -> Tensor:
        if is_dynamo_compiling():
            return self._by_operators(x, dims)
        p = self._p
        if p in (0.0, 1.0):
            return self.thin(x, dims)
        threshold, gain, shift, floor = self._rates
        done: Tensor | None = _draw_and_thin(self, x, dims)
        if done is not None:
            return done
        check_real(type(self).__name__, x)
        if is_plain_on_cpu(x):
            key, call, row = self.next_name()
            _, _, box, (low, high, signed, _, _) = mask_of(p, key, call, dims, part_of_batch(x, row))
            mask = p, dims, box, (low, high, signed, threshold, gain, shift, floor)
            return _apply_floor(x, (mask, None))
        exact = torch.promote_types(x.dtype, torch.float32)
        thinned = self.thin(x.to(exact) - _SELU_FLOOR, dims)
        result: Tensor = (thinned * (gain * (1 - p)) + floor).to(x.dtype)
        return result

    def _by_operators(self, x: Tensor, dims: tuple[int, ...] | None) -> Tensor:
        """The same in a graph, which must not know p, or each new one would compile it again."""
        check_real(type(self).__name__, x)
        exact, rate = torch.promote_types(x.dtype, torch.float32), self._rate
        ratio = ((1 - rate) / (1 + rate * _SELU_FLOOR**2)).sqrt().to(exact)
        dropped = self.thin(x.to(exact) - _SELU_FLOOR, dims) * ratio + ratio * _SELU_FLOOR
        return torch.where(rate == 0, x, dropped.to(x.dtype))


class _ToFloor(torch.autograd.Function):
    """The same in one pass; its derivative thins with the gain for a scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, done: tuple[Any, Tensor | None]) -> Tensor:
        (p, dims, box, words), thinned = done
        ctx.mask, ctx.ratio = (p, dims, box, words[:5]), words[4] * (1 - p)
        if thinned is not None:
            return thinned
        exact = torch.promote_types(x.dtype, torch.float32)
        kept = compute(torch.ones_like(x, dtype=exact), ctx.mask) != 0
        return torch.where(kept, x.to(exact) * words[4] + words[5], words[6]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _ToFloor.jvp(ctx, grad), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        if is_plain_on_cpu(tangent) and not tangent._is_zerotensor():
            return thin(tangent, ctx.mask)
        thinned: Tensor = thin_by_operator(tangent.clone(), ctx.mask) * ctx.ratio
        return thinned


_apply_floor = quick_apply(_ToFloor)


@late
def _draw_and_thin(_: AlphaDropout, x: Tensor, __: tuple[int, ...] | None) -> Callable[..., Tensor | None] | None:
    if not is_plain_on_cpu(x):
        return None
    from wellposed.dropouts.kernels import thin_to_floor

    return drawing_thinner(_apply_floor, (thin_to_floor, thin_to_floor))


class FeatureAlphaDropout(AlphaDropout):
    """Set whole channels to SELU's floor with probability p while training, and keep mean 0 and variance 1.

    Args:
        p: The probability that a channel is dropped; at 1 all is 0.

    Shape:
        (N, C, ...), and the output is like the input.

    Raises:
        WellposedError: If p is not in [0, 1] or the input has fewer than two dimensions.

    Example:
        >>> FeatureAlphaDropout(0.5)(torch.ones(4, 8, 5)).std(dim=-1).max()
        tensor(0.)

    Source: Klambauer et al. (2017).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of ``x``; outside training, return ``x`` itself."""
        if x.dim() < 2:
            raise WellposedError(
                f"FeatureAlphaDropout was given an input of shape {tuple(x.shape)}; expected (N, C, ...)"
            )
        return self._thin_to_floor(x, (0, 1)) if self.training else x
