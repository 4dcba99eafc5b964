"""The chapter's functions: three initializers, two regularizers, and dropout."""

import math
from typing import Protocol

import torch
from torch import Tensor

from wellposed.arguments import integer
from wellposed.errors import WellposedError
from wellposed.random import Key, bernoulli, uniform


class DenseInitializer(Protocol):
    """An initializer of the weight of a dense layer: (inputdim, units) -> a tensor of that shape."""

    def __call__(self, inputdim: int, units: int, *, key: Key | None = ..., dtype: torch.dtype | None = ...) -> Tensor:
        """Make the weight of a layer."""


def RandomInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Small random weights, whatever the layer's size: uniform on [-0.1, 0.1).

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from, one for each layer; when ``None``, torch's global generator, with
            the chapter's numbers for ``torch.manual_seed``.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> w = RandomInitializer(3, 5)
        >>> w.shape, bool((w.abs() <= 0.1).all())
        (torch.Size([3, 5]), True)
        >>> RandomInitializer(3, 5).equal(RandomInitializer(3, 5))
        False
        >>> RandomInitializer(3, 5, key=Key(1)).equal(RandomInitializer(3, 5, key=Key(1)))
        True
    """
    shape = (_size(inputdim, "inputdim"), _size(units, "units"))
    if key is None:
        return (2 * torch.rand(shape, dtype=dtype) - 1) / 10
    return uniform(shape, key, -0.1, 0.1, dtype=dtype)


def GlorotInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Weights uniform on [-sqrt(1/n), sqrt(1/n)), n = inputdim.

    This is the heuristic that Glorot and Bengio argue against; their own bound, sqrt(6 / (inputdim + units)), is
    ``wp.init.Glorot()``.

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from, one for each layer; when ``None``, torch's global generator, with
            the chapter's numbers for ``torch.manual_seed``.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> bool((GlorotInitializer(100, 5).abs() <= 0.1).all())
        True

    Source: the first formula of Glorot and Bengio (2010).
    """
    return _within_root(1, inputdim, units, key, dtype)


def HeInitializer(  # noqa: N802
    inputdim: int, units: int, *, key: Key | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Weights uniform on [-sqrt(2/n), sqrt(2/n)), n = inputdim.

    Their variance is 2 / (3n). He et al. need 2 / n, the bound sqrt(6/n), which is ``wp.init.He()``.

    Args:
        inputdim: How many inputs the layer has.
        units: How many outputs.
        key: The stream that the numbers come from, one for each layer; when ``None``, torch's global generator, with
            the chapter's numbers for ``torch.manual_seed``.
        dtype: A floating-point dtype; torch's default when ``None``.

    Returns:
        A tensor of shape ``(inputdim, units)``.

    Raises:
        WellposedError: If a size is not a positive integer.

    Example:
        >>> bool((HeInitializer(200, 5).abs() <= 0.1).all())
        True

    Source: after He et al. (2015).
    """
    return _within_root(2, inputdim, units, key, dtype)


class Regularizer(Protocol):
    """A penalty and its gradient: a weight -> the pair (Omega, dOmega/dw)."""

    def __call__(self, w: Tensor, /) -> tuple[Tensor, Tensor]:
        """Compute both."""


def L1Regularizer(w: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802
    """The L1 norm and its gradient, +1 where w >= 0 and -1 where w < 0.

    The gradient at exactly 0 is taken as +1, so no step ends at zero; a proximal step of ``wp.L1`` does.

    Args:
        w: A weight of any shape.

    Returns:
        The pair (Omega, dOmega/dw): a scalar and a tensor of ``w``'s shape.

    Example:
        >>> L1Regularizer(torch.tensor([-2.0, 0.0, 3.0]))
        (tensor(5.), tensor([-1.,  1.,  1.]))
    """
    return w.abs().sum(), torch.where(w >= 0, 1.0, -1.0).to(w.dtype)


def L2Regularizer(w: Tensor) -> tuple[Tensor, Tensor]:  # noqa: N802
    """The squared L2 norm and its gradient 2 w.

    Args:
        w: A weight of any shape.

    Returns:
        The pair (Omega, dOmega/dw): a scalar and a tensor of ``w``'s shape.

    Example:
        >>> L2Regularizer(torch.tensor([-2.0, 0.0, 3.0]))
        (tensor(13.), tensor([-4.,  0.,  6.]))
    """
    return w.square().sum(), 2 * w


def dropout(a: Tensor, p: float, key: Key, *, call: int = 0) -> Tensor:
    """Leave out each hidden unit with probability ``p``, and divide the others by the keep probability 1 - p.

    The division keeps the expected value, so that nothing has to be rescaled when the network is used.

    Args:
        a: Activations, of any shape.
        p: The probability to drop, in [0, 1].
        key: The stream that the mask comes from.
        call: Which mask of the stream: the training step.

    Returns:
        A tensor of ``a``'s shape: ``a * m / (1 - p)``, m = 0 for what is left out and 1 elsewhere.

    Raises:
        WellposedError: If ``p`` is outside [0, 1].

    Example:
        >>> dropout(torch.ones(1000), 0.5, Key(1)).unique()
        tensor([0., 2.])

    Source: Srivastava et al. (2014).
    """
    return a * inverted_mask(a, p, key, call)


def _within_root(numerator: int, inputdim: int, units: int, key: Key | None, dtype: torch.dtype | None) -> Tensor:
    """Uniform on [-b, b), b = sqrt(numerator / inputdim)."""
    shape = (_size(inputdim, "inputdim"), _size(units, "units"))
    if key is None:
        # In the dtype of the draws and in the chapter's order, so that the last bits are the chapter's too.
        draws = torch.rand(shape, dtype=dtype)
        bound = torch.tensor(numerator / shape[0], dtype=draws.dtype).sqrt()
        return 2 * draws * bound - bound
    half_width = math.sqrt(numerator / shape[0])
    return uniform(shape, key, -half_width, half_width, dtype=dtype)


def _size(value: int, name: str) -> int:
    size = integer(value, name, -(2**63), 2**63)
    if size < 1:
        raise WellposedError(f"{name} was given {size}; expected an integer >= 1")
    return size


def checked_probability(p: float) -> float:
    """``p``, refused unless it is a probability."""
    if not 0 <= p <= 1:
        raise WellposedError(f"p was given {p}; expected a probability in [0, 1]")
    return p


def inverted_mask(a: Tensor, p: float, key: Key, call: int) -> Tensor:
    """The mask of inverted dropout: 0 with probability p, and 1 / (1 - p) elsewhere."""
    if checked_probability(p) == 1:
        return torch.zeros_like(a)
    left_out = bernoulli(tuple(a.shape), key, p, call=call, device=a.device)
    return (~left_out).to(a.dtype) / (1 - p)
