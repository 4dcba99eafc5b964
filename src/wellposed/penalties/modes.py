"""The ways in which a penalty acts on an optimizer's step, as a table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.penalties.base import Penalty, Traits
from wellposed.penalties.checks import Number
from wellposed.penalties.metrics import Metric


class Update(NamedTuple):
    """All that a mode needs to know about one parameter at one step.

    Args:
        parameter: The parameter.
        penalty: What acts on it.
        factor: What the schedule multiplies the penalty by.
        group: The optimizer's group that the parameter is in.
        state: The optimizer's state of the parameter.
        metric: The optimizer's metric; ``None`` in modes that need none.
        scale: What a gradient scaler has multiplied the gradients by, and the optimizer will divide out; else ``None``.
    """

    parameter: Tensor
    penalty: Penalty
    factor: Number
    group: dict[str, Any]
    state: dict[str, Any]
    metric: Metric | None
    scale: Tensor | None


@dataclass(frozen=True)
class Mode:
    """One way to act.

    Args:
        name: Its name.
        objective: What is minimised.
        after: Whether it acts after the optimizer's step; otherwise when the gradients are known, before it.
        fits: Why it cannot take a penalty of these traits, or ``None``; told whether step sizes differ by element.
        act: The action, in place, on one parameter.
    """

    name: str
    objective: str
    after: bool
    fits: Callable[[Traits, bool], str | None]
    act: Callable[[Update], None]


def _add_gradient(update: Update) -> None:
    gradient = update.parameter.grad
    assert gradient is not None
    if gradient.is_sparse:
        raise WellposedError("mode='gradient' was given a sparse gradient; use mode='proximal' or dense gradients")
    push = update.factor * update.penalty.grad(update.parameter)
    if update.scale is not None:
        push = push * update.scale
    gradient.add_(push.to(gradient.dtype), alpha=-1 if update.group.get("maximize") else 1)


def _take_prox(update: Update) -> None:
    assert update.metric is not None
    step = update.metric.step(update.group, update.state, update.parameter)
    update.penalty.prox_(update.parameter, update.factor * step)


def _gradient_fits(traits: Traits, diagonal: bool) -> str | None:
    return None if traits.gradient else "it is a constraint and has no gradient; use mode='proximal'"


def _proximal_fits(traits: Traits, diagonal: bool) -> str | None:
    if not traits.prox:
        return "its prox is not known in closed form; use mode='gradient'"
    if diagonal and not (traits.separable or traits.diagonal):
        return (
            "its prox is known for one step size only, and this optimizer has one for each element; "
            "use SGD or mode='gradient'"
        )
    return None


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            "gradient",
            "loss + penalty, by its (sub)gradient added to the loss's before the optimizer sees it; no exact zeros",
            after=False,
            fits=_gradient_fits,
            act=_add_gradient,
        ),
        Mode(
            "proximal",
            "loss + penalty, by its prox after the optimizer's step, in that step's metric; exact zeros",
            after=True,
            fits=_proximal_fits,
            act=_take_prox,
        ),
    )
}
