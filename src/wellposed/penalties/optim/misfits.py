"""Penalties that do not fit an optimizer, a mode or a parameter, refused before anything is changed."""

import torch

from wellposed.errors import WellposedError
from wellposed.penalties.optim.complexes import as_real
from wellposed.penalties.optim.modes import Mode
from wellposed.penalties.optim.selection import Entry
from wellposed.penalties.optim.step_sizes import Metric

Optimizer = torch.optim.Optimizer


def refuse_strangers(optimizer: Optimizer, entries: list[Entry]) -> None:
    """Parameters that the optimizer does not hold."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    strangers = [entry.row.name for entry in entries if id(entry.parameter) not in held]
    if strangers:
        raise WellposedError(
            f"the optimizer does not hold {', '.join(strangers)}, so a penalty on them would do nothing; "
            "give the optimizer these parameters, or leave them out with where="
        )


def refuse_unusual(optimizer: Optimizer, mode: Mode) -> None:
    """Optimizers whose steps a penalty in this mode cannot keep to."""
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise WellposedError("regularize was given an optimizer with differentiable=True, which it cannot serve")
    if isinstance(optimizer, torch.optim.LBFGS) and not (mode.repeats or mode.after):
        raise WellposedError(
            f"mode={mode.name!r} was given an L-BFGS, whose line search moves the weights many times a step and would "
            "not see the penalty; use mode='gradient'"
        )


def refuse_misfits(entries: list[Entry], mode: Mode, metric: Metric | None) -> None:
    """Penalties that do not fit the mode, the optimizer's metric, or a parameter."""
    diagonal = metric is not None and metric.diagonal
    for row, parameter in entries:
        assert row.penalty is not None
        why = mode.fits(row.penalty.traits, diagonal)
        if why is None and diagonal and parameter.is_complex() and as_real(row.penalty, parameter.ndim) is None:
            why = "the weights are complex, and the optimizer has step sizes of their own for real and imaginary parts"
        if why is not None:
            raise WellposedError(f"{row.penalty!r} on {row.name!r} does not fit mode={mode.name!r}: {why}")
        try:
            # This counts the groups that labels make, too, so that no step has to wait for an accelerator to do it.
            with torch.no_grad():
                row.penalty.bind(parameter.detach()).value(parameter)
        except (WellposedError, RuntimeError) as error:
            raise WellposedError(f"{row.penalty!r} cannot be computed on {row.name!r}: {error}") from error
