"""Which way a penalty goes over memory: a kernel's one pass where there is one, torch's formulas elsewhere."""

import torch
from torch import Tensor

from wellposed.penalties import checks
from wellposed.penalties.base import Penalty
from wellposed.penalties.checks import Number
from wellposed.penalties.steps import RootStep


def step_(penalty: Penalty, w: Tensor, step: Number | RootStep) -> bool | Tensor:
    """Take the prox of ``penalty`` in place, with step sizes that may still be apart.

    Args:
        penalty: The penalty.
        w: The weight, overwritten.
        step: The step size or sizes.

    Returns:
        Whether there is a NaN among the results: a tensor where reading it would wait for an accelerator.
    """
    elastic = penalty.elastic
    if elastic is not None and isinstance(w, Tensor) and w.is_cpu:
        from wellposed.penalties import cpu

        ready = step if isinstance(step, RootStep) else _number(step)
        if ready is not None and cpu.serves(w, *([ready.second] if isinstance(ready, RootStep) else [])):
            if not isinstance(ready, RootStep):
                checks.step_size(ready, w, penalty, elementwise=True)
            return cpu.prox_(w, ready, *elastic)
    with torch.no_grad():
        w.copy_(penalty.prox(w, step.tensor() if isinstance(step, RootStep) else step))
        bad = w.isnan().any()
        return bool(bad) if bad.is_cpu else bad


def accumulate_(penalty: Penalty, w: Tensor, gradient: Tensor, factor: Number) -> Tensor:
    """:meth:`Penalty.accumulate_ <wellposed.penalties.base.Penalty.accumulate_>`."""
    elastic, number = penalty.elastic, _number(factor)
    if elastic is not None and number is not None and isinstance(w, Tensor) and w.is_cpu:
        from wellposed.penalties import cpu

        if cpu.serves(w, gradient):
            return torch.tensor(cpu.accumulate_(w, gradient, *elastic, number), dtype=w.dtype)
    with torch.no_grad():
        gradient.add_((factor * penalty.grad(w)).to(gradient.dtype))
        return penalty.value(w)


def _number(value: Number) -> float | None:
    """``value`` as a float, if that costs no waiting."""
    if not isinstance(value, Tensor):
        return value
    return float(value) if value.is_cpu and value.ndim == 0 else None
