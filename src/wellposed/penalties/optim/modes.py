"""The modes of ``regularize`` (gradient, decoupled, proximal) as a table of what each does at a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.computing.passes import ProxStep, Push, add_gradients_, has_nan, take_steps_
from wellposed.penalties.computing.root_step import RootStep
from wellposed.penalties.optim.complexes import as_real
from wellposed.penalties.optim.step_sizes import Metric, learning_rate
from wellposed.penalties.penalty import Penalty
from wellposed.penalties.proximal import Traits
from wellposed.random.shards import is_sharded


class Update(NamedTuple):
    """All that a mode needs to know about one parameter at one step.

    Args:
        parameter: The parameter.
        penalty: What acts on it.
        factor: What the schedule multiplies the penalty by.
        group: The optimizer's group that the parameter is in.
        state: The optimizer's state of the parameter.
        metric: The optimizer's metric; ``None`` in modes that need none.
        skipped: Whether the optimizer left this step out because gradients overflowed, where only the device knows.
        scale: What a gradient scaler has multiplied the gradients by, and the optimizer will divide out; else ``None``.
    """

    parameter: Tensor
    penalty: Penalty
    factor: Number
    group: dict[str, Any]
    state: dict[str, Any]
    metric: Metric | None
    scale: Tensor | None
    skipped: Tensor | None


@dataclass(frozen=True)
class Mode:
    """One way to act.

    Args:
        name: Its name.
        objective: What is minimised.
        after: Whether it acts after the optimizer's step; otherwise when the gradients are known, before it.
        repeats: Whether it acts on gradients, and so on all that a closure computes; otherwise once a step.
        fits: Why it cannot take a penalty of these traits, or ``None``; told whether step sizes differ by element.
        act: The action, in place, on all parameters; for each whether NaN was seen, in the weights if it acts after
            the step, else in the gradient.
    """

    name: str
    objective: str
    after: bool
    repeats: bool
    fits: Callable[[Traits, bool], str | None]
    act: Callable[[list[Update]], list[bool | Tensor]]


def _add_gradients(updates: list[Update]) -> list[bool | Tensor]:
    pushes = []
    for update in updates:
        gradient = _placed_gradient(update.parameter)
        if gradient.is_sparse:
            raise WellposedError("mode='gradient' was given a sparse gradient; use mode='proximal' or dense gradients")
        factor = -update.factor if update.group.get("maximize") else update.factor
        factor = factor if update.scale is None else factor * update.scale
        pushes.append(Push(update.penalty, update.parameter, gradient, factor))
    return [_unless_skipped(update, added.bad) for update, added in zip(updates, add_gradients_(pushes), strict=True)]


def _take_proxes(updates: list[Update]) -> list[bool | Tensor]:
    steps = []
    for update in updates:
        assert update.metric is not None
        w, penalty = update.parameter, update.penalty
        size = update.metric.of(update.group, update.state, w)
        size = size.times(update.factor) if isinstance(size, RootStep) else update.factor * size
        if w.is_complex() and update.metric.diagonal:
            real = as_real(penalty, w.ndim)
            assert real is not None
            w, penalty = torch.view_as_real(w), real
        steps.append(ProxStep(penalty, w, size))
    kept = [None if update.skipped is None else step.w.clone() for update, step in zip(updates, steps, strict=True)]
    bad = take_steps_(steps)
    for update, step, old in zip(updates, steps, kept, strict=True):
        if update.skipped is not None and old is not None:
            step.w.copy_(torch.where(update.skipped, old, step.w))
    return bad


def _decay(updates: list[Update]) -> list[bool | Tensor]:
    bad = []
    for update in updates:
        w = update.parameter
        step = update.factor * learning_rate(update.group)
        if update.skipped is not None:
            step = step * ~update.skipped
        w.sub_(step * update.penalty.grad(w))
        assert w.grad is not None
        bad.append(_unless_skipped(update, has_nan(w.grad)))
    return bad


def _placed_gradient(parameter: Tensor) -> Tensor:
    """The gradient; of a DTensor placed as it is, since what processes hold may yet be terms of a sum."""
    gradient: Any = parameter.grad
    assert gradient is not None
    whole: Any = parameter
    if is_sharded(parameter) and is_sharded(gradient) and gradient.placements != whole.placements:
        gradient = parameter.grad = gradient.redistribute(placements=whole.placements)
    placed: Tensor = gradient
    return placed


def _unless_skipped(update: Update, bad: bool | Tensor) -> bool | Tensor:
    return bad if update.skipped is None else bad & ~update.skipped


def _gradient_fits(traits: Traits, diagonal: bool) -> str | None:
    return None if traits.gradient else "it has no gradient; use mode='proximal'"


def _decoupled_fits(traits: Traits, diagonal: bool) -> str | None:
    return None if traits.smooth else "it is not smooth, and a decoupled step on it never settles; use mode='proximal'"


def _proximal_fits(traits: Traits, diagonal: bool) -> str | None:
    if not traits.prox:
        return "its prox is not known in closed form; use mode='gradient'"
    if diagonal and not (traits.separable or traits.diagonal):
        ways = "use SGD, or metric='euclidean' for one step size" + (", or mode='gradient'" if traits.gradient else "")
        return f"its prox is known for one step size only, and this optimizer has one for each element; {ways}"
    return None


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode(
            "gradient",
            "loss + penalty, by its (sub)gradient added to the loss's before the optimizer sees it; no exact zeros",
            after=False,
            repeats=True,
            fits=_gradient_fits,
            act=_add_gradients,
        ),
        Mode(
            "decoupled",
            "loss + penalty under plain SGD; under an adaptive optimizer another function, since the penalty's step "
            "w - lr * grad does not pass through its metric (AdamW's weight decay)",
            after=False,
            repeats=False,
            fits=_decoupled_fits,
            act=_decay,
        ),
        Mode(
            "proximal",
            "loss + penalty, by its prox after the optimizer's step, in that step's metric; exact zeros",
            after=True,
            repeats=False,
            fits=_proximal_fits,
            act=_take_proxes,
        ),
    )
}
