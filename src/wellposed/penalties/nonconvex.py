"""Non-convex separable penalties: they select as L1 does, and shrink large weights less or not at all.

None is convex, so a training run finds a stationary point; the proxes are global minimisers for every step size.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.penalty import Penalty, unchecked
from wellposed.penalties.proximal import Traits
from wellposed.penalties.separable import L1, soft_threshold


@dataclass(frozen=True, eq=False, repr=False)
class L0(Penalty):
    """The number of weights that are not zero.

    ``Omega(w) = lam * #{i: w_i != 0}``. The prox keeps w where ``|w| > sqrt(2 * step * lam)`` and is 0 elsewhere. There
    is no gradient to use.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite.

    Example:
        >>> L0(0.5).prox(torch.tensor([-2.0, 0.9, 1.1]), step=1.0)
        tensor([-2.0000,  0.0000,  1.1000])

    Source: Blumensath and Davies (2009).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False, gradient=False)

    def _value(self, w: Tensor) -> Tensor:
        return (self.lam * (w != 0).to(w.abs().dtype)).sum()

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return _zero_below(w, w, (2 * step * self.lam) ** 0.5)


@dataclass(frozen=True, eq=False, repr=False)
class LHalf(Penalty):
    """The sum of square roots (L1/2): sparser than L1, and with a prox in closed form.

    ``Omega(w) = lam * sum |w|^(1/2)``. The prox is 0 where ``|w| <= (3/2) * (step * lam)^(2/3)``, and elsewhere
    ``(2/3) * w * (1 + cos(2/3 * (pi - arccos(step * lam / 4 * (|w| / 3)^(-3/2)))))``. The gradient is taken as 0 at 0.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite.

    Example:
        >>> LHalf(1.0).prox(torch.tensor([-4.0, 1.4]), step=1.0)
        tensor([-3.7415,  0.0000])

    Source: Xu, Chang, Xu and Zhang (2012).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False)

    def _value(self, w: Tensor) -> Tensor:
        modulus = w.abs()
        # The root has no slope at 0, where autograd would make NaN of it.
        root = torch.where(modulus > 0, modulus, 1).sqrt() * (modulus > 0)
        return (self.lam * root).sum()

    def _grad(self, w: Tensor) -> Tensor:
        modulus = w.abs()
        return self.lam * 0.5 * w.sgn() / torch.where(modulus > 0, modulus, 1).sqrt()

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        strength = step * self.lam
        # The power is taken of the quotient: that of a tiny weight alone would overflow, also where nothing pulls.
        angle = ((3 * (strength / 4) ** (2 / 3) / w.abs()) ** 1.5).clamp(max=1).acos()
        return _zero_below(w, 2 / 3 * w * (1 + (2 / 3 * (math.pi - angle)).cos()), 1.5 * strength ** (2 / 3))


@dataclass(frozen=True, eq=False, repr=False)
class LTwoThirds(Penalty):
    """The sum of ``|w|^(2/3)``: between L1 and LHalf, and the other power below 1 whose prox has a closed form.

    ``Omega(w) = lam * sum |w|^(2/3)``. With ``s = 2 * step * lam`` the prox is 0 where
    ``|w| <= 2/3 * (3 * s^3)^(1/4)``, and elsewhere ``((a + sqrt(2 |w| / a - a^2)) / 2)^3`` with the sign of w, where
    ``a = 2 / sqrt(3) * s^(1/4) * sqrt(cosh(phi / 3))`` and ``phi = arccosh(27/16 * w^2 * s^(-3/2))``. The gradient is
    taken as 0 at 0.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite.

    Example:
        >>> LTwoThirds(1.0).prox(torch.tensor([-4.0, 1.2]), step=1.0)
        tensor([-3.5635,  0.0000])

    Source: Cao, Sun and Xu (2013).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False)

    def _value(self, w: Tensor) -> Tensor:
        modulus = w.abs()
        # The root has no slope at 0, where autograd would make NaN of it.
        root = torch.where(modulus > 0, modulus, 1) ** (2 / 3) * (modulus > 0)
        return (self.lam * root).sum()

    def _grad(self, w: Tensor) -> Tensor:
        modulus = w.abs()
        return self.lam * (2 / 3) * w.sgn() / torch.where(modulus > 0, modulus, 1) ** (1 / 3)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        # In units of s^(3/4), in which the threshold is a number; nothing pulls where s is 0.
        unit = _beside(w, 2 * step * self.lam) ** 0.75
        size = w.abs() / torch.where(unit > 0, unit, 1)
        angle = (27 / 16 * size.square()).clamp(min=1).acosh()
        a = 2 / 3**0.5 * (angle / 3).cosh().sqrt()
        root = (a + (2 * size / a - a.square()).clamp(min=0).sqrt()) / 2
        kept = torch.where(unit > 0, w.sgn() * unit * root**3, w)
        return _zero_below(w, kept, 2 / 3 * 3**0.25 * unit)


