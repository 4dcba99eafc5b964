"""Penalties added up and multiplied by numbers."""

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.penalties.group import GroupLasso, SparseGroupLasso
from wellposed.penalties.penalty import Penalty, Traits, brief
from wellposed.penalties.separable import L1, L2, ElasticNet


@dataclass(frozen=True, eq=False, repr=False)
class Scaled(Penalty):
    """A penalty times a number, for penalties that have no strength of their own to multiply."""

    penalty: Penalty
    factor: Number

    def __post_init__(self) -> None:
        factor = nonnegative(self.factor, f"the factor of {self.penalty!r}")
        if isinstance(factor, Tensor) and factor.ndim:
            raise WellposedError(
                f"{self.penalty!r} was multiplied by a tensor of shape {tuple(factor.shape)}; expected a number, since "
                "it is multiplied as a whole: elements get strengths of their own from its constructor, where it "
                "takes them"
            )
        object.__setattr__(self, "factor", factor)

    @property
    def traits(self) -> Traits:
        """Those of the penalty."""
        return self.penalty.traits

    @property
    def _tangent(self) -> Penalty | None:
        tangent = self.penalty._tangent
        return None if tangent is None else self.factor * tangent

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
        """Those of the parts."""
        return tuple(term for part in self.parts for term in part.terms)

    @property
    def _tangent(self) -> Penalty | None:
        tangents = [part._tangent for part in self.parts]
        known = [tangent for tangent in tangents if tangent is not None]
        return reduce(add, known) if len(known) == len(tangents) else None

    @property
    def unbound(self) -> bool:
        """Whether a part is."""
        return any(part.unbound for part in self.parts)

    def bind(self, reference: Tensor) -> Penalty:
        """The sum with its parts bound."""
        return Sum(tuple(part.bind(reference) for part in self.parts))

    def _refuse_misfit(self, w: Tensor) -> None:
        for part in self.parts:
            part._refuse_misfit(w)

    def value(self, w: Tensor) -> Tensor:
        """The sum of the parts' values.

        Args:
            w: A weight of any shape.

        Returns:
            A real scalar tensor, at least float32, that autograd can differentiate.

        Raises:
            WellposedError: As for each part.
        """
        # From the weight as it is, since constraints allow for its dtype's rounding.
        return torch.stack([part.value(w) for part in self.parts]).sum()

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

    def __eq__(self, other: object) -> bool:
        # In any order: parts that hold tensors have none.
        if type(other) is not type(self):
            return NotImplemented
        rest = list(other.parts)
        for part in self.parts:
            if part not in rest:
                return False
            rest.remove(part)
        return not rest

    def __hash__(self) -> int:
        return hash((type(self), frozenset(map(hash, self.parts))))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.parts))


def add(left: Penalty, right: Penalty) -> Penalty:
    """The sum, in its simplest form: terms of one kind become one, L1 joins a group lasso, or else L2.

    Args:
        left: A penalty.
        right: Another.

    Returns:
        A penalty; neither the order of the two matters nor, beyond rounding, that in which a longer sum is taken.
    """
    parts: list[Penalty] = []
    for new in (*left.terms, *right.terms):
        for i, old in enumerate(parts):
            merged = old._plus(new)
            if merged is not None:
                parts[i] = merged
                break
        else:
            parts.append(new)
    parts = _joined(parts)
    return parts[0] if len(parts) == 1 else Sum(tuple(sorted(parts, key=repr)))


def _joined(parts: list[Penalty]) -> list[Penalty]:
    """The parts with L1 joined to the one group lasso, or else to L2, which leaves the most sums with a prox."""
    absolute, square, groups = ([p for p in parts if type(p) is kind] for kind in (L1, L2, GroupLasso))
    joined: Penalty
    match absolute, groups, square:
        case [L1(l1)], [GroupLasso(lam, by, root_size)], _:
            taken, joined = (*absolute, *groups), SparseGroupLasso(l1, lam, by, root_size)
        case [L1(l1)], _, [L2(l2)]:
            taken, joined = (*absolute, *square), ElasticNet(l1, l2)
        case _:
            return parts
    return [joined, *(p for p in parts if not any(p is t for t in taken))]
