"""Minimization of a smooth loss plus a penalty by quasi-Newton proximal gradient steps (PANOC)."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 20
_CLOSE = 0.95  # how much of the step size that the curvature allows is taken
_HALVINGS = 6


@dataclass(frozen=True)
class Objective:
    """What is minimised: functions of one real vector.

    Args:
        loss: The smooth part, with its gradient.
        prox: (vector, step size) -> the penalty's prox.
        penalty: The penalty.
        unit: What each entry is counted in, of shape (n,): residuals are per unit.
    """

    loss: Callable[[Tensor], tuple[float, Tensor]]
    prox: Callable[[Tensor, float], Tensor]
    penalty: Callable[[Tensor], float]
    unit: Tensor


@dataclass(frozen=True, eq=False)
class _Place:
    """A vector, and the proximal gradient step from it: ``move`` leads to ``x + move``."""

    x: Tensor
    loss: float
    gradient: Tensor
    move: Tensor
    reach: float  # the penalty after the move, less what the loss falls by to first order
    square: float  # of the move
    step: float
    residual: float  # how far it is from stationary

    @property
    def envelope(self) -> float:
        """The forward-backward envelope: the objective with the loss replaced by its upper quadratic bound."""
        return self.loss + self.reach + self.square / (2 * self.step)


def descend(objective: Objective, x: Tensor, goal: float, steps: int) -> Tensor:
    """Go down from ``x`` until the proximal gradient step, over its step size, has no entry above ``goal`` units.

    A quasi-Newton direction for that step's fixed point is followed as far as it lowers the forward-backward envelope
    (PANOC), and the step itself where it does not, so that neither the loss's scale nor an uneven curvature matters.

    Args:
        objective: What is minimised.
        x: Where to start, of shape (n,).
        goal: When to stop.
        steps: How many steps to take at most.

    Returns:
        A vector that came out of the prox, with its exact zeros.

    Source: Stella, Themelis, Sopasakis and Patrinos (2017); Liu and Nocedal (1989) for the direction.
    """
    here = _place(objective, x, _CLOSE / curvature(objective, x))
    memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=_MEMORY)
    for _ in range(steps):
        if here.residual <= goal:
            break
        fitting = _fitted(objective, here)
        if fitting.step != here.step:
            memory.clear()
        here, there = fitting, _further(objective, fitting, memory)
        if torch.equal(here.x, there.x):
            break
        memory.append((there.x - here.x, here.move - there.move))
        if float(memory[-1][0] @ memory[-1][1]) <= 0:
            memory.pop()
        here = there
    return here.x + here.move


def curvature(objective: Objective, x: Tensor) -> float:
    """The loss's largest curvature at ``x``, roughly: by power iteration on differences of gradients; 1 if it is flat.

    Args:
        objective: Of which the loss is asked.
        x: Where, of shape (n,).
    """
    gradient = objective.loss(x)[1]
    fine = torch.finfo(x.dtype).eps ** 0.5
    length, along, found = fine * max(float(x.norm()), fine), gradient + gradient.abs().amax() + fine, 0.0
    for _ in range(12):
        along = along / along.norm()
        change = objective.loss(x + length * along)[1] - gradient
        while float(change.norm()) <= fine * float(gradient.norm()) and length < 1 / fine:
            # Too short to be told from rounding.
            length *= 10
            change = objective.loss(x + length * along)[1] - gradient
        size = float(change.norm()) / length
        if not 0 < size < float("inf"):
            break
        along, found = change, max(found, size)
    return found or 1.0


def _place(objective: Objective, x: Tensor, step: float) -> _Place:
    loss, gradient = objective.loss(x)
    return _moved(objective, x, loss, gradient, step)


def _moved(objective: Objective, x: Tensor, loss: float, gradient: Tensor, step: float) -> _Place:
    at = objective.prox(x - step * gradient, step)
    move = at - x
    reach = objective.penalty(at) + float(gradient @ move)
    residual = float((move / objective.unit).abs().amax()) / step
    return _Place(x, loss, gradient, move, reach, float(move @ move), step, residual)


def _fitted(objective: Objective, here: _Place) -> _Place:
    """The same place with a step size under which the loss stays below its quadratic bound."""
    for _ in range(60):
        bound = here.loss + float(here.gradient @ here.move) + _CLOSE * here.square / (2 * here.step)
        if objective.loss(here.x + here.move)[0] <= bound + _rounding(here):
            break
        here = _moved(objective, here.x, here.loss, here.gradient, here.step / 2)
    return here


def _further(objective: Objective, here: _Place, memory: deque[tuple[Tensor, Tensor]]) -> _Place:
    """The place to go on from: along the quasi-Newton direction, if it leads down far enough."""
    if memory:
        wanted = here.envelope - 0.25 * (1 - _CLOSE) * here.square / here.step + _rounding(here)
        direction, length = _direction(memory, here.move), 1.0
        for _ in range(_HALVINGS):
            there = _place(objective, here.x + (1 - length) * here.move + length * direction, here.step)
            if there.envelope <= wanted:
                return there
            length /= 2
    return _place(objective, here.x + here.move, here.step)


def _direction(memory: deque[tuple[Tensor, Tensor]], move: Tensor) -> Tensor:
    """The limited-memory BFGS step to where the move is 0; ``memory`` holds changes of place and of -move."""
    direction, weights = move.clone(), []
    for change, rise in reversed(memory):
        weight = change @ direction / (change @ rise)
        weights.append(weight)
        direction -= weight * rise
    change, rise = memory[-1]
    direction *= change @ rise / (rise @ rise)
    for (change, rise), weight in zip(memory, reversed(weights), strict=True):
        direction += (weight - rise @ direction / (change @ rise)) * change
    return direction


def _rounding(here: _Place) -> float:
    return 4 * torch.finfo(here.x.dtype).eps * (abs(here.loss) + abs(here.reach))
