"""Sets that are no balls: intervals, groups of norm 1, the simplex, and orthonormal matrices."""

from dataclasses import dataclass

from torch import Tensor

from wellposed.arguments import integer
from wellposed.errors import WellposedError
from wellposed.models.fans import Axes
from wellposed.penalties.constraints.balls import with_norms
from wellposed.penalties.constraints.constraint import Constraint, size_of
from wellposed.penalties.constraints.projections import onto_simplex
from wellposed.penalties.grouping import Groups
from wellposed.penalties.layouts import GroupPenalty, LayoutPenalty
from wellposed.penalties.proximal import Traits
from wellposed.penalties.spectral import matrices_of, svd


@dataclass(frozen=True, eq=False, repr=False)
class NonNegative(Constraint):
    """All weights at least 0.

    Example:
        >>> import torch
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
        >>> import torch
        >>> Interval(-0.5, 1.0).prox(torch.tensor([-1.0, 2.0]), step=1.0)
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
class UnitNorm(Constraint, GroupPenalty):
    """Each group of Euclidean norm 1: by default each output unit's incoming weights.

    A group of zeros, from which all are equally near, goes to equal weights.

    Args:
        groups: As for :class:`~wellposed.penalties.group.GroupLasso`.
        axes: As for :class:`~wellposed.penalties.group.GroupLasso`.

    Raises:
        WellposedError: When it is used, if the groups do not fit the weight.

    Example:
        >>> import torch
        >>> UnitNorm().prox(torch.tensor([[3.0, 4.0]]), step=1.0)
        tensor([[0.6000, 0.8000]])
    """

    groups: Groups = "rows"
    axes: Axes | None = None
    traits = Traits(convex=False, separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        return with_norms(w, self._cut(w), 1.0, 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class Simplex(Constraint):
    """Entries >= 0 that sum to ``total`` along a dimension: weights of a mixture.

    Args:
        total: The sum, >= 0.
        dim: The dimension of the tensor.

    Raises:
        WellposedError: If the sum is negative, NaN or infinite; when it is used, if a weight has no such dimension.

    Example:
        >>> import torch
        >>> Simplex().prox(torch.tensor([0.9, 0.5, -1.0]), step=1.0)
        tensor([0.7000, 0.3000, 0.0000])

    Source: Duchi, Shalev-Shwartz, Singer and Chandra (2008).
    """

    total: float = 1.0
    dim: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", size_of(self.total, "Simplex(total)"))
        object.__setattr__(self, "dim", integer(self.dim, "Simplex(dim)", -64, 64))

    def _refuse_misfit(self, w: Tensor) -> None:
        super()._refuse_misfit(w)
        if not -w.ndim <= self.dim < w.ndim:
            raise WellposedError(f"{self!r} was given a weight of shape {tuple(w.shape)}, which has no such dimension")

    def _apart(self, shape: tuple[int, ...]) -> set[int]:
        return set(range(len(shape))) - {self.dim % len(shape)}

    def _project(self, w: Tensor) -> Tensor:
        return onto_simplex(w.movedim(self.dim, -1), self.total).movedim(-1, self.dim) if w.numel() else w


@dataclass(frozen=True, eq=False, repr=False)
class Stiefel(Constraint, LayoutPenalty):
    """Orthonormal rows, or columns if there are fewer of them: the polar factor of the weight as a matrix.

    On an accelerator each use waits for torch's singular value decomposition.

    Args:
        axes: As for :class:`~wellposed.penalties.spectral.NuclearNorm`.

    Raises:
        WellposedError: When it is used, if a weight has fewer than two dimensions.

    Example:
        >>> import torch
        >>> Stiefel().prox(torch.tensor([[0.0, 3.0], [0.5, 0.0]]), step=1.0).round()
        tensor([[0., 1.],
                [1., 0.]])

    Source: Higham (1986) for the polar factor as the nearest orthonormal matrix.
    """

    axes: Axes | None = None
    traits = Traits(convex=False, separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        m = matrices_of(w, self.axes, self)
        u, _, vh = svd(m.of(w))
        return m.weight(u @ vh, w.shape)
