"""The base class of constraints: penalties that are 0 inside a set and infinite outside, whose prox projects onto it.

A constraint has no strength: the step size does not matter, and scaling by a positive number changes nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.penalty import Penalty
from wellposed.penalties.proximal import Traits


@dataclass(frozen=True, eq=False, repr=False)
class Constraint(Penalty):
    """The indicator of a set. Subclasses say how to project onto it."""

    traits = Traits(separable=False, gradient=False)

    def _project(self, w: Tensor) -> Tensor:
        raise NotImplementedError

    def _value_of(self, w: Tensor) -> Tensor:
        return self._within(operands.at_least_float32(w), w.dtype)

    def _value(self, w: Tensor) -> Tensor:
        return self._within(w, w.dtype)

    def _within(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        """0 inside the set, as far as rounding lets a weight of its dtype lie in it, and infinity outside."""
        nearest = self._project(w)
        off, scale = (w - nearest).abs(), self._largest(torch.maximum(w.abs(), nearest.abs()))
        # A projection's sums are rounded in w's dtype, and it was once to the weight's own: on an even grid below
        # the normal numbers.
        own = torch.finfo(dtype)
        slack = 64 * torch.finfo(w.dtype).eps * scale + 2 * own.eps * scale.clamp(min=own.smallest_normal)
        return self._largest(torch.where(off <= slack, 0.0, math.inf).to(off.dtype))

    def _largest(self, x: Tensor) -> Tensor:
        """The largest of numbers >= 0."""
        return x.amax() if x.numel() else x.new_zeros(())

    def for_shard(self, shard: Shard) -> Penalty:
        """The same set, with the whole weight in it."""
        return WithinOnShard(super().for_shard(shard), shard)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return self._project(w)

    def _scaled(self, factor: Number) -> Penalty:
        if not isinstance(factor, Tensor) and factor == 0:
            raise WellposedError(f"{self!r} was multiplied by 0; leave the constraint out instead")
        return self

    def _plus(self, other: Penalty) -> Penalty | None:
        return self if self == other else None


@dataclass(frozen=True, eq=False, repr=False)
class WithinOnShard(Constraint):
    """A constraint on the shard that a process holds.

    Args:
        penalty: What projects the shard.
        shard: What the process holds.
    """

    penalty: Penalty
    shard: Shard

    @property
    def traits(self) -> Traits:  # type: ignore[override]
        """Those of the constraint."""
        return self.penalty.traits

    @property
    def gathers(self) -> bool:
        """Whether the constraint does."""
        return self.penalty.gathers

    def _refuse_misfit(self, w: Tensor) -> None:
        pass  # the whole was looked at

    def _project(self, w: Tensor) -> Tensor:
        return self.penalty._prox(w, 1.0)

    def _largest(self, x: Tensor) -> Tensor:
        return self.shard.largest(super()._largest(x))


def size_of(value: object, name: str) -> Number:
    """``value`` as the one size of a set: a number, or a tensor that holds one."""
    size = nonnegative(value, name)
    if isinstance(size, Tensor) and size.ndim:
        raise WellposedError(f"{name} was given a tensor of shape {tuple(size.shape)}; expected one number >= 0")
    return size