@dataclass(frozen=True, eq=False, repr=False)
class LogSum(Penalty):
    """The sum of logarithms: L1 at 0, with a pull that fades as ``1 / |w|``; what reweighted L1 minimises.

    ``Omega(w) = lam * sum eps * log(1 + |w| / eps)``, whose slope at 0 is lam. The prox is 0, or the larger root x of
    ``(x - |w|) * (eps + x) + step * lam * eps = 0`` with the sign of w, whichever costs less.

    Args:
        lam: The strength at 0, >= 0; a tensor gives each element its own.
        eps: The size at which the pull is half of that, > 0.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> LogSum(1.0, eps=1.0).prox(torch.tensor([-3.0, 0.9]), step=1.0)
        tensor([-2.7321,  0.0000])

    Source: Candes, Wakin and Boyd (2008).
    """

    lam: Number
    eps: float = 0.1
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(convex=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eps", _above(self.eps, 0.0, "LogSum(eps)"))

    @property
    def _tangent(self) -> Penalty:
        return unchecked(L1, lam=self.lam)

    def _value(self, w: Tensor) -> Tensor:
        return (self.lam * self.eps * (w.abs() / self.eps).log1p()).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return self.lam * w.sgn() * self.eps / (self.eps + w.abs())

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        size, pull = w.abs(), _beside(w, step * self.lam)
        room = (size + self.eps).square() - 4 * pull * self.eps
        apart, ahead = room.clamp(min=0).sqrt(), size - self.eps
        # Both are the larger root; each keeps its digits where the other subtracts nearly equal numbers.
        small = 2 * self.eps * (size - pull) / torch.where(ahead > 0, 1, apart - ahead)
        root = torch.where(ahead > 0, (ahead + apart) / 2, small).clamp(min=0)
        costs = (root - size).square() / 2 + pull * self.eps * (root / self.eps).log1p()
        falls = (room < 0) | (costs >= size.square() / 2)
        return torch.where(pull > 0, torch.where(falls, torch.zeros_like(w), w.sgn() * root), w)


def mcp(size: Tensor, lam: Number, gamma: float) -> Tensor:
    """MCP element by element: lam * size - size^2 / (2 * gamma) for sizes >= 0, flat from gamma * lam on."""
    flat = gamma * lam
    return torch.where(size <= flat, lam * size - size.square() / (2 * gamma), flat * lam / 2)


@dataclass(frozen=True, eq=False, repr=False)
class MCP(Penalty):
    """The minimax concave penalty: L1 at 0, fading to no pull at all from ``gamma * lam`` on.

    Omega(w) is the sum of ``lam * |w| - w^2 / (2 * gamma)`` up to ``|w| = gamma * lam``, and ``gamma * lam^2 / 2``
    beyond.

    Args:
        lam: The strength at 0, >= 0; a tensor gives each element its own.
        gamma: How slowly it fades, > 0; L1 in the limit.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> MCP(1.0, gamma=3.0).prox(torch.tensor([0.9, 2.0, 5.0]), step=1.0)
        tensor([0.0000, 1.5000, 5.0000])

    Source: Zhang (2010).
    """

    lam: Number
    gamma: float = 3.0
    traits = Traits(convex=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", nonnegative(self.lam, "MCP(lam)"))
        object.__setattr__(self, "gamma", _above(self.gamma, 0.0, "MCP(gamma)"))

    @property
    def _tangent(self) -> Penalty:
        return unchecked(L1, lam=self.lam)

    def _value(self, w: Tensor) -> Tensor:
        return mcp(w.abs(), self.lam, self.gamma).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return w.sgn() * (self.lam - w.abs() / self.gamma).clamp(min=0)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        # At a step of gamma and more nothing between 0 and w is a minimum any more.
        step = _beside(w, step)
        firm = soft_threshold(w, step * self.lam) / (1 - step / self.gamma)
        firm = torch.where(w.abs() <= self.gamma * self.lam, firm, w)
        hard = _zero_below(w, w, self.lam * (step * self.gamma).sqrt())
        return torch.where(step < self.gamma, firm, hard)


@dataclass(frozen=True, eq=False, repr=False)
class SCAD(Penalty):
    """The smoothly clipped absolute deviation: L1 up to lam, then fading to no pull from ``a * lam`` on.

    Omega(w) is the sum of ``lam * |w|`` up to ``|w| = lam``, ``(2 * a * lam * |w| - w^2 - lam^2) / (2 * (a - 1))`` up
    to ``a * lam``, and ``lam^2 * (a + 1) / 2`` beyond.

    Args:
        lam: The strength at 0, >= 0; a tensor gives each element its own.
        a: How slowly it fades, > 2.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> SCAD(1.0, a=3.7).prox(torch.tensor([0.9, 1.5, 5.0]), step=1.0)
        tensor([0.0000, 0.5000, 5.0000])

    Source: Fan and Li (2001).
    """

    lam: Number
    a: float = 3.7
    traits = Traits(convex=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", nonnegative(self.lam, "SCAD(lam)"))
        object.__setattr__(self, "a", _above(self.a, 2.0, "SCAD(a)"))

    @property
    def _tangent(self) -> Penalty:
        return unchecked(L1, lam=self.lam)

    def _value(self, w: Tensor) -> Tensor:
        m, lam, a = w.abs(), self.lam, self.a
        middle = (2 * a * lam * m - m.square() - lam**2) / (2 * (a - 1))
        return torch.where(m <= lam, lam * m, torch.where(m <= a * lam, middle, lam**2 * (a + 1) / 2)).sum()

    def _grad(self, w: Tensor) -> Tensor:
        slope = (self.a * self.lam - w.abs()).clamp(min=0) / (self.a - 1)
        return w.sgn() * slope.clamp(max=self.lam)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        m, lam, a = w.abs(), self.lam, self.a
        step = _beside(w, step)
        soft = soft_threshold(w, step * lam)
        fading = ((a - 1) * w - w.sgn() * step * a * lam) / (a - 1 - step)
        firm = torch.where(m <= (1 + step) * lam, soft, torch.where(m <= a * lam, fading, w))
        # From a step of a - 1 on, the minimum jumps from the soft threshold to w where their objectives are equal.
        jump = torch.where(step <= a + 1, (a + 1 + step) / 2, (step * (a + 1)).sqrt()) * lam
        return torch.where(step < a - 1, firm, torch.where(m <= jump, soft, w))


def _zero_below(w: Tensor, kept: Tensor, threshold: Number) -> Tensor:
    """``kept`` where ``|w|`` is above the threshold or NaN, 0 elsewhere."""
    return torch.where(w.abs() <= threshold, torch.zeros_like(w), kept)


def _beside(w: Tensor, step: Number) -> Tensor:
    """``step`` as a real tensor on ``w``'s device; a number is made there, since bringing one over would wait."""
    if isinstance(step, Tensor):
        return step.to(w.device, w.dtype.to_real())
    return torch.full((), step, dtype=w.dtype.to_real(), device=w.device)


def _above(value: object, least: float, name: str) -> float:
    number = nonnegative(value, name)
    if isinstance(number, Tensor) or number <= least:
        raise WellposedError(f"{name} was given {value!r}; expected a number > {least:g}")
    return number
