"""Penalties on the Euclidean norms of groups of weights, which zero whole groups at once."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.models.fans import Axes
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.grouping import Grouping, Groups
from wellposed.penalties.layouts import GroupPenalty
from wellposed.penalties.nonconvex import MCP, _above, mcp
from wellposed.penalties.penalty import Penalty, changed, unchecked
from wellposed.penalties.proximal import Traits
from wellposed.penalties.separable import L1


@dataclass(frozen=True, eq=False, repr=False)
class _Grouped(GroupPenalty):
    """The engine: a separable penalty on each group's norm, which moves along the group's direction.

    Subclasses say which penalty, given each group's strength.
    """

    def _radial(self, strengths: Tensor) -> Penalty:
        raise NotImplementedError

    def _strengths(self, w: Tensor, cut: Grouping) -> Tensor:
        """What each group's norm counts with."""
        even: Tensor = self.lam * torch.ones(cut.room, dtype=w.abs().dtype, device=w.device)  # type: ignore[attr-defined]
        return even * cut.sizes(w).sqrt() if self.root_size else even  # type: ignore[attr-defined]

    def _uneven_prox(self, w: Tensor, step: Tensor, cut: Grouping) -> Tensor:
        """The prox with a step size for each element."""
        raise NotImplementedError

    def _room(self, w: Tensor) -> torch.Size:
        return torch.Size(self._cut(w).room)

    def for_shard(self, shard: Shard) -> Penalty:
        """With the groups of which the shard has parts, and their strengths."""
        lam = self._cut(shard.outline).part(self.lam, shard) if isinstance(self.lam, Tensor) else self.lam  # type: ignore[attr-defined]
        return changed(super().for_shard(shard), lam=lam)

    def _value(self, w: Tensor) -> Tensor:
        cut = self._cut(w)
        return cut.total(self._radial(self._strengths(w, cut))._value(cut.norms(w)))

    def _grad(self, w: Tensor) -> Tensor:
        cut = self._cut(w)
        norms = cut.norms(w)
        return _along(w, norms, self._radial(self._strengths(w, cut))._grad(norms), cut)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        cut = self._cut(w)
        if isinstance(step, Tensor) and step.ndim:
            return self._uneven_prox(w, step, cut)
        norms = cut.norms(w)
        return _along(w, norms, self._radial(self._strengths(w, cut))._prox(norms, step), cut)


def _along(w: Tensor, norms: Tensor, lengths: Tensor, cut: Grouping) -> Tensor:
    """Vectors of the given lengths along each group's direction; 0 for groups of norm 0."""
    return w * cut.spread(lengths / torch.where(norms == 0, 1, norms))


@dataclass(frozen=True, eq=False, repr=False)
class GroupLasso(_Grouped):
    """The sum of the groups' Euclidean norms, whose prox makes whole groups exactly 0.

    ``Omega(w) = lam * sum_g c_g ||w_g||``, where c_g is the square root of g's size if ``root_size``, else 1. The prox
    shortens each group by ``step * lam * c_g``, to nothing if it is shorter. With a step size for each element the
    length r solves ``sum_i (w_i / (r + lam * c_g * step_i))^2 = 1``, and w_i becomes
    ``r * w_i / (r + lam * c_g * step_i)``.

    Args:
        lam: The strength, >= 0.
        groups: "rows" or "filters" (one for each output), "columns" or "channels" (one for each input), "kernels" (one
            for each pair of them), :class:`~wellposed.penalties.grouping.Heads`; or, of the tensor as it is stored,
            "all" (one group), a tuple of the dimensions that number the groups, or an integer tensor of the weight's
            shape that labels them.
        root_size: Whether a group counts with the square root of its size, so that large groups pay as small ones do.
        axes: What the weight's dimensions are for, as for initializers; ``None`` is those of the layer that it is put
            on, and outputs by inputs elsewhere.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite; when it is used, if the groups do not fit the weight.

    Example:
        >>> GroupLasso(2.5).prox(torch.tensor([[3.0, 4.0], [1.0, -1.0]]), step=1.0)
        tensor([[1.5000, 2.0000],
                [0.0000, -0.0000]])

    Source: Yuan and Lin (2006).
    """

    lam: Number
    groups: Groups = "rows"
    root_size: bool = False
    axes: Axes | None = None
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(separable=False, diagonal=True)

    def _radial(self, strengths: Tensor) -> Penalty:
        return unchecked(L1, lam=strengths)

    def _uneven_prox(self, w: Tensor, step: Tensor, cut: Grouping) -> Tensor:
        pull = cut.spread(self._strengths(w, cut)) * step
        return _shortened(w, pull, torch.ones_like(pull), cut)

    def _join(self, other: Penalty) -> Penalty | None:
        if type(self) is GroupLasso and type(other) is L1:
            return SparseGroupLasso(other.lam, self.lam, self.groups, self.root_size, self.axes)
        return None


