"""Putting a penalty on an optimizer, and planning to: ``regularize`` and ``plan_regularize``."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from wellposed.errors import WellposedError
from wellposed.penalties.computing.shard import Shard
from wellposed.penalties.optim.candidates import Model
from wellposed.penalties.optim.factors import Factor, Factors, factors_of
from wellposed.penalties.optim.handle import Handle
from wellposed.penalties.optim.hooks import attached, innermost
from wellposed.penalties.optim.misfits import (
    refuse_flat,
    refuse_misfits,
    refuse_states,
    refuse_strangers,
    refuse_unusual,
)
from wellposed.penalties.optim.modes import MODES, Mode
from wellposed.penalties.optim.selection import Entry, Penalties, PenaltyPlan, Where, plan_entries
from wellposed.penalties.optim.step_sizes import GivenMetric, Metric, metric_for
from wellposed.penalties.penalty import Penalty
from wellposed.random.shards import is_sharded

Optimizer = torch.optim.Optimizer
ModeName = Literal["gradient", "decoupled", "proximal"]


def regularize(
    optimizer: Optimizer,
    model: Model,
    penalty: Penalties,
    *,
    where: Where | Iterable[Where] = "weights",
    mode: ModeName = "proximal",
    schedule: Factors = 1.0,
    metric: GivenMetric = None,
    masters: Mapping[str, Tensor] | None = None,
) -> Handle:
    """Put a penalty on a model's parameters, so that each step of the optimizer minimises loss + penalty.

    - ``"proximal"``: after the optimizer's step, w <- prox(w) with the step sizes that the optimizer has just used. The
      way to weights that are exactly zero.
    - ``"gradient"``: the penalty's (sub)gradient is added to ``.grad`` before the optimizer reads it, so
      w <- w - lr * (dL/dw + dOmega/dw) under plain SGD. The added part stays in ``.grad`` until it is zeroed.
    - ``"decoupled"``: w <- w - lr * dOmega/dw beside the optimizer's step, for smooth penalties: AdamW's weight decay.
      Under an adaptive optimizer this does not minimise loss + penalty.

    Parameters that have no gradient at a step are left alone, as the optimizer leaves them alone. Tied parameters count
    once. All modes follow each group's own and current learning rate.

    Args:
        optimizer: The optimizer that trains the model; wrappers of accelerate and Lightning are looked through.
        model: The model, or pairs of a name and a parameter.
        penalty: A penalty, or a mapping from globs on parameter names to penalties (``None``: leave out), of which the
            last that matches counts.
        where: Which parameters, by what they are for: "weights" (matrices and kernels that multiply signals, recurrent
            ones too), "biases", "norms" (scales and biases of normalisation), "embeddings", "tokens" (positions and
            classes) or "all"; by a glob on the name; by a module type (all of its own but biases); by a callable
            (name, parameter) -> bool; or by several of these. An embedding that is tied to an output layer is a
            weight, too. What no role claims, as in modules of your own and in pairs, is told by its name, or else by
            its number of dimensions.
        mode: How the penalty acts.
        schedule: What multiplies the penalty: a number, a tensor of one, a callable of the number of steps taken, or a
            mapping from globs on parameter names to these, of which the last that matches counts. A tensor is read at
            each step, and its value on an accelerator is trusted, since a look at it would wait.
        metric: For "proximal" on an optimizer of unknown kind: the optimizer type whose step sizes it shares, or a
            callable (group, state, parameter) -> step sizes. "euclidean" takes the learning rate for all elements
            whatever the optimizer does, which for a constraint is the plain projection after the step.
        masters: For models whose weights are in half precision and whose optimizer holds float32 copies of them: the
            copies, by the parameters' names. The penalty acts on the copies; what brings them into the model is left
            as it is.

    Returns:
        A handle; print ``handle.plan`` to see what is in and why.

    Raises:
        WellposedError: Before anything is changed, if an argument is not as above, nothing is selected, the optimizer
            does not hold a selected parameter, the penalty does not fit the mode or a parameter's shape, dtype or
            device, the optimizer's metric is not known, or a parameter has a proximal penalty already.

    Example:
        >>> import torch
        >>> from wellposed.penalties import L1, regularize
        >>> model = torch.nn.Linear(3, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> handle = regularize(optimizer, model, L1(100.0))
        >>> model(torch.ones(2, 3)).sum().backward()
        >>> optimizer.step()
        >>> handle.sparsity()
        1.0

    Source: Parikh and Boyd (2014) for the proximal step.
    """
    return Handle(*_prepare(optimizer, model, penalty, where, mode, schedule, metric, masters))


def plan_regularize(
    optimizer: Optimizer,
    model: Model,
    penalty: Penalties,
    *,
    where: Where | Iterable[Where] = "weights",
    mode: ModeName = "proximal",
    schedule: Factors = 1.0,
    metric: GivenMetric = None,
    masters: Mapping[str, Tensor] | None = None,
) -> PenaltyPlan:
    """What :func:`regularize` would penalise, how, and why; nothing is touched.

    Args:
        optimizer: As for :func:`regularize`.
        model: As for :func:`regularize`.
        penalty: As for :func:`regularize`.
        where: As for :func:`regularize`.
        mode: As for :func:`regularize`.
        schedule: As for :func:`regularize`.
        metric: As for :func:`regularize`.
        masters: As for :func:`regularize`.

    Returns:
        What ``handle.plan`` would be; print it.

    Raises:
        WellposedError: Where :func:`regularize` would.

    Example:
        >>> import torch
        >>> from wellposed.penalties import L1, plan_regularize
        >>> model = torch.nn.Linear(3, 1)
        >>> plan = plan_regularize(torch.optim.SGD(model.parameters(), lr=0.1), model, L1(0.1))
        >>> [(row.name, row.role, row.penalty) for row in plan]
        [('weight', 'weight', L1(lam=0.1)), ('bias', 'bias', None)]
    """
    return _prepare(optimizer, model, penalty, where, mode, schedule, metric, masters).plan


class _Prepared(NamedTuple):
    """What a handle is made of."""

    optimizer: Optimizer
    plan: PenaltyPlan
    entries: list[Entry]
    mode: Mode
    metric: Metric | None
    factors: dict[str, Factor]


def _prepare(
    optimizer: Optimizer,
    model: Model,
    penalty: Penalties,
    where: Where | Iterable[Where],
    mode: str,
    schedule: Factors,
    metric: GivenMetric,
    masters: Mapping[str, Tensor] | None,
) -> _Prepared:
    """Check all arguments."""
    _refuse_order(optimizer, model, penalty)
    optimizer = innermost(optimizer)
    if mode not in MODES:
        raise WellposedError(f"mode was given {mode!r}; expected one of {', '.join(map(repr, MODES))}")
    refuse_flat(model)
    entries = _with_masters(plan_entries(model, penalty, where), masters or {})
    chosen = MODES[mode]
    needed = metric_for(optimizer, metric) if chosen.after else None
    if needed is not None:
        needed.refuse_misfits(optimizer)
    penalised = [entry for entry in entries if entry.row.penalty is not None]
    factors = factors_of(schedule, [entry.row.name for entry in penalised])
    refuse_strangers(optimizer, penalised)
    refuse_misfits(penalised, chosen, needed)
    _refuse_second_prox(optimizer, penalised, chosen)
    refuse_unusual(optimizer, chosen)
    if needed is not None:
        refuse_states(optimizer, penalised, needed)
    entries = list(map(_with_cost, entries))
    penalised = [entry for entry in entries if entry.row.penalty is not None]
    plan = PenaltyPlan(tuple(entry.row for entry in entries), mode, chosen.objective)
    return _Prepared(optimizer, plan, penalised, chosen, needed, factors)


def _refuse_order(optimizer: object, model: object, penalty: object) -> None:
    """Arguments that are not an optimizer, a model and a penalty, in this order."""
    if isinstance(optimizer, Optimizer) and not isinstance(model, Optimizer | Penalty | Tensor | str | type):
        return
    kinds = ", ".join(_kind(given) for given in (optimizer, model, penalty))
    raise WellposedError(
        f"regularize was given, in this order, {kinds}; expected a torch.optim.Optimizer, a model (or pairs of a name "
        "and a parameter) and a penalty, as in regularize(optimizer, model, wp.L1(1e-4))"
    )


def _kind(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}"
    kinds = {"an optimizer": Optimizer, "a model": torch.nn.Module, "a penalty": Penalty}
    what = next((name for name, kind in kinds.items() if isinstance(given, kind)), "")
    return f"{what} ({type(given).__name__})" if what else f"{type(given).__name__} {given!r:.80}"


def _with_masters(entries: list[Entry], masters: Mapping[str, Tensor]) -> list[Entry]:
    shapes = {entry.row.name: entry.row.shape for entry in entries}
    for name, master in masters.items():
        if name not in shapes or not isinstance(master, Tensor) or tuple(master.shape) != shapes[name]:
            kind = f"of shape {tuple(master.shape)}" if isinstance(master, Tensor) else f"as {master!r}"
            raise WellposedError(
                f"masters was given {name!r} {kind}; expected a parameter's name and shape, of "
                f"{', '.join(f'{n} {s}' for n, s in shapes.items())}"
            )
    return [Entry(entry.row, masters.get(entry.row.name, entry.parameter)) for entry in entries]


def _with_cost(entry: Entry) -> Entry:
    """With a word on what is sent between processes, if it is a whole weight."""
    row, parameter = entry
    if row.penalty is None or not is_sharded(parameter) or not row.penalty.for_shard(Shard.of(parameter)).gathers:
        return entry
    return Entry(replace(row, reason=f"{row.reason}; sharded, and gathered whole at each step"), parameter)


def _refuse_second_prox(optimizer: Optimizer, entries: list[Entry], mode: Mode) -> None:
    if not mode.after:
        return
    taken = {parameter for other in attached(optimizer) if other.mode.after for parameter in other.parameters}
    for row, parameter in entries:
        if parameter in taken:
            raise WellposedError(
                f"{row.name!r} has a proximal penalty already; two proxes in a row are not the prox of the sum: "
                "remove() the first handle and give the sum, as in wp.L1(a) + wp.L2(b)"
            )
