"""Penalties added up and multiplied by numbers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.penalties import checks
from wellposed.penalties.base import Penalty, Traits, brief
from wellposed.penalties.checks import Number


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Penalty):
    """A penalty times a number, for penalties that have no strength of their own to multiply."""

    penalty: Penalty
    factor: Number

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", checks.strength(self.factor, "Scaled(factor)"))

    @property
    def traits(self) -> Traits:
        """Those of the penalty."""
        return self.penalty.traits

    @property
    def unbound(self) -> bool:
        """Whether the penalty is."""
        return self.penalty.unbound

    def bind(self, reference: Tensor) -> Penalty:
        """The same with the penalty bound."""
        return replace(self, penalty=self.penalty.bind(reference))

    def _value(self, w: Tensor) -> Tensor:
        return self.factor * self.penalty._value(w)

    def _grad(self, w: Tensor) -> Tensor:
        return self.factor * self.penalty._grad(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return self.penalty._prox(w, self.factor * step)

    def _scaled(self, factor: Number) -> Penalty:
        return replace(self, factor=self.factor * factor)

    def __repr__(self) -> str:
        return f"{brief(self.factor)} * {self.penalty!r}"


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Penalty):
    """The sum of penalties. Its prox is known when all but one of them are squared norms.

    Completing the square: the prox of f + l2 * ||.||^2 at ``step`` is the prox of f at step / s of w / s, with
    s = 1 + 2 * step * l2.
    """

    parts: tuple[Penalty, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise WellposedError("Sum was given no penalties; expected at least one")

    @property
    def traits(self) -> Traits:
        """What the parts have in common."""
        traits = [part.traits for part in self.parts]
        return Traits(
            convex=all(t.convex for t in traits),
            smooth=all(t.smooth for t in traits),
            separable=all(t.separable for t in traits),
            diagonal=all(t.separable or t.diagonal for t in traits),
            gradient=all(t.gradient for t in traits),
            prox=len(self._curved()) <= 1 and all(t.prox for t in traits),
        )

    @property
    def terms(self) -> tuple[Penalty, ...]:
        """The parts."""
        return self.parts

    @property
    def unbound(self) -> bool:
        """Whether a part is."""
        return any(part.unbound for part in self.parts)

    def bind(self, reference: Tensor) -> Penalty:
        """The sum with its parts bound."""
        return Sum(tuple(part.bind(reference) for part in self.parts))

    def _curved(self) -> list[Penalty]:
        return [part for part in self.parts if part.ridge is None]

    def _value(self, w: Tensor) -> Tensor:
        return torch.stack([part._value(w) for part in self.parts]).sum()

    def _grad(self, w: Tensor) -> Tensor:
        return torch.stack([part._grad(w) for part in self.parts]).sum(0)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        ridge = sum((part.ridge for part in self.parts if part.ridge is not None), start=0.0)
        shrink = 1 + 2 * step * ridge
        for part in self._curved():
            return part._prox(w / shrink, step / shrink)
        return w / shrink

    def _scaled(self, factor: Number) -> Penalty:
        return Sum(tuple(part._scaled(factor) for part in self.parts))

    def _without_prox(self) -> str:
        names = " + ".join(type(part).__name__ for part in self._curved())
        return (
            f"the prox of the sum {self!r} is not known in closed form, because of {names}; "
            "use mode='gradient', or put the smooth part on with mode='gradient' and the rest with mode='proximal'"
        )

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))


def add(left: Penalty, right: Penalty) -> Penalty:
    """The sum, in its simplest form: terms of one kind become one, and L1 with L2 an elastic net.

    Args:
        left: A penalty.
        right: Another.

    Returns:
        A penalty; the order of the two does not matter.
    """
    parts = list(left.terms)
    for new in right.terms:
        for i, old in enumerate(parts):
            merged = old._plus(new) or new._plus(old)
            if merged is not None:
                parts[i] = merged
                break
        else:
            parts.append(new)
    if len(parts) == 1:
        return parts[0]
    # One order, so that a + b == b + a.
    return Sum(tuple(sorted(parts, key=repr)))
