"""The base class of penalties, and what they add up and multiply to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative
from wellposed.errors import WellposedError
from wellposed.models.roles import Part
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.proximal import ProximalFunction, Traits, brief


@dataclass(frozen=True, eq=False, repr=False)
class Penalty(ProximalFunction):
    """A function Omega of a weight that training is made to keep small.

    A penalty is an immutable value: equal to another of the same kind and numbers, hashable, picklable. ``p + q`` and
    ``c * p`` are penalties too. Weights of fewer than 32 bits are computed in float32 and rounded once.

    To add one, write a frozen dataclass with ``traits``, ``strengths`` (the fields that scaling multiplies) and three
    pure functions of a tensor of at least 32 bits: ``_value`` (a differentiable scalar), ``_grad`` and ``_prox``.
    """

    @property
    def terms(self) -> tuple["Penalty", ...]:
        """The penalties that this one is the sum of."""
        return (self,)

    @property
    def unbound(self) -> bool:
        """Whether the penalty refers to weights that it does not have yet."""
        return False

    def bind(self, reference: Tensor) -> "Penalty":
        """This penalty with ``reference`` where it refers to weights that it does not have yet."""
        return self

    def for_layer(self, parts: Sequence[Part]) -> "Penalty":
        """This penalty on a weight with these parts, for penalties that go by what its dimensions are for."""
        return self

    @property
    def gathers(self) -> bool:
        """Whether this, made for a shard, brings the whole weight together at each use."""
        return False

    def for_shard(self, shard: Shard) -> "Penalty":
        """This penalty on the shard that a process holds of a weight; values are those of the whole."""
        kind = OnShard if shard.splits.keys() <= self._apart(shard.shape) else OnWhole
        return kind(self if kind is OnWhole else _cut(self, shard), shard)

    def _apart(self, shape: tuple[int, ...]) -> set[int]:
        """The dimensions along which parts of a weight are penalised each by itself."""
        return set(range(len(shape))) if self.traits.separable else set()

    @property
    def _tangent(self) -> "Penalty | None":
        return self if self.traits.convex else None

    @property
    def ridge(self) -> Number | None:
        """The number lam for which this penalty is ``lam * ||w||^2``, if it is."""
        return None

    def __add__(self, other: object) -> "Penalty":
        return add(self, other) if isinstance(other, Penalty) else NotImplemented

    def __radd__(self, other: object) -> "Penalty":
        # The built-in sum() starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, factor: object) -> "Penalty":
        if not isinstance(factor, int | float | Tensor):
            return NotImplemented
        return self._scaled(nonnegative(factor, f"the factor of {self!r}"))

    __rmul__ = __mul__

    def _scaled(self, factor: Number) -> "Penalty":
        if not self.strengths:
            return Scaled(self, factor)
        return replace(self, **{name: getattr(self, name) * factor for name in self.strengths})

    def _plus(self, other: "Penalty") -> "Penalty | None":
        """The single penalty of this kind that this one and ``other`` add up to, where there is one."""
        if type(other) is not type(self) or not self.strengths:
            return None
        total = {name: getattr(self, name) + getattr(other, name) for name in self.strengths}
        return replace(self, **total) if replace(other, **total) == replace(self, **total) else None

    def _join(self, other: "Penalty") -> "Penalty | None":
        """The single penalty with a prox that this one and one of another kind add up to, where it is known."""
        return None


PenaltyType = TypeVar("PenaltyType", bound=Penalty)


def unchecked(kind: type[PenaltyType], /, **values: Any) -> PenaltyType:
    """A penalty of numbers that are known to be right: to check them would wait for an accelerator at each step."""
    penalty = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(penalty, name, value)
    return penalty


def changed(penalty: PenaltyType, /, **values: Any) -> PenaltyType:
    """A penalty with other values, which are known to be right."""
    return unchecked(type(penalty), **{**vars(penalty), **values})


def _cut(penalty: ProximalFunction, shard: Shard) -> Any:
    """A penalty whose tensors of the weight's shape are cut as the weight is."""
    values = {
        name: _cut(value, shard) if isinstance(value, ProximalFunction) else shard.part(value)
        for name, value in vars(penalty).items()
        if isinstance(value, ProximalFunction | Tensor)
    }
    return changed(penalty, **values) if values else penalty  # type: ignore[type-var]


