"""A penalty on an optimizer: `regularize` and the handle that it returns."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from wellposed._torch import steps_being_taken
from wellposed.arguments import Number
from wellposed.errors import WellposedError
from wellposed.penalties.optim.misfits import refuse_misfits, refuse_strangers, refuse_unusual
from wellposed.penalties.optim.modes import MODES, Mode, Update
from wellposed.penalties.optim.reporting import PenaltyReport, ReportRow
from wellposed.penalties.optim.selection import Entry, Model, Penalties, PenaltyPlan, Where, plan_entries
from wellposed.penalties.optim.step_sizes import GivenMetric, Metric, metric_for
from wellposed.penalties.penalty import Penalty
from wellposed.schedules import Schedule, Schedules, factor_at, schedules_of

Optimizer = torch.optim.Optimizer
_attached: WeakKeyDictionary[Optimizer, list["Handle"]] = WeakKeyDictionary()


def regularize(
    optimizer: Optimizer,
    model: Model,
    penalty: Penalties,
    *,
    where: Where | Iterable[Where] = "weights",
    mode: Literal["gradient", "decoupled", "proximal"] = "proximal",
    schedule: Schedules = 1.0,
    metric: GivenMetric = None,
    masters: Mapping[str, Tensor] | None = None,
) -> "Handle":
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
        optimizer: The optimizer that trains the model.
        model: The model, or pairs of a name and a parameter.
        penalty: A penalty, or a mapping from globs on parameter names to penalties (``None``: leave out), of which the
            first that matches counts.
        where: Which parameters: "weights" (two dimensions or more, no biases, no normalisation), "biases", "norms",
            "all", a glob on the name, a module type, a callable (name, parameter) -> bool, or several of these.
        mode: How the penalty acts.
        schedule: What multiplies the penalty: a number, a tensor of one, a callable of the number of steps taken, or a
            mapping from globs on parameter names to these. A tensor is read at each step, and its value on an
            accelerator is trusted, since a look at it would wait.
        metric: For "proximal" on an optimizer of unknown kind: the optimizer type whose step sizes it shares, or a
            callable (group, state, parameter) -> step sizes. "euclidean" takes the learning rate for all elements
            whatever the optimizer does, which for a constraint is the plain projection after the step.
        masters: For models whose weights are narrow and whose optimizer holds wide copies of them: the copies, by the
            parameters' names. The penalty acts on the copies; what brings them into the model is left as it is.

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
    if not isinstance(optimizer, Optimizer):
        raise WellposedError(f"regularize was given an optimizer {optimizer!r}; expected a torch.optim.Optimizer")
    if mode not in MODES:
        raise WellposedError(f"mode was given {mode!r}; expected one of {', '.join(map(repr, MODES))}")
    entries = _with_masters(plan_entries(model, penalty, where), masters or {})
    chosen = MODES[mode]
    needed = metric_for(optimizer, metric) if chosen.after else None
    if needed is not None:
        needed.refuse_misfits(optimizer)
    penalised = [entry for entry in entries if entry.row.penalty is not None]
    schedules = schedules_of(schedule, [entry.row.name for entry in penalised])
    refuse_strangers(optimizer, penalised)
    refuse_misfits(penalised, chosen, needed)
    _refuse_second_prox(optimizer, penalised, chosen)
    refuse_unusual(optimizer, chosen)
    plan = PenaltyPlan(tuple(entry.row for entry in entries), mode, chosen.objective)
    return Handle(optimizer, plan, penalised, chosen, needed, schedules)


class Handle:
    """A penalty at work on an optimizer.

    Attributes:
        plan: Which parameters are in or out, and why.
        step: How many steps the optimizer has been asked for with it; one that a gradient scaler skips counts if the
            optimizer is fused, which is called all the same.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        plan: PenaltyPlan,
        entries: list[Entry],
        mode: Mode,
        metric: Metric | None,
        schedules: dict[str, Schedule],
    ) -> None:
        self.plan = plan
        self.step = 0
        # Penalties that refer to weights and have none take the parameter's present ones.
        self._references = {
            row.name: p.detach().clone() for row, p in entries if row.penalty is not None and row.penalty.unbound
        }
        self._entries = {id(entry.parameter): entry for entry in entries}
        self._penalties = {id(entry.parameter): self._bound(entry) for entry in entries}
        self._mode = mode
        self._metric = metric
        self._schedules = {id(entry.parameter): schedules[entry.row.name] for entry in entries}
        self._now: dict[int, Number] = {}
        _attached.setdefault(optimizer, []).append(self)
        self._nan_steps: dict[str, int | Tensor] = {}
        # A compiled step leaves its graph for the penalty: traced, it would be compiled anew as the step number grows.
        self._hooks = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._after)),
        ]

    def value(self) -> float:
        """The penalty's present value, over all its parameters, times the schedule's present factor."""
        return float(sum(self._values(self._factors()).values()))

    def sparsity(self) -> float:
        """The share of exact zeros among the penalised parameters' elements, in [0, 1]."""
        parameters = [entry.parameter for entry in self._entries.values()]
        zeros = sum(int((p.detach() == 0).sum()) for p in parameters)
        return zeros / max(1, sum(p.numel() for p in parameters))

    def nan_steps(self) -> dict[str, int]:
        """For each penalised parameter that ever met NaN at how many steps it did.

        A NaN gradient makes NaN of weights that were zero. What is looked at is the weights after a proximal step, and
        the gradients in the other modes. On a CPU the first NaN is a warning too; on an accelerator nothing is read
        until this method or :meth:`report` asks.
        """
        return {name: int(count) for name, count in self._nan_steps.items() if int(count)}

    def report(self) -> PenaltyReport:
        """What the penalty has come to, parameter by parameter; prints as a table."""
        seen, values = self.nan_steps(), self._values(self._factors())
        rows = (
            ReportRow(
                entry.row.name,
                tuple(entry.parameter.shape),
                repr(entry.row.penalty),
                values[at],
                int((entry.parameter.detach() == 0).sum()),
                entry.parameter.numel(),
                seen.get(entry.row.name, 0),
            )
            for at, entry in self._entries.items()
        )
        return PenaltyReport(tuple(rows), self.step)

    def remove(self) -> None:
        """Take the penalty off the optimizer. Doing it twice is harmless."""
        for hook in self._hooks:
            hook.remove()
        for handles in _attached.values():
            if self in handles:
                handles.remove(self)

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on where it stopped: counts of steps, and starting weights that penalties refer to."""
        return {"step": self.step, "nan_steps": self.nan_steps(), "references": dict(self._references)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            WellposedError: If it is something else.
        """
        wanted = {"step": int, "nan_steps": dict, "references": dict}
        if not isinstance(state, dict) or {name: type(value) for name, value in state.items()} != wanted:
            raise WellposedError(f"load_state_dict was given {state!r}; expected what state_dict() returned")
        saved: dict[str, Tensor] = state["references"]
        if {k: v.shape for k, v in saved.items()} != {k: v.shape for k, v in self._references.items()}:
            raise WellposedError(
                f"load_state_dict was given starting weights of {sorted(saved)}; expected those of "
                f"{sorted(self._references)}, in the parameters' shapes"
            )
        self.step, self._nan_steps = state["step"], dict(state["nan_steps"])
        for name, reference in saved.items():
            self._references[name] = reference.to(self._references[name])
        self._penalties = {at: self._bound(entry) for at, entry in self._entries.items()}

    def __repr__(self) -> str:
        return f"<{len(self._entries)} penalised parameters, mode {self._mode.name}, step {self.step}>"

    def _bound(self, entry: Entry) -> Penalty:
        assert entry.row.penalty is not None
        reference = self._references.get(entry.row.name)
        return entry.row.penalty if reference is None else entry.row.penalty.bind(reference)

    def _factors(self) -> dict[int, Number]:
        """What each parameter's schedule gives now; one that several share is asked once."""
        now = {id(schedule): factor_at(schedule, self.step) for schedule in self._schedules.values()}
        return {at: now[id(schedule)] for at, schedule in self._schedules.items()}

    @torch.no_grad()
    def _values(self, factors: dict[int, Number]) -> dict[int, float]:
        return {
            at: float(factors[at]) * float(self._penalties[at].value(entry.parameter))
            for at, entry in self._entries.items()
        }

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _is_within_step(optimizer):
            return None
        # Asked before the optimizer moves anything, so that what is refused leaves the weights as they were.
        self._now = self._factors()
        if self._metric is not None:
            self._metric.refuse_misfits(optimizer)
        if self._mode.after:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._act(optimizer)
            return None
        calls = itertools.count()

        def penalised_closure() -> Any:
            loss = closure()
            if next(calls) == 0 or self._mode.repeats:
                self._act(optimizer)
            # A line search compares losses, so it has to see the function whose gradient it is given.
            return loss + self.value() if isinstance(optimizer, torch.optim.LBFGS) else loss

        return args[:1], {**kwargs, "closure": penalised_closure}

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if _is_within_step(optimizer):
            return
        if self._mode.after:
            self._act(optimizer)
        self.step += 1

    @torch.no_grad()
    def _act(self, optimizer: Optimizer) -> None:
        scale = getattr(optimizer, "grad_scale", None)
        # A fused optimizer under a gradient scaler is called even when it will skip the step inside its kernel.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None:
            skipped = skipped.squeeze() > 0
            if skipped.is_cpu and skipped.item():
                return
            skipped = None if skipped.is_cpu else skipped
        live = list(self._live(optimizer))
        updates = [
            Update(
                entry.parameter,
                self._penalties[id(entry.parameter)],
                self._now[id(entry.parameter)],
                group,
                optimizer.state.get(entry.parameter, {}),
                self._metric,
                scale,
                skipped,
            )
            for entry, group in live
        ]
        for (entry, _), bad in zip(live, self._mode.act(updates), strict=True):
            self._saw_nan(entry.row.name, bad)

    def _saw_nan(self, name: str, bad: bool | Tensor) -> None:
        if isinstance(bad, Tensor):
            self._nan_steps[name] = self._nan_steps.get(name, 0) + bad.int()
        elif bad:
            if name not in self._nan_steps:
                met = "holds NaN after" if self._mode.after else "has NaN in its gradient at"
                text = f"{name!r} {met} the optimizer's step {self.step + 1}; was the loss finite?"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            self._nan_steps[name] = self._nan_steps.get(name, 0) + 1

    def _live(self, optimizer: Optimizer) -> Iterator[tuple[Entry, dict[str, Any]]]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                entry = self._entries.get(id(parameter))
                if entry is not None and parameter.grad is not None:
                    yield entry, group


def _is_within_step(optimizer: Optimizer) -> bool:
    """Whether a hook is that of a step within a step: torch hooks a class's step and the one that it calls above it."""
    return steps_being_taken(optimizer) == 2


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


def _refuse_second_prox(optimizer: Optimizer, entries: list[Entry], mode: Mode) -> None:
    if not mode.after:
        return
    for other in _attached.get(optimizer, []):
        for row, parameter in entries:
            if other._mode.after and id(parameter) in other._entries:
                raise WellposedError(
                    f"{row.name!r} has a proximal penalty already; two proxes in a row are not the prox of the sum: "
                    "remove() the first handle and give the sum, as in wp.L1(a) + wp.L2(b)"
                )
