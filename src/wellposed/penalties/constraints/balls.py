"""Bounds on a norm: of the whole weight, or of each group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wellposed.arguments import integer
from wellposed.errors import WellposedError
from wellposed.models.fans import Axes
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.constraints.constraint import Constraint, size_of
from wellposed.penalties.constraints.projections import onto_l1_ball
from wellposed.penalties.grouping import Grouping, Groups
from wellposed.penalties.layouts import GroupPenalty
from wellposed.penalties.penalty import Penalty, unchecked
from wellposed.penalties.proximal import Traits


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
        object.__setattr__(self, "radius", size_of(self.radius, "LinfBall(radius)"))

    def _project(self, w: Tensor) -> Tensor:
        return w.sgn() * w.abs().clamp(max=self.radius) if w.is_complex() else w.clamp(-self.radius, self.radius)


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
        object.__setattr__(self, "radius", size_of(self.radius, "L1Ball(radius)"))

    def _project(self, w: Tensor) -> Tensor:
        return onto_l1_ball(w.flatten(), self.radius).view_as(w) if w.numel() else w


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
        object.__setattr__(self, "radius", size_of(self.radius, "L2Ball(radius)"))

    @property
    def _of_all(self) -> Penalty:
        return unchecked(MaxNorm, limit=self.radius, groups="all", axes=None)

    def for_shard(self, shard: Shard) -> Penalty:
        """The same with the norm of the whole weight."""
        return self._of_all.for_shard(shard)

    def _project(self, w: Tensor) -> Tensor:
        return self._of_all._prox(w, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class L0Ball(Constraint):
    """At most ``count`` weights that are not zero: the largest stay as they are.

    Args:
        count: How many, >= 0.

    Raises:
        WellposedError: If it is no integer >= 0.

    Example:
        >>> L0Ball(1).prox(torch.tensor([3.0, -4.0]), step=1.0)
        tensor([ 0., -4.])

    Source: Blumensath and Davies (2009).
    """

    count: int
    traits = Traits(convex=False, separable=False, gradient=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", integer(self.count, "L0Ball(count)", 0, 1 << 62))

    def _project(self, w: Tensor) -> Tensor:
        flat = w.flatten()
        largest = flat.abs().topk(min(self.count, flat.numel())).indices
        return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(w)


@dataclass(frozen=True, eq=False, repr=False)
class MaxNorm(Constraint, GroupPenalty):
    """Each group's Euclidean norm at most ``limit``: by default each output unit's incoming weights.

    Args:
        limit: The greatest norm, >= 0.
        groups: As for :class:`~wellposed.penalties.group.GroupLasso`.
        axes: As for :class:`~wellposed.penalties.group.GroupLasso`.

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
    axes: Axes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", size_of(self.limit, "MaxNorm(limit)"))

    def _project(self, w: Tensor) -> Tensor:
        cut = self._cut(w)
        norms = cut.norms(w)
        return torch.where(cut.spread(norms <= self.limit), w, w * cut.spread(self.limit / norms))


@dataclass(frozen=True, eq=False, repr=False)
class MinMaxNorm(Constraint, GroupPenalty):
    """Each group's Euclidean norm in [low, high]: by default each output unit's incoming weights.

    A group of zeros, from which all are equally near, goes to equal weights.

    Args:
        low: The least norm, >= 0.
        high: The greatest norm, >= low.
        groups: As for :class:`~wellposed.penalties.group.GroupLasso`.
        axes: As for :class:`~wellposed.penalties.group.GroupLasso`.

    Raises:
        WellposedError: If the norms are out of range; when it is used, if the groups do not fit the weight.

    Example:
        >>> MinMaxNorm(0.5, 1.0).prox(torch.tensor([[3.0, 4.0], [0.03, 0.04]]), step=1.0)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    Source: Keras's constraint of this name, at rate 1.
    """

    low: float
    high: float
    groups: Groups = "rows"
    axes: Axes | None = None
    traits = Traits(convex=False, separable=False, gradient=False)

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, size_of(getattr(self, name), f"MinMaxNorm({name})"))
        if not bool(self.low <= self.high):
            raise WellposedError(f"{self!r} was given; expected low <= high")

    def _project(self, w: Tensor) -> Tensor:
        return with_norms(w, self._cut(w), self.low, self.high)


def with_norms(w: Tensor, cut: Grouping, low: float, high: float) -> Tensor:
    """The nearest weights whose groups have norms in [low, high]; a group of zeros becomes equal weights."""
    norms = cut.norms(w)
    scale = norms.clamp(low, high) / torch.where(norms == 0, 1, norms)
    even = torch.ones_like(w) * cut.spread(low * cut.sizes(w) ** -0.5)
    within = cut.spread((norms >= low) & (norms <= high))
    return torch.where(within, w, torch.where(cut.spread(norms == 0), even, w * cut.spread(scale)))
