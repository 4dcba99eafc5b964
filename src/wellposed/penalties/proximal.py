"""Functions of a weight with a value, a gradient and a proximal map: what every penalty is computed by."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from wellposed.arguments import Number, nonnegative, unwritable
from wellposed.errors import WellposedError
from wellposed.penalties.computing import operands
from wellposed.penalties.computing.bisection import least_factor
from wellposed.penalties.computing.passes import ProxStep, Push, add_gradients_, take_steps_
from wellposed.penalties.computing.shard import Shard, local
from wellposed.random.shards import gathered, is_sharded


class Traits(NamedTuple):
    """What is known about a penalty as a function.

    Args:
        convex: It is convex.
        smooth: It is differentiable everywhere.
        separable: It is a sum over elements, so that its prox takes a step size for each element.
        diagonal: Its prox takes a step size for each element although it is not separable.
        gradient: It has a gradient or a subgradient; a constraint has none.
        prox: Its prox is known exactly.
    """

    convex: bool = True
    smooth: bool = False
    separable: bool = True
    diagonal: bool = False
    gradient: bool = True
    prox: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class ProximalFunction:
    """A real function Omega of a weight, with its gradient and its proximal map.

    Subclasses are frozen dataclasses with ``traits``, ``strengths`` (the fields that scaling multiplies) and three pure
    functions of a tensor of at least 32 bits: ``_value``, ``_grad`` and ``_prox``.
    """

    strengths: ClassVar[tuple[str, ...]] = ()

    @property
    def traits(self) -> Traits:
        """What is known about the penalty as a function."""
        return Traits()

    def __post_init__(self) -> None:
        for name in self.strengths:
            given = nonnegative(getattr(self, name), f"{type(self).__name__}({name})")
            object.__setattr__(self, name, given)

    def value(self, w: Tensor) -> Tensor:
        """Omega(w).

        Args:
            w: A weight of any shape, floating-point or complex.

        Returns:
            A real scalar tensor, at least float32, that autograd can differentiate. Of a DTensor it is a plain tensor:
            the value of the whole, the same in each process, and all processes have to ask.

        Raises:
            WellposedError: If ``w`` is not floating-point or complex, is on the meta device, or is a DTensor with
                partial placements, or if a strength that is a tensor does not broadcast against it.
        """
        penalty, here, shard = self.here(w)
        found = penalty._value_of(here)
        if shard is not None and found.requires_grad:
            found.register_hook(gathered)  # a loss that is a DTensor itself has a DTensor's derivative
        return found

    def grad(self, w: Tensor) -> Tensor:
        """The gradient of Omega at ``w``; where there is none, the subgradient of least norm.

        Complex weights follow PyTorch's convention: the direction of steepest ascent.

        Args:
            w: A weight of any shape.

        Returns:
            A tensor of ``w``'s shape and dtype; of a DTensor one that is placed as it is.

        Raises:
            WellposedError: As for :meth:`value`, and if the penalty is a constraint.
        """
        penalty, here, shard = self.here(w)
        if not self.traits.gradient:
            raise WellposedError(f"{self!r} has no gradient; use its prox")
        found = penalty._grad(operands.at_least_float32(here.detach())).to(w.dtype)
        return found if shard is None else shard.like(found)

    def prox(self, w: Tensor, step: Number) -> Tensor:
        """The proximal map: argmin over x of ``1/2 ||x - w||^2 + step * Omega(x)``.

        Args:
            w: A weight of any shape.
            step: The step size, a number >= 0; for a separable penalty also a tensor that broadcasts against ``w``, the
                inverse of a diagonal metric: argmin of ``1/2 sum_i (x_i - w_i)^2 / step_i + Omega(x)``.

        Returns:
            A tensor of ``w``'s shape and dtype; of a DTensor one that is placed as it is.

        Raises:
            WellposedError: As for :meth:`value`; if the step does not fit; if the prox is not known in closed form.
        """
        penalty, here, shard = self.here(w)
        if not self.traits.prox:
            raise WellposedError(self._without_prox())
        elementwise = self.traits.separable or self.traits.diagonal
        size = operands.step_size(step, w, self, elementwise=elementwise)
        size = size if shard is None else shard.part(size)
        moved = penalty._prox(operands.at_least_float32(here.detach()), size).to(w.dtype)
        return moved if shard is None else shard.like(moved)

    def prox_(self, w: Tensor, step: Number) -> Tensor:
        """:meth:`prox` in place, unseen by autograd.

        Args:
            w: A weight of any shape, overwritten.
            step: As for :meth:`prox`.

        Returns:
            ``w``.

        Raises:
            WellposedError: As for :meth:`prox`.
        """
        self._refuse_misfit(w)
        if why := unwritable(w):
            raise WellposedError(f"{self!r}.prox_ was given a tensor that {why}")
        take_steps_([ProxStep(self, w, step)])
        return w

    def accumulate_(self, w: Tensor, gradient: Tensor, factor: Number = 1.0) -> Tensor:
        """Add ``factor`` times the gradient at ``w`` to ``gradient`` in place, in one pass over both where possible.

        Args:
            w: A weight of any shape.
            gradient: A tensor of its shape, overwritten.
            factor: What the gradient is multiplied by.

        Returns:
            The value, as :meth:`value` without an autograd graph and times nothing.

        Raises:
            WellposedError: As for :meth:`grad`.
        """
        value = add_gradients_([Push(self, w, gradient, factor)])[0].value
        if value is None:
            return self.value(w.detach())
        _, _, shard = self.here(w)
        there = torch.tensor(value, dtype=w.dtype)
        return there if shard is None else shard.total(there)

    def __call__(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The pair (value, gradient), without an autograd graph."""
        return self.value(w.detach()), self.grad(w)

    def kkt(self, w: Tensor, grad: Tensor, step: Number = 1.0) -> Tensor:
        """How far ``w`` is from stationary for loss + Omega.

        It is the largest entry of ``|w - prox(w - step * grad, step)| / step``, and 0 exactly where the optimality
        conditions hold. A smooth penalty without a prox is asked for its gradient instead: ``|grad + Omega'(w)|``.

        Args:
            w: The weight.
            grad: The gradient of the loss alone at ``w``, of ``w``'s shape.
            step: The step size, > 0.

        Returns:
            A real scalar tensor.

        Raises:
            WellposedError: As for :meth:`prox`.
        """
        penalty, here, shard = self.here(w)
        if shard is not None:
            return shard.largest(penalty.kkt(here, shard.part(grad), shard.part(step)))
        if self.traits.smooth and not self.traits.prox:
            moved = grad + self.grad(w)
        else:
            moved = (w - self.prox(w - step * grad, step)) / step
        return moved.detach().abs().amax() if moved.numel() else moved.new_zeros((), dtype=moved.abs().dtype)

    def lambda_max(self, grad: Tensor) -> float:
        """The least number that, multiplied with this penalty, holds a weight at zero against a gradient.

        Where the loss has gradient ``grad`` at w = 0, 0 is stationary for loss + c * Omega from this c on; for L1 it is
        ``max |grad| / lam``. It is found by bisection on the prox, and the upper end is returned. A penalty that is not
        convex has the number of the convex one that it equals to first order at zero: for MCP and SCAD that is L1.

        Args:
            grad: The gradient of the loss at w = 0, of the weight's shape.

        Returns:
            The number, >= 0.

        Raises:
            WellposedError: As for :meth:`prox`; if the gradient is not finite; if no number does it (L2), or the
                penalty has no finite slope at zero (constraints, L0, LHalf).

        Example:
            >>> from wellposed.penalties import L1
            >>> round(L1(0.5).lambda_max(torch.tensor([1.0, -3.0])), 9)
            6.0
        """
        self.here(grad)
        tangent = self._tangent if self.traits.gradient else None
        if tangent is None:
            raise WellposedError(f"{self!r} has no lambda_max: it is not known to have a finite slope at zero")
        penalty, here, shard = tangent.here(grad.detach())

        def is_any(x: Tensor) -> bool:
            return bool(x.any()) if shard is None else shard.any(x)

        if is_any(~here.isfinite()):
            raise WellposedError(f"{self!r}.lambda_max was given a gradient with NaN or infinity; expected finite ones")
        pull = -(here.to(torch.complex128) if here.is_complex() else here.double())

        found = least_factor(lambda factor: not is_any(penalty.prox(pull, factor)))
        if found is None:
            raise WellposedError(f"{self!r} has no lambda_max: no multiple of it holds a weight at exactly zero")
        return found

    def here(self, w: Tensor) -> tuple["ProximalFunction", Tensor, Shard | None]:
        """This function and a weight as this process holds them: of a DTensor its shard, and where that lies.

        Raises:
            WellposedError: If it cannot be computed on the weight.
        """
        if not is_sharded(w):
            self._refuse_misfit(w)
            return self, w, None
        try:
            shard = Shard.of(w)
        except WellposedError as error:
            raise WellposedError(f"{self!r} was given what it cannot be computed on: {error}") from error
        self._refuse_misfit(shard.outline)
        return self.for_shard(shard), local(w), shard

    def for_shard(self, shard: Shard) -> "ProximalFunction":
        """This function on the shard that a process holds of a weight; values are those of the whole."""
        raise self._unwritten("for_shard")

    def _value_of(self, w: Tensor) -> Tensor:
        """The value, of a weight in its own dtype."""
        return self._value(operands.at_least_float32(w))

    def _value(self, w: Tensor) -> Tensor:
        raise self._unwritten("value")

    def _grad(self, w: Tensor) -> Tensor:
        raise self._unwritten("grad")

    def _prox(self, w: Tensor, step: Number) -> Tensor:
        raise self._unwritten("prox")

    def _unwritten(self, name: str) -> WellposedError:
        has_none = "" if name == "value" else ", or to say in its traits that there is none"
        return WellposedError(f"{type(self).__name__} has no _{name}; a penalty has to have one{has_none}")

    def refuse_unwritten(self, name: str) -> None:
        """Raise if a class has left out how its ``"grad"`` or ``"prox"`` is computed."""
        if all(getattr(type(self), n) is getattr(ProximalFunction, n) for n in (name, f"_{name}")):
            raise self._unwritten(name)

    def _refuse_misfit(self, w: Tensor) -> None:
        """Raise unless the penalty can be computed on ``w``: a weight, against which tensor strengths broadcast."""
        operands.weight(w, self)
        if w.layout is not torch.strided:
            raise WellposedError(f"{self!r} was given a tensor that {unwritable(w)}")
        for name, value in vars(self).items():
            if isinstance(value, ProximalFunction):
                value._refuse_misfit(w)
            elif isinstance(value, Tensor) and value.ndim and value.is_floating_point():
                room = self._room(w)
                if not _broadcasts(value.shape, room):
                    raise WellposedError(
                        f"{self!r} has {name} of shape {tuple(value.shape)}, and was given a weight of shape "
                        f"{tuple(w.shape)}; expected a number, or a tensor that broadcasts to {tuple(room)}"
                    )

    def _room(self, w: Tensor) -> torch.Size:
        """The shape that strengths broadcast to: one for each element of ``w`` if the penalty is a sum over them."""
        return w.shape if self.traits.separable else torch.Size()

    def _without_prox(self) -> str:
        return f"the prox of {self!r} is not known in closed form"

    @property
    def _tangent(self) -> "ProximalFunction | None":
        """The convex penalty that this one equals to first order at zero, where it is known."""
        return self if self.traits.convex else None

    @property
    def elastic(self) -> tuple[float, float] | None:
        """The numbers l1 and l2 for which this penalty is ``l1 * sum |w| + l2 * sum |w|^2``, if it is."""
        return None

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(map(_same, self._values(), other._values()))

    def __hash__(self) -> int:
        return hash((type(self), *((tuple(v.shape) if isinstance(v, Tensor) else v) for v in self._values())))

    def __repr__(self) -> str:
        given = ((f.name, getattr(self, f.name)) for f in fields(self) if f.repr)
        shown = (f"{name}={brief(value)}" for name, value in given if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)


def _broadcasts(shape: torch.Size, room: torch.Size) -> bool:
    return len(shape) <= len(room) and all(n in (1, m) for n, m in zip(shape[::-1], room[::-1], strict=False))


def brief(value: object) -> str:
    """``value`` in few words: of a tensor its shape, or its number if it is one."""
    if isinstance(value, Tensor):
        return f"{value.item():g}" if value.ndim == 0 else f"tensor{tuple(value.shape)}"
    return repr(value)
