"""Penalties that do not fit an optimizer, a mode or a parameter, refused before anything is changed."""

import sys
from collections import OrderedDict, defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from wellposed._torch import STEP_HOOKS
from wellposed.errors import WellposedError
from wellposed.penalties.computing.root_step import RootStep
from wellposed.penalties.optim.candidates import Model
from wellposed.penalties.optim.complexes import as_real
from wellposed.penalties.optim.modes import Mode
from wellposed.penalties.optim.selection import Entry
from wellposed.penalties.optim.step_sizes import METRICS, Metric
from wellposed.random.shards import is_sharded, runs_held

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


def refuse_flat(model: Model) -> None:
    """Weights that are pieces of one dimension, of which nothing says which elements they are."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not isinstance(model, nn.Module):
        return
    if any(
        isinstance(module, fsdp.FullyShardedDataParallel)
        and getattr(module.sharding_strategy, "name", "") != "NO_SHARD"
        for module in model.modules()
    ):
        raise WellposedError(
            "regularize was given a model in FullyShardedDataParallel, whose weights are in pieces that have lost "
            "their shape; shard it with fully_shard"
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
        for term in row.penalty.terms:
            term.refuse_unwritten("prox" if mode.after else "grad")
        try:
            if is_sharded(parameter):
                runs_held(parameter)
            # This counts the groups that labels make, too, so that no step has to wait for an accelerator to do it.
            with torch.no_grad():
                row.penalty.bind(parameter.detach()).value(parameter)
        except (WellposedError, RuntimeError) as error:
            raise WellposedError(f"{row.penalty!r} cannot be computed on {row.name!r}: {error}") from error


def refuse_states(optimizer: Optimizer, entries: list[Entry], metric: Metric) -> None:
    """States of an optimizer that is stepped like another, in which that one's metric cannot be read.

    Where there is no state yet, one step is taken on stand-ins of zeros, and what it leaves is looked at.
    """
    if metric not in METRICS.values() or METRICS.get(type(optimizer)) is metric:
        return
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    for row, parameter in entries:
        group, state = groups[parameter], optimizer.state.get(parameter)
        state = state or _state_after_a_step(optimizer, group, parameter)
        if state is None:
            continue
        try:
            step = metric.of(group, state, parameter)
            sizes = step.tensor() if isinstance(step, RootStep) else torch.as_tensor(step)
            torch.broadcast_to(sizes, parameter.shape if not parameter.is_complex() else (*parameter.shape, 2))
        except (WellposedError, RuntimeError, TypeError) as error:
            raise WellposedError(
                f"{type(optimizer).__name__} keeps for {row.name!r} what the metric of {metric.name} cannot be "
                f"computed from ({error}); give a callable (group, state, parameter) -> step sizes, metric='euclidean' "
                "for the learning rate alone, or use mode='gradient'"
            ) from error


def _state_after_a_step(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> dict[str, Any] | None:
    """The state of a parameter like this one after a first step, or ``None`` where it takes more than that to step."""
    stand_in = torch.zeros_like(parameter, requires_grad=True)
    stand_in.grad = torch.zeros_like(parameter)
    trial = object.__new__(type(optimizer))
    vars(trial).update(vars(optimizer), param_groups=[{**group, "params": [stand_in]}], state=defaultdict(dict))
    vars(trial).update({name: OrderedDict() for name in STEP_HOOKS})
    try:
        with torch.compiler.set_stance("force_eager"):  # compiling a step takes longer than all others
            type(optimizer).step(trial)
    except Exception:  # whatever somebody's optimizer may raise; it may need a closure
        return None
    return dict(trial.state[stand_in])
