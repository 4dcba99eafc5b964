"""Penalties that are made from other weights: distance to a starting point, and strengths from a pilot fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.models.roles import Part
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.penalty import Penalty, changed, unchecked
from wellposed.penalties.proximal import Traits
from wellposed.penalties.separable import L1


@dataclass(frozen=True, eq=False, repr=False)
class _Referring(Penalty):
    """A penalty that takes the parameter's weights when it is put on an optimizer, unless it was given others."""

    @property
    def reference(self) -> Tensor | None:
        raise NotImplementedError

    @property
    def unbound(self) -> bool:
        """Whether there is no reference yet."""
        return self.reference is None

    def bind(self, reference: Tensor) -> Self:
        """This penalty with ``reference``, if it has none yet."""
        return replace(self, reference=reference) if self.reference is None else self  # type: ignore[call-arg]

    def _room(self, w: Tensor) -> torch.Size:
        return w.shape

    def _refuse_misfit(self, w: Tensor) -> None:
        self._known(operands.weight(w, self))
        super()._refuse_misfit(w)

    def _known(self, w: Tensor) -> Tensor:
        if self.reference is None:
            raise WellposedError(f"{self!r} has no reference weights yet; give them, or put it on with regularize()")
        if self.reference.shape != w.shape:
            raise WellposedError(
                f"{self!r} has a reference of shape {tuple(self.reference.shape)}, and was given a weight of shape "
                f"{tuple(w.shape)}; expected the same shape"
            )
        return self.reference.to(w.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class Towards(_Referring):
    """A penalty on the distance from given weights: Omega(w - reference).

    ``Towards(L2(lam))`` put on a pretrained model keeps it near where it starts (L2-SP). The prox is
    reference + prox(w - reference).

    Args:
        penalty: What is made of the difference.
        reference: The weights, of the parameter's shape; ``None`` takes the parameter's own when the penalty is put on
            an optimizer.

    Raises:
        WellposedError: If it was given no penalty; when it is used, if it has no reference yet.

    Example:
        >>> from wellposed.penalties import L2
        >>> Towards(L2(0.5), torch.tensor([1.0, 1.0])).grad(torch.tensor([1.0, 3.0]))
        tensor([0., 2.])

    Source: Li, Grandvalet and Davoine (2018).
    """

    penalty: Penalty
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.penalty, Penalty):
            raise WellposedError(f"Towards was given {self.penalty!r}; expected a penalty, as in Towards(L2(0.1))")

    @property
    def traits(self) -> Traits:
        """Those of the penalty."""
        return self.penalty.traits

    def _value(self, w: Tensor) -> Tensor:
        return self.penalty._value(w - self._known(w))

    def _grad(self, w: Tensor) -> Tensor:
        return self.penalty._grad(w - self._known(w))

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        reference = self._known(w)
        return reference + self.penalty._prox(w - reference, step)

    def for_layer(self, parts: Sequence[Part]) -> Penalty:
        """The same of the penalty on that weight."""
        return replace(self, penalty=self.penalty.for_layer(parts))

    @property
    def gathers(self) -> bool:
        """Whether the penalty does."""
        return self.penalty.gathers

    def for_shard(self, shard: Shard) -> Penalty:
        """The same of the penalty on that shard."""
        return changed(self, penalty=self.penalty.for_shard(shard), reference=shard.part(self.reference))

    def _scaled(self, factor: Number) -> Penalty:
        return replace(self, penalty=self.penalty._scaled(factor))


@dataclass(frozen=True, eq=False, repr=False)
class AdaptiveL1(_Referring):
    """L1 with a strength for each weight, small where a pilot fit found a large one.

    ``Omega(w) = lam * sum |w_i| / (|reference_i| + eps)^power``.

    Args:
        lam: The strength, >= 0.
        power: How much the pilot counts, >= 0.
        eps: What keeps the strength finite where the pilot is 0, > 0.
        reference: The pilot's weights; ``None`` takes the parameter's own when the penalty is put on an optimizer.

    Raises:
        WellposedError: If an argument is out of range; when it is used, if it has no reference yet.

    Example:
        >>> AdaptiveL1(1.0, reference=torch.tensor([2.0, 0.5]), eps=1e-9).prox(torch.tensor([2.0, 1.0]), step=1.0)
        tensor([1.5000, 0.0000])

    Source: Zou (2006).
    """

    lam: Number
    power: float = 1.0
    eps: float = 1e-6
    reference: Tensor | None = None
    strengths: ClassVar[tuple[str, ...]] = ("lam",)

    def __post_init__(self) -> None:
        super().__post_init__()
        nonnegative(self.power, "AdaptiveL1(power)")
        if not self.eps > 0:
            raise WellposedError(f"AdaptiveL1(eps) was given {self.eps!r}; expected a number > 0")

    def _l1(self, w: Tensor) -> Penalty:
        strengths = self.lam / (self._known(w).abs() + self.eps) ** self.power
        return unchecked(L1, lam=strengths.to(torch.promote_types(w.abs().dtype, torch.float32)))

    def _value(self, w: Tensor) -> Tensor:
        return self._l1(w)._value(w)

    def _grad(self, w: Tensor) -> Tensor:
        return self._l1(w)._grad(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return self._l1(w)._prox(w, step)