@dataclass(frozen=True, eq=False, repr=False)
class SparseGroupLasso(GroupPenalty):
    """L1 and the group lasso together, what ``L1(l1) + GroupLasso(lam)`` gives: zero groups, and zeros in the others.

    ``Omega(w) = l1 * sum |w| + lam * sum_g c_g ||w_g||``. The prox is soft-thresholding by ``step * l1``, then the
    group lasso's.

    Args:
        l1: The strength of the absolute values, >= 0.
        lam: The strength of the groups' norms, >= 0.
        groups: As for :class:`GroupLasso`.
        root_size: As for :class:`GroupLasso`.
        axes: As for :class:`GroupLasso`.

    Raises:
        WellposedError: If a strength is negative, NaN or infinite; when it is used, if the groups do not fit the
            weight.

    Example:
        >>> from wellposed.penalties import L1
        >>> L1(0.5) + GroupLasso(1.0) == SparseGroupLasso(0.5, 1.0)
        True

    Source: Simon, Friedman, Hastie and Tibshirani (2013).
    """

    l1: Number
    lam: Number
    groups: Groups = "rows"
    root_size: bool = False
    axes: Axes | None = None
    strengths: ClassVar[tuple[str, ...]] = ("l1", "lam")
    traits = Traits(separable=False, diagonal=True)

    @property
    def terms(self) -> tuple[Penalty, ...]:
        """L1 and the group lasso."""
        group = unchecked(GroupLasso, lam=self.lam, groups=self.groups, root_size=self.root_size, axes=self.axes)
        return unchecked(L1, lam=self.l1), group

    def _refuse_misfit(self, w: Tensor) -> None:
        for term in self.terms:
            term._refuse_misfit(w)

    def for_shard(self, shard: Shard) -> Penalty:
        """With the groups of which the shard has parts, and the strengths of what is in it."""
        group = self.terms[1].for_shard(shard)
        return changed(self, l1=shard.part(self.l1), lam=group.lam, groups=group.groups)  # type: ignore[attr-defined]

    def _value(self, w: Tensor) -> Tensor:
        group, cut = self.terms[1], self._cut(w)
        return cut.total(cut.sums(self.l1 * w.abs()).sum()) + group._value(w)

    def _grad(self, w: Tensor) -> Tensor:
        absolute, group = self.terms
        return absolute._grad(w) + group._grad(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        absolute, group = self.terms
        return group._prox(absolute._prox(w, step), step)


@dataclass(frozen=True, eq=False, repr=False)
class GroupMCP(_Grouped):
    """The minimax concave penalty on the groups' norms: zero groups, and no pull on large ones.

    ``Omega(w) = sum_g MCP(lam * c_g, gamma)(||w_g||)``, where c_g is the square root of g's size if ``root_size``, else
    1. With a step size for each element w_i becomes ``r * w_i / (lam * c_g * step_i + (1 - step_i / gamma) * r)``, r
    the group's new norm, or stays as it is where that costs less.

    Args:
        lam: The strength at 0, >= 0.
        gamma: How slowly it fades, > 0.
        groups: As for :class:`GroupLasso`.
        root_size: As for :class:`GroupLasso`.
        axes: As for :class:`GroupLasso`.

    Raises:
        WellposedError: If an argument is out of range; when it is used, if the groups do not fit the weight.

    Example:
        >>> GroupMCP(1.0, gamma=3.0).prox(torch.tensor([[3.0, 4.0], [0.5, -0.5]]), step=1.0)
        tensor([[3., 4.],
                [0., -0.]])

    Source: Huang, Breheny and Ma (2012).
    """

    lam: Number
    gamma: float = 3.0
    groups: Groups = "rows"
    root_size: bool = False
    axes: Axes | None = None
    traits = Traits(convex=False, separable=False, diagonal=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", nonnegative(self.lam, "GroupMCP(lam)"))
        object.__setattr__(self, "gamma", _above(self.gamma, 0.0, "GroupMCP(gamma)"))

    @property
    def _tangent(self) -> Penalty:
        return unchecked(GroupLasso, lam=self.lam, groups=self.groups, root_size=self.root_size, axes=self.axes)

    def _radial(self, strengths: Tensor) -> Penalty:
        return unchecked(MCP, lam=strengths, gamma=self.gamma)

    def _uneven_prox(self, w: Tensor, step: Tensor, cut: Grouping) -> Tensor:
        strengths = self._strengths(w, cut)
        firm = _shortened(w, cut.spread(strengths) * step, 1 - step / self.gamma, cut)
        # Along the length the objective may fall, rise and fall again: w, where the pull has ended, can lie lower.
        moved = cut.sums(torch.where(step > 0, (firm - w).abs().square() / (2 * step), 0))
        cost = moved + mcp(cut.norms(firm), strengths, self.gamma)
        flat = self.gamma * strengths
        stays = (cut.norms(w) > flat) & ~(cost <= flat * strengths / 2)
        return torch.where(cut.spread(stays), w, firm)


_NEWTON_STEPS = 40


def _shortened(w: Tensor, pull: Tensor, keep: Tensor, cut: Grouping) -> Tensor:
    """For each group r * w_i / (pull_i + keep_i * r) at the least r > 0 that is its norm, or 0 where there is none.

    At that r the squares of w_i / (pull_i + keep_i * r) sum to 1. One over the root of their sum is a power mean of
    functions that are linear in r, so it is concave, and Newton's method started below the root climbs to it without
    ever passing it.
    """
    square = w.abs().square()
    nothing = torch.finfo(square.dtype).tiny ** 0.25
    alive = cut.sums(torch.where(square == 0, 0, square / pull.square())) > 1
    r = (cut.norms(w) - cut.largest(pull)).clamp(min=0)  # where all had to move as those that are pulled most
    for _ in range(_NEWTON_STEPS):
        below = pull + keep * cut.spread(r)
        below = torch.where(below == 0, nothing, below)
        total = cut.sums(square / below.square())
        slope = cut.sums(keep * square / below**3)
        climb = torch.where(alive, (total**1.5 - total) / slope, 0).clamp(min=0)
        r = r + climb
        if r.is_cpu and bool((climb <= torch.finfo(r.dtype).eps * r).all()):
            break
    length = cut.spread(torch.where(alive, r, 0))
    below = pull + keep * length
    return torch.where(pull == 0, w, length * w / torch.where(below == 0, 1, below))
