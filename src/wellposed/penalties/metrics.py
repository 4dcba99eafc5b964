"""The step size that an optimizer has just taken, parameter by parameter: the metric of its proximal step.

An optimizer moves a weight by -D m, where m estimates the gradient and D is diagonal. For the penalised problem to keep
its solution, the prox has to be taken in the metric D^-1, that is with step sizes D.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.penalties.checks import Number

StepSize = Callable[[dict[str, Any], dict[str, Any], Tensor], Number]
"""(group, state, parameter) -> D: a number, or a tensor of the parameter's shape."""


@dataclass(frozen=True)
class Metric:
    """How to read an optimizer's step sizes.

    Args:
        name: What it is called in messages.
        step: The step sizes of one parameter, after the optimizer's step.
        diagonal: Whether they differ from element to element.
    """

    name: str
    step: StepSize
    diagonal: bool


def sgd(group: dict[str, Any], state: dict[str, Any], parameter: Tensor) -> Number:
    """The step size lr * (1 - dampening) / (1 - momentum).

    The momentum buffer of a steady gradient g settles at g * (1 - dampening) / (1 - momentum), with Nesterov's variant
    too; a threshold of lr alone would solve the problem with a strength (1 - momentum) times too small.
    """
    lr: Number = group["lr"]
    settled: float = (1 - group["dampening"]) / (1 - group["momentum"]) if group["momentum"] else 1.0
    return lr * settled


METRICS: dict[type[torch.optim.Optimizer], Metric] = {
    torch.optim.SGD: Metric("SGD", sgd, diagonal=False),
}


def metric_for(optimizer: torch.optim.Optimizer, given: type[torch.optim.Optimizer] | StepSize | None) -> Metric:
    """The metric of ``optimizer``: the one that is known for exactly its type, or the one that the user names.

    Args:
        optimizer: The optimizer.
        given: ``None``, a known optimizer type to treat it as, or a callable that returns the step sizes.

    Raises:
        WellposedError: If the metric is unknown. It is never guessed, since a wrong one solves another problem.
    """
    kind = type(optimizer) if given is None else given
    if isinstance(kind, type):
        if kind in METRICS:
            return METRICS[kind]
        known = ", ".join(t.__name__ for t in METRICS)
        raise WellposedError(
            f"the metric of {kind.__name__} is not known, and mode='proximal' needs it (known: {known}); name the one "
            "to take, as in metric=torch.optim.SGD, give a callable (group, state, parameter) -> step sizes, or use "
            "mode='gradient'"
        )
    return Metric(getattr(kind, "__name__", repr(kind)), kind, diagonal=True)
