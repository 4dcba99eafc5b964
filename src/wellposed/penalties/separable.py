"""Penalties that are a sum over the elements of a weight."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.penalty import Penalty, unchecked
from wellposed.penalties.proximal import Traits


def soft_threshold(w: Tensor, threshold: Number) -> Tensor:
    """Move each element towards 0 by ``threshold``, stopping at exactly 0: the prox of ``threshold * |w|``.

    Args:
        w: A tensor; a complex one keeps its phase and loses modulus.
        threshold: A number >= 0, or a tensor that broadcasts against ``w``.

    Returns:
        A tensor of ``w``'s shape. NaN stays NaN.

    Source: Donoho and Johnstone (1994).
    """
    if w.is_complex():
        modulus = w.abs()
        return w.sgn() * (modulus - modulus.clamp(max=threshold))
    return w - w.clamp(max=threshold).clamp(min=-threshold)


def square_sum(w: Tensor) -> Tensor:
    """The sum of ``|w|^2``, a real scalar."""
    return (w.real.square() + w.imag.square()).sum() if w.is_complex() else w.square().sum()


@dataclass(frozen=True, eq=False, repr=False)
class L1(Penalty):
    """The sum of absolute values, whose prox makes small weights exactly 0 (lasso).

    ``Omega(w) = lam * sum |w|``. The gradient is ``lam * sign(w)``, 0 at 0. The prox is soft-thresholding.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own (weighted L1).

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite.

    Example:
        >>> import torch
        >>> L1(0.5).prox(torch.tensor([-2.0, 0.3, 1.0]), step=1.0)
        tensor([-1.5000,  0.0000,  0.5000])

    Source: Tibshirani (1996).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)

    @property
    def elastic(self) -> tuple[float, float] | None:
        """``lam`` and 0."""
        return None if isinstance(self.lam, Tensor) else (self.lam, 0.0)

    def _value(self, w: Tensor) -> Tensor:
        return (self.lam * w.abs()).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return self.lam * w.sgn()

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return soft_threshold(w, step * self.lam)


@dataclass(frozen=True, eq=False, repr=False)
class L2(Penalty):
    """The sum of squares (ridge).

    ``Omega(w) = lam * sum |w|^2``, without a half. The gradient is ``2 * lam * w``. The prox is
    ``w / (1 + 2 * step * lam)``. ``torch.optim``'s ``weight_decay=d`` adds ``d * w`` to the gradient: it is
    ``L2(d / 2)``.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own.

    Raises:
        WellposedError: If ``lam`` is negative, NaN or infinite.

    Example:
        >>> import torch
        >>> value, gradient = L2(0.1)(torch.tensor([3.0, -4.0]))
        >>> value, gradient
        (tensor(2.5000), tensor([ 0.6000, -0.8000]))

    Source: Hoerl and Kennard (1970).
    """

    lam: Number
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(smooth=True)

    @property
    def elastic(self) -> tuple[float, float] | None:
        """0 and ``lam``."""
        return None if isinstance(self.lam, Tensor) else (0.0, self.lam)

    @property
    def ridge(self) -> Number:
        """``lam``."""
        return self.lam

    def _value(self, w: Tensor) -> Tensor:
        if isinstance(self.lam, Tensor):
            return (self.lam * w.abs().square()).sum()
        return self.lam * square_sum(w)

    def _grad(self, w: Tensor) -> Tensor:
        return 2 * self.lam * w

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return w / (1 + 2 * step * self.lam)

    def _join(self, other: Penalty) -> Penalty | None:
        return ElasticNet(other.lam, self.lam) if type(self) is L2 and type(other) is L1 else None


@dataclass(frozen=True, eq=False, repr=False)
class ElasticNet(Penalty):
    """L1 and L2 together; what ``L1(l1) + L2(l2)`` gives.

    ``Omega(w) = l1 * sum |w| + l2 * sum |w|^2``. The prox is soft-thresholding by ``step * l1``, then division by
    ``1 + 2 * step * l2``.

    Args:
        l1: The strength of the absolute values, >= 0.
        l2: The strength of the squares, >= 0.

    Raises:
        WellposedError: If a strength is negative, NaN or infinite.

    Example:
        >>> import torch
        >>> ElasticNet(1.0, 0.5).prox(torch.tensor([3.0, -0.5]), step=1.0)
        tensor([1., 0.])
        >>> L1(1.0) + L2(0.5) == ElasticNet(1.0, 0.5)
        True

    Source: Zou and Hastie (2005).
    """

    l1: Number
    l2: Number
    strengths: ClassVar[tuple[str, ...]] = ("l1", "l2")

    @property
    def elastic(self) -> tuple[float, float] | None:
        """``l1`` and ``l2``."""
        return None if isinstance(self.l1, Tensor) or isinstance(self.l2, Tensor) else (self.l1, self.l2)

    @property
    def terms(self) -> tuple[Penalty, ...]:
        """L1 and L2."""
        return unchecked(L1, lam=self.l1), unchecked(L2, lam=self.l2)

    def _value(self, w: Tensor) -> Tensor:
        absolute, square = self.terms
        return absolute._value(w) + square._value(w)

    def _grad(self, w: Tensor) -> Tensor:
        absolute, square = self.terms
        return absolute._grad(w) + square._grad(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return soft_threshold(w, step * self.l1) / (1 + 2 * step * self.l2)


@dataclass(frozen=True, eq=False, repr=False)
class Huber(Penalty):
    """Absolute values with the kink rounded off: quadratic up to ``delta``, of slope ``lam`` beyond.

    Omega(w) is lam times the sum of ``w^2 / (2 * delta)`` up to ``|w| = delta``, and ``|w| - delta / 2`` beyond. It is
    smooth and makes no exact zeros. The prox is ``w - s * clamp(w / (delta + s), -1, 1)``, where ``s = step * lam``.

    Args:
        lam: The strength, >= 0; a tensor gives each element its own.
        delta: Where the quadratic ends, > 0; L1 in the limit of 0.

    Raises:
        WellposedError: If an argument is out of range.

    Example:
        >>> import torch
        >>> Huber(1.0, delta=0.5).grad(torch.tensor([-2.0, 0.25]))
        tensor([-1.0000,  0.5000])

    Source: Huber (1964).
    """

    lam: Number
    delta: float = 1.0
    strengths: ClassVar[tuple[str, ...]] = ("lam",)
    traits = Traits(smooth=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.delta, int | float) or not 0 < self.delta < math.inf:
            raise WellposedError(f"Huber(delta) was given {self.delta!r}; expected a finite number > 0")

    def _value(self, w: Tensor) -> Tensor:
        modulus = w.abs()
        inner = modulus.clamp(max=self.delta)
        return (self.lam * (inner.square() / (2 * self.delta) + modulus - inner)).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return self.lam * w.sgn() * (w.abs() / self.delta).clamp(max=1)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        strength = step * self.lam
        return w - w.sgn() * strength * (w.abs() / (self.delta + strength)).clamp(max=1)
