"""Euclidean projections: free functions over the last dimension."""

import torch
from torch import Tensor

from wellposed.arguments import Number


def onto_simplex(w: Tensor, total: Number = 1.0) -> Tensor:
    """The nearest point with entries >= 0 that sum to ``total``, along the last dimension.

    Args:
        w: A real tensor of shape (..., n), n >= 1.
        total: The sum, >= 0.

    Returns:
        A tensor of ``w``'s shape.

    Example:
        >>> onto_simplex(torch.tensor([0.9, 0.5, -1.0]))
        tensor([0.7000, 0.3000, 0.0000])

    Source: Held, Wolfe and Crowder (1974); Duchi et al. (2008).
    """
    sorted_, _ = w.sort(-1, descending=True)
    excess = sorted_.cumsum(-1) - total
    counts = torch.arange(1, w.shape[-1] + 1, dtype=w.dtype, device=w.device)
    # An entry stays positive while it is above the level that the entries up to it would be lowered by.
    kept = (sorted_ * counts > excess).sum(-1, keepdim=True).clamp(min=1)
    level = excess.gather(-1, kept - 1) / kept
    return (w - level).clamp(min=0)


def onto_l1_ball(w: Tensor, radius: Number) -> Tensor:
    """The nearest point whose absolute values sum to at most ``radius``, along the last dimension.

    Args:
        w: A real tensor of shape (..., n), n >= 1.
        radius: The radius, >= 0.

    Returns:
        A tensor of ``w``'s shape.

    Example:
        >>> onto_l1_ball(torch.tensor([2.0, -1.0]), 1.0)
        tensor([1., -0.])

    Source: Duchi, Shalev-Shwartz, Singer and Chandra (2008).
    """
    modulus = w.abs()
    inside = modulus.sum(-1, keepdim=True) <= radius
    return torch.where(inside, w, w.sgn() * onto_simplex(modulus, radius))
