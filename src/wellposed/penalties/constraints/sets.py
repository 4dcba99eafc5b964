"""Constraints as penalties: 0 inside a set and infinite outside, so that the prox is the projection onto the set.

A constraint has no strength: the step size does not matter, and scaling by a positive number changes nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.computing import operands
from wellposed.penalties.constraints.projections import onto_l1_ball, onto_simplex
from wellposed.penalties.grouping import Groups, grouping
from wellposed.penalties.penalty import Penalty, unchecked
from wellposed.penalties.proximal import Traits
from wellposed.penalties.spectral import as_matrix, svd


@dataclass(frozen=True, eq=False, repr=False)
class Constraint(Penalty):
    """The indicator of a set. Subclasses say how to project onto it."""

    traits = Traits(separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        raise NotImplementedError

    def value(self, w: Tensor) -> Tensor:
        """0 inside the set, as far as rounding lets a weight of its dtype lie in it, and infinity outside.

        Args:
            w: A weight of any shape.

        Returns:
            A real scalar tensor, at least float32.

        Raises:
            WellposedError: As for :meth:`Penalty.value`.
        """
        self._refuse_misfit(w)
        return self._within(operands.wide(w), w.dtype)

    def _value(self, w: Tensor) -> Tensor:
        return self._within(w, w.dtype)

    def _within(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        if not w.numel():
            return torch.zeros((), dtype=w.dtype.to_real(), device=w.device)
        nearest = self._project(w)
        off, scale = (w - nearest).abs(), torch.maximum(w.abs(), nearest.abs()).amax()
        # A projection's sums are rounded in w's dtype, and it was once to the weight's own: on an even grid below
        # the normal numbers.
        own = torch.finfo(dtype)
        slack = 64 * torch.finfo(w.dtype).eps * scale + 2 * own.eps * scale.clamp(min=own.smallest_normal)
        return torch.where((off <= slack).all(), 0.0, math.inf).to(off.dtype)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return self._project(w)

    def _scaled(self, factor: Number) -> Penalty:
        if not isinstance(factor, Tensor) and factor == 0:
            raise WellposedError(f"{self!r} was multiplied by 0; leave the constraint out instead")
        return self

    def _plus(self, other: Penalty) -> Penalty | None:
        return self if self == other else None


def _size(value: object, name: str) -> Number:
    """``value`` as the one size of a set: a number, or a tensor that holds one."""
    size = nonnegative(value, name)
    if isinstance(size, Tensor) and size.ndim:
        raise WellposedError(f"{name} was given a tensor of shape {tuple(size.shape)}; expected one number >= 0")
    return size


@dataclass(frozen=True, eq=False, repr=False)
class NonNegative(Constraint):
    """All weights at least 0.

    Example:
        >>> NonNegative().prox(torch.tensor([-1.0, 2.0]), step=1.0)
        tensor([0., 2.])
    """

    traits = Traits(gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        return w.clamp(min=0)


@dataclass(frozen=True, eq=False, repr=False)
class Interval(Constraint):
    """All weights in [low, high].

    Args:
        low: The least value; ``-math.inf`` for none.
        high: The greatest value; ``math.inf`` for none.

    Raises:
        WellposedError: If low > high, or either is NaN.

    Example:
        >>> Box(-0.5, 1.0).prox(torch.tensor([-1.0, 2.0]), step=1.0)
        tensor([-0.5000,  1.0000])
    """

    low: float
    high: float
    traits = Traits(gradient=False)

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(isinstance(end, int | float) for end in ends) or not self.low <= self.high:
            raise WellposedError(f"{self!r} was given; expected numbers low <= high, -math.inf or math.inf for none")

    def _project(self, w: Tensor) -> Tensor:
        return w.clamp(self.low, self.high)


@dataclass(frozen=True, eq=False, repr=False)
class LinfBall(Constraint):
    """All weights of size at most ``radius``.

    Args:
        radius: The radius, >= 0.

    Raises:
        WellposedError: If it is negative, NaN or infinite.

    Example:
        >>> LinfBall(1.0).prox(torch.tensor([-3.0, 0.5]), step=1.0)
        tensor([-1.0000,  0.5000])
    """

    radius: float
    traits = Traits(gradient=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _size(self.radius, "LinfBall(radius)"))

    def _project(self, w: Tensor) -> Tensor:
        return w.sgn() * w.abs().clamp(max=self.radius) if w.is_complex() else w.clamp(-self.radius, self.radius)


@dataclass(frozen=True, eq=False, repr=False)
class MaxNorm(Constraint):
    """Each group's Euclidean norm at most ``limit``: by default each output unit's incoming weights.

    Args:
        limit: The greatest norm, >= 0.
        groups: As for :class:`~wellposed.penalties.group.GroupLasso`.

    Raises:
        WellposedError: If the limit is negative, NaN or infinite; when it is used, if the groups do not fit the weight.

    Example:
        >>> MaxNorm(1.0).prox(torch.tensor([[3.0, 4.0], [0.1, 0.2]]), step=1.0)
        tensor([[0.6000, 0.8000],
                [0.1000, 0.2000]])

    Source: Srebro, Rennie and Jaakkola (2004); Srivastava et al. (2014).
    """

    limit: float
    groups: Groups = "rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", _size(self.limit, "MaxNorm(limit)"))

    def _project(self, w: Tensor) -> Tensor:
        cut = grouping(self.groups, w)
        norms = cut.norms(w)
        return torch.where(cut.spread(norms <= self.limit), w, w * cut.spread(self.limit / norms))


@dataclass(frozen=True, eq=False, repr=False)
class L2Ball(Constraint):
    """The Euclidean norm of the whole weight at most ``radius``.

    Args:
        radius: The radius, >= 0.

    Raises:
        WellposedError: If it is negative, NaN or infinite.

    Example:
        >>> L2Ball(1.0).prox(torch.tensor([3.0, 4.0]), step=1.0)
        tensor([0.6000, 0.8000])
    """

    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _size(self.radius, "L2Ball(radius)"))

    def _project(self, w: Tensor) -> Tensor:
        ball = unchecked(MaxNorm, limit=self.radius, groups="all")
        return ball._prox(w, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class L1Ball(Constraint):
    """The sum of absolute values of the whole weight at most ``radius``.

    Args:
        radius: The radius, >= 0.

    Raises:
        WellposedError: If it is negative, NaN or infinite.

    Example:
        >>> L1Ball(1.0).prox(torch.tensor([2.0, 1.0]), step=1.0)
        tensor([1., 0.])

    Source: Duchi, Shalev-Shwartz, Singer and Chandra (2008).
    """

    radius: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "radius", _size(self.radius, "L1Ball(radius)"))

    def _project(self, w: Tensor) -> Tensor:
        return onto_l1_ball(w.flatten(), self.radius).view_as(w) if w.numel() else w


@dataclass(frozen=True, eq=False, repr=False)
class UnitNorm(Constraint):
    """Each group of Euclidean norm 1: by default each output unit's incoming weights.

    A group of zeros, from which all are equally near, goes to equal weights.

    Args:
        groups: As for :class:`~wellposed.penalties.group.GroupLasso`.

    Raises:
        WellposedError: When it is used, if the groups do not fit the weight.

    Example:
        >>> UnitNorm().prox(torch.tensor([[3.0, 4.0]]), step=1.0)
        tensor([[0.6000, 0.8000]])
    """

    groups: Groups = "rows"
    traits = Traits(convex=False, separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        cut = grouping(self.groups, w)
        norms = cut.norms(w)
        even = torch.ones_like(w) * cut.spread(cut.sizes(w) ** -0.5)
        return torch.where(cut.spread(norms == 0), even, w / cut.spread(torch.where(norms == 0, 1, norms)))


@dataclass(frozen=True, eq=False, repr=False)
class Simplex(Constraint):
    """Entries >= 0 that sum to ``total`` along the last dimension: weights of a mixture.

    Args:
        total: The sum, >= 0.

    Raises:
        WellposedError: If it is negative, NaN or infinite.

    Example:
        >>> Simplex().prox(torch.tensor([0.9, 0.5, -1.0]), step=1.0)
        tensor([0.7000, 0.3000, 0.0000])

    Source: Duchi, Shalev-Shwartz, Singer and Chandra (2008).
    """

    total: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", _size(self.total, "Simplex(total)"))

    def _project(self, w: Tensor) -> Tensor:
        return onto_simplex(w, self.total) if w.numel() else w


@dataclass(frozen=True, eq=False, repr=False)
class Stiefel(Constraint):
    """Orthonormal rows, or columns if there are fewer of them: the polar factor of the weight as a matrix.

    On an accelerator each use waits for torch's singular value decomposition.

    Raises:
        WellposedError: When it is used, if a weight has fewer than two dimensions.

    Example:
        >>> Stiefel().prox(torch.tensor([[0.0, 3.0], [0.5, 0.0]]), step=1.0).round()
        tensor([[0., 1.],
                [1., 0.]])

    Source: Higham (1986) for the polar factor as the nearest orthonormal matrix.
    """

    traits = Traits(convex=False, separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        u, _, vh = svd(as_matrix(w, self))
        nearest: Tensor = (u @ vh).view_as(w)
        return nearest