@dataclass(frozen=True, eq=False, repr=False)
class OnShard(Penalty):
    """A penalty on the shard that a process holds, of whose parts each is penalised by itself.

    Args:
        penalty: The penalty, with its tensors cut as the weight is.
        shard: What the process holds.
    """

    penalty: Penalty
    shard: Shard

    @property
    def traits(self) -> Traits:
        """Those of the penalty."""
        return self.penalty.traits

    @property
    def elastic(self) -> tuple[float, float] | None:
        """The penalty's."""
        return self.penalty.elastic

    @property
    def ridge(self) -> Number | None:
        """The penalty's."""
        return self.penalty.ridge

    def _refuse_misfit(self, w: Tensor) -> None:
        pass  # the whole was looked at

    def _value(self, w: Tensor) -> Tensor:
        return self.shard.total(self.penalty._value(w))

    def _grad(self, w: Tensor) -> Tensor:
        return self.penalty._grad(w)

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        return self.penalty._prox(w, step)


@dataclass(frozen=True, eq=False, repr=False)
class OnWhole(OnShard):
    """A penalty that needs the whole weight, which is gathered at each use."""

    @property
    def gathers(self) -> bool:
        """It does."""
        return True

    def _value(self, w: Tensor) -> Tensor:
        return self.penalty._value(self.shard.whole_of(w))

    def _grad(self, w: Tensor) -> Tensor:
        found: Tensor = self.shard.part(self.penalty._grad(self.shard.whole_of(w)))
        return found

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        found: Tensor = self.shard.part(self.penalty._prox(self.shard.whole_of(w), step))
        return found


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

    def for_layer(self, parts: Sequence[Part]) -> Penalty:
        """The same of the penalty on that weight."""
        return replace(self, penalty=self.penalty.for_layer(parts))

    @property
    def gathers(self) -> bool:
        """Whether the penalty does."""
        return self.penalty.gathers

    def for_shard(self, shard: Shard) -> Penalty:
        """The same of the penalty on that shard."""
        return changed(self, penalty=self.penalty.for_shard(shard))

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

    Completing the square: the prox of ``f + l2 * ||.||^2`` at ``step`` is the prox of f at ``step / s`` of ``w / s``,
    with ``s = 1 + 2 * step * l2``.
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

    def for_layer(self, parts: Sequence[Part]) -> Penalty:
        """The sum of the parts on that weight."""
        return Sum(tuple(part.for_layer(parts) for part in self.parts))

    @property
    def gathers(self) -> bool:
        """Whether a part does."""
        return any(part.gathers for part in self.parts)

    def for_shard(self, shard: Shard) -> Penalty:
        """The sum of the parts on that shard."""
        return Sum(tuple(part.for_shard(shard) for part in self.parts))

    def _refuse_misfit(self, w: Tensor) -> None:
        for part in self.parts:
            part._refuse_misfit(w)

    def _value_of(self, w: Tensor) -> Tensor:
        # From the weight as it is, since constraints allow for its dtype's rounding.
        return torch.stack([part._value_of(w) for part in self.parts]).sum()

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
    """The parts with two of different kinds made one; which has no ridge first, since a ridge goes with any prox."""
    pairs = [(one, other, both) for one in parts for other in parts if (both := one._join(other)) is not None]
    # Of several of a kind none is joined: which one would depend on the order in which the sum was taken.
    pairs = [pair for pair in pairs if sum(type(part) is type(pair[0]) for part in parts) == 1]
    if not pairs:
        return parts
    one, other, both = min(pairs, key=lambda pair: pair[0].ridge is not None)
    return [both, *(part for part in parts if part is not one and part is not other)]
